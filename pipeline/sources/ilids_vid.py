"""iLIDS-VID (Wang et al., ECCV 2014): 300 persons under two cameras, ten divisions of the persons."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..manifest import SourceTracklet
from .folders import list_folder, require_root
from .ilids_vid_splits import MAT_PATH, read_splits
from .reading import Reading

SEQUENCES = "i-LIDS-VID/sequences"
CAMERAS = (1, 2)
QUERY_CAMERA = 1
PERSON_FOLDER = re.compile(r"person(\d+)")


def read(root: Path) -> Reading:
    """Read the sequences and all divisions of the persons into training and test.

    Persons are taken in sorted order, never in the order of the file system: the positions in the splits' .mat file
    mean sorted folders, and an unsorted listing silently gives other splits on another disk. Identities are the
    numbers in the folder names, cameras 1 and 2; camera 1 is the query. A person without frames under one of the
    cameras is left out and named as missing.

    Raises:
        SourceError: the layout or a file name is wrong, or the splits do not fit the folders.
    """
    require_root(root, [f"{SEQUENCES}/cam{camera}" for camera in CAMERAS], "iLIDS-VID")
    frames = {camera: _read_camera(root, camera) for camera in CAMERAS}
    persons = sorted(set().union(*frames.values()))
    missing = [f"{SEQUENCES}/cam{c}/{p}/" for p in persons for c in CAMERAS if not frames[c].get(p)]
    complete = [person for person in persons if all(frames[camera].get(person) for camera in CAMERAS)]
    numbers = {person: _identity(person) for person in complete}
    found = read_splits(root, persons, numbers, QUERY_CAMERA)
    notes: dict[str, Any] = {"splits_from": found.path}
    if len(complete) < len(persons):
        notes["persons_left_out"] = len(persons) - len(complete)
    tracklets = tuple(
        SourceTracklet("train", numbers[person], camera, frames[camera][person])  # build_manifest sets the split
        for person in complete
        for camera in CAMERAS
    )
    missing += [f"{SEQUENCES}/cam{c}/{person}/" for person in found.unknown_persons for c in CAMERAS]
    return Reading("ilids-vid", root, tracklets, tuple(missing), found.splits, notes)


def _identity(person: str) -> int:
    match = PERSON_FOLDER.fullmatch(person)
    if match is None:
        raise SourceError(
            f"a folder {person!r} in {SEQUENCES}", "folders like person001", f"remove it, or see {MAT_PATH}'s readme"
        )
    return int(match[1])


def _read_camera(root: Path, camera: int) -> dict[str, tuple[str, ...]]:
    """Frame paths of each person folder of a camera, in time order; a folder without frames has none."""
    folder = f"{SEQUENCES}/cam{camera}"
    result = {}
    for person in list_folder(root / folder)[0]:
        _identity(person)
        name = re.compile(rf"cam{camera}_{person}_(\d+)\.png", re.IGNORECASE)
        numbered = []
        for file in list_folder(root / folder / person)[1]:
            if not file.lower().endswith(".png"):
                continue
            match = name.fullmatch(file)
            if match is None:
                raise SourceError(
                    f"{folder}/{person}/{file} contradicts its folder",
                    f"a name like cam{camera}_{person}_00001.png",
                    "the file lies in the wrong folder: copy the dataset again",
                )
            numbered.append((int(match[1]), f"{folder}/{person}/{file}"))
        result[person] = tuple(path for _, path in sorted(numbered))
    return result
