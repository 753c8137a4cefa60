"""Your own tracklets as folders: ROOT/split/identity/camera/tracklet/frames."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..manifest import SourceTracklet
from ..environment import progress_bar
from ..records import SPLITS
from .folders import is_image, list_folder
from .numbering import number_names
from .reading import Reading, without_junk

LAYOUT = "ROOT/train|query|gallery/identity/camera/tracklet/frame.jpg"
LEVELS = ("an identity folder", "a camera folder", "a tracklet folder")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Found:
    split: str
    identity: str
    camera: str
    frame_paths: tuple[str, ...]


def read(root: Path) -> Reading:
    """Read a tree of folders; frames are sorted naturally (frame2 before frame10).

    Identity and camera folders are numbers, or any text: then they are numbered in sorted order, from 1, and the
    numbers are kept in notes["identity_numbers"] and notes["camera_numbers"]. Splits that are not there are named in
    notes["absent_splits"]. Tracklet folders without frames are named as missing.

    Raises:
        SourceError: none of the splits is there, or an image lies where a folder is expected.
    """
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder", LAYOUT, "check the path")
    present = list_folder(root)[0]
    splits = [split for split in SPLITS if split in present]
    if not splits:
        raise SourceError(
            f"{root} has none of the folders train, query and gallery", LAYOUT, "docs/datasets.md shows an example"
        )
    notes: dict[str, Any] = {}
    others = [name for name in present if name not in SPLITS]
    if others:
        log.warning("folders of %s that are no split and were not read: %s", root, ", ".join(others))
        notes["ignored_folders"] = others
    if len(splits) < len(SPLITS):
        notes["absent_splits"] = [split for split in SPLITS if split not in splits]
    found, empty = _walk(root, splits)
    identities, given_identities = number_names((item.identity for item in found), "identity")
    cameras, given_cameras = number_names((item.camera for item in found), "camera")
    notes.update({"identity_numbers": given_identities} if given_identities else {})
    notes.update({"camera_numbers": given_cameras} if given_cameras else {})
    tracklets = [
        SourceTracklet(item.split, identities[item.identity], cameras[item.camera], item.frame_paths) for item in found
    ]
    return Reading(root.resolve().name, root, without_junk(tracklets, notes), tuple(empty), notes=notes)


def _walk(root: Path, splits: list[str]) -> tuple[list[_Found], list[str]]:
    """All tracklets in natural order, and the tracklet folders without frames."""
    found, empty = [], []
    identities = [(split, identity) for split in splits for identity in _folders(root, split, level=0)]
    with progress_bar(len(identities), "identity folders", "folders") as bar:
        for split, identity in identities:
            for camera in _folders(root, f"{split}/{identity}", level=1):
                for tracklet in _folders(root, f"{split}/{identity}/{camera}", level=2):
                    folder = f"{split}/{identity}/{camera}/{tracklet}"
                    frames = tuple(f"{folder}/{name}" for name in list_folder(root / folder)[1] if is_image(name))
                    if frames:
                        found.append(_Found(split, identity, camera, frames))
                    else:
                        empty.append(f"{folder}/ (no frames in it)")
            bar.update()
    return found, empty


def _folders(root: Path, parent: str, level: int) -> list[str]:
    folders, files = list_folder(root / parent)
    image = next((name for name in files if is_image(name)), None)
    if image is not None:
        raise SourceError(f"{parent}/{image} is an image", f"{LEVELS[level]} there: {LAYOUT}", "move it one level down")
    return folders
