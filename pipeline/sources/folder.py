"""Your own tracklets as folders: ROOT/split/identity/camera/tracklet/frames."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from ..environment import progress_bar
from ..errors import SourceError
from ..index import Reading, SourceTracklet
from ..records import SPLITS
from .reading import is_image, list_folder, rising

LAYOUT = "ROOT/train|query|gallery/identity/camera/tracklet/frame.jpg"
LEVELS = ("an identity folder", "a camera folder", "a tracklet folder")
FRAME_NUMBER = re.compile(r"(?<![0-9])[0-9]{1,18}(?=\.[^.]*$)")

log = logging.getLogger(__name__)


def read(root: Path) -> Reading:
    """Read a tree of folders; frames are sorted naturally (frame2 before frame10).

    Identity and camera folders are numbers or any text (see index.number_names). Frame numbers are the digits that all
    names of a tracklet end with, if they rise. Tracklet folders without frames are named as missing.
    """
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder", LAYOUT, "check the path")
    present = list_folder(root)[0]
    splits = [split for split in SPLITS if split in present]
    if not splits:
        raise SourceError(f"{root} has none of the folders train, query and gallery", LAYOUT, "see docs/datasets.md")
    notes: dict[str, Any] = {}
    others = [name for name in present if name not in SPLITS]
    if others:
        log.warning("folders of %s that are no split and were not read: %s", root, ", ".join(others))
        notes["ignored_folders"] = others
    tracklets, empty = [], []
    identities = [(split, identity) for split in splits for identity in _folders(root, split, level=0)]
    with progress_bar(len(identities), "identity folders", "folders") as bar:
        for split, identity in identities:
            for camera in _folders(root, f"{split}/{identity}", level=1):
                for name in _folders(root, f"{split}/{identity}/{camera}", level=2):
                    folder = f"{split}/{identity}/{camera}/{name}"
                    files = [file for file in list_folder(root / folder)[1] if is_image(file)]
                    if not files:
                        empty.append(f"{folder}/ (no frames in it)")
                        continue
                    numbers = tuple(int(match[0]) for match in map(FRAME_NUMBER.search, files) if match)
                    known = numbers if len(numbers) == len(files) and rising(numbers) else None
                    paths = tuple(f"{folder}/{file}" for file in files)
                    tracklets.append(SourceTracklet(split, identity, camera, paths, known, name=name))
            bar.update()
    dataset = root.resolve().name.encode(errors="replace").decode()
    return Reading(dataset, root, tuple(tracklets), tuple(empty), notes=notes)


def _folders(root: Path, parent: str, level: int) -> list[str]:
    folders, files = list_folder(root / parent)
    image = next(filter(is_image, files), None)
    if image is not None:
        raise SourceError(f"{parent}/{image} is an image", f"{LEVELS[level]} there: {LAYOUT}", "move it one level down")
    return folders
