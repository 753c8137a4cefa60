"""Your own tracklets as folders: ROOT/split/identity/camera/tracklet/frames."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..environment import progress_bar
from ..errors import SourceError
from ..index import Reading, SourceTracklet
from ..records import SPLITS
from .reading import is_image, list_folder

LAYOUT = "ROOT/train|query|gallery/identity/camera/tracklet/frame.jpg"
LEVELS = ("an identity folder", "a camera folder", "a tracklet folder")
FRAME_NUMBER = re.compile(r"(?<![0-9])[0-9]{1,18}(?=\.[^.]*$)")

log = logging.getLogger(__name__)


def read(root: Path) -> Reading:
    """Read a tree of folders; frames are sorted naturally (frame2 before frame10).

    Identity and camera folders are numbers or any text (see manifest.number_names). Tracklet folders without frames
    are named as missing.

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
    tracklets, empty = _walk(root, splits)
    name = root.resolve().name.encode(errors="replace").decode()
    return Reading(name, root, tuple(tracklets), tuple(empty), notes=notes)


def _walk(root: Path, splits: list[str]) -> tuple[list[SourceTracklet], list[str]]:
    """All tracklets in natural order, and the tracklet folders without frames."""
    found, empty = [], []
    identities = [(split, identity) for split in splits for identity in _folders(root, split, level=0)]
    with progress_bar(len(identities), "identity folders", "folders") as bar:
        for split, identity in identities:
            for camera in _folders(root, f"{split}/{identity}", level=1):
                for name in _folders(root, f"{split}/{identity}/{camera}", level=2):
                    folder = f"{split}/{identity}/{camera}/{name}"
                    files = [file for file in list_folder(root / folder)[1] if is_image(file)]
                    paths = tuple(f"{folder}/{file}" for file in files)
                    if paths:
                        found.append(SourceTracklet(split, identity, camera, paths, _frame_numbers(files), name=name))
                    else:
                        empty.append(f"{folder}/ (no frames in it)")
            bar.update()
    return found, empty


def _frame_numbers(files: Sequence[str]) -> tuple[int, ...] | None:
    """The digits that all names end with, if they rise from frame to frame."""
    found = [FRAME_NUMBER.search(file) for file in files]
    numbers = tuple(int(match[0]) for match in found if match is not None)
    rising = len(numbers) == len(files) and all(before < after for before, after in pairwise(numbers))
    return numbers if rising else None


def _folders(root: Path, parent: str, level: int) -> list[str]:
    folders, files = list_folder(root / parent)
    image = next((name for name in files if is_image(name)), None)
    if image is not None:
        raise SourceError(f"{parent}/{image} is an image", f"{LEVELS[level]} there: {LAYOUT}", "move it one level down")
    return folders
