"""iLIDS-VID (Wang et al., ECCV 2014): 300 persons under two cameras, ten divisions of the persons."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..index import Reading, SourceTracklet
from ..manifest import IdentitySplit
from .halves import check_halves, identity_splits, names_in, read_json, read_mat
from .reading import list_folder, require_root

SEQUENCES = "i-LIDS-VID/sequences"
MAT_PATH = "train-test people splits/train_test_splits_ilidsvid.mat"
JSON_PATHS = ("splits.json", "train-test people splits/splits.json")
CAMERAS = (1, 2)
QUERY_CAMERA = 1
PERSON_FOLDER = re.compile(r"person(\d{1,9})")

Frames = list[tuple[int, str]]  # number and path, in time order


def read(root: Path) -> Reading:
    """Read the sequences and all divisions of the persons into training and test.

    Persons are taken in sorted order, never in the order of the file system: the positions in the splits' .mat file
    mean sorted folders, and an unsorted listing silently gives other splits on another disk. Identities are the
    numbers in the folder names, cameras 1 and 2; camera 1 is the query. A person without frames under one of the
    cameras is left out and named as missing.

    Raises:
        SourceError: the layout or a file name is wrong, or the splits do not fit the folders.
    """
    require_root(root, [f"{SEQUENCES}/cam{camera}/" for camera in CAMERAS], "iLIDS-VID")
    frames = {camera: _read_camera(root, camera) for camera in CAMERAS}
    persons = sorted(set().union(*frames.values()))
    missing = [f"{SEQUENCES}/cam{c}/{p}/" for p in persons for c in CAMERAS if not frames[c].get(p)]
    complete = [person for person in persons if all(frames[camera].get(person) for camera in CAMERAS)]
    numbers = {person: _identity(person) for person in complete}
    splits, path, unknown = _read_splits(root, persons, numbers)
    notes: dict[str, Any] = {"splits_from": path}
    if len(complete) < len(persons):
        notes["persons_left_out"] = len(persons) - len(complete)
    tracklets = tuple(
        SourceTracklet(
            "train",  # write_manifest sets the split
            numbers[person],
            camera,
            tuple(path for _, path in frames[camera][person]),
            tuple(number for number, _ in frames[camera][person]),
            name=f"cam{camera}_{person}",
            identity_name=person,
            camera_name=f"cam{camera}",
        )
        for person in complete
        for camera in CAMERAS
    )
    missing += [f"{SEQUENCES}/cam{c}/{person}/" for person in unknown for c in CAMERAS]
    return Reading("ilids-vid", root, tracklets, tuple(missing), splits, notes)


def _read_splits(
    root: Path, persons: Sequence[str], numbers: Mapping[str, int]
) -> tuple[tuple[IdentitySplit, ...], str, list[str]]:
    """All divisions in the file's order, the file's path, and persons it names that have no folder.

    The .mat file, the dataset's own, goes before a splits.json.

    Args:
        root: the dataset's folder.
        persons: all person folders, sorted, including those seen by one camera alone: positions count them.
        numbers: identity of each person that is kept.
    """
    path = next((name for name in (MAT_PATH, *JSON_PATHS) if (root / name).is_file()), None)
    if path is None:
        raise SourceError(
            f"{root} has no splits", f"{MAT_PATH} (it comes with the dataset) or {JSON_PATHS[0]}", "copy it again"
        )
    halves = read_mat(root / path, persons) if path == MAT_PATH else read_json(root / path)
    check_halves(root / path, halves, persons)
    return identity_splits(halves, numbers, QUERY_CAMERA), path, sorted(names_in(halves) - set(persons))


def _identity(person: str) -> int:
    match = PERSON_FOLDER.fullmatch(person)
    if match is None:
        raise SourceError(
            f"a folder {person!r} in {SEQUENCES}", "folders like person001", f"remove it, or see {MAT_PATH}'s readme"
        )
    return int(match[1])


def _read_camera(root: Path, camera: int) -> dict[str, Frames]:
    """The frames of each person folder of a camera, in time order; a folder without frames has none."""
    folder = f"{SEQUENCES}/cam{camera}"
    result: dict[str, Frames] = {}
    for person in list_folder(root / folder)[0]:
        _identity(person)
        name = re.compile(rf"cam{camera}_{person}_(\d{{1,18}})\.png", re.IGNORECASE)
        result[person] = []
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
            result[person].append((int(match[1]), f"{folder}/{person}/{file}"))
        result[person].sort()
    return result
