"""iLIDS-VID (Wang et al., ECCV 2014): 300 persons under two cameras, ten divisions of the persons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..index import Reading
from .halves import camera_tracklets, identity_splits, names_in, read_cameras, read_json, read_mat
from .reading import require_root

SEQUENCES = "i-LIDS-VID/sequences"
MAT_PATH = "train-test people splits/train_test_splits_ilidsvid.mat"
JSON_PATHS = ("splits.json", "train-test people splits/splits.json")
CAMERAS = ("cam1", "cam2")
PERSON_NAME = r"person(\d{1,9})"
FRAME_NAME = r"{camera}_{person}_(\d{{1,18}})\.png"


def read(root: Path) -> Reading:
    """Read the sequences and all divisions of the persons into training and test.

    Persons are taken in sorted order, never in the order of the file system: the positions in the splits' .mat file
    mean sorted folders, and an unsorted listing silently gives other splits on another disk. That file, the dataset's
    own, goes before a splits.json. Identities are the numbers in the folder names, cameras 1 and 2; camera 1 is the
    query. A person without frames under one of the cameras is left out and named as missing.
    """
    require_root(root, [f"{SEQUENCES}/{camera}/" for camera in CAMERAS], "iLIDS-VID")
    frames = read_cameras(root, SEQUENCES, CAMERAS, PERSON_NAME, FRAME_NAME, range(10**9))
    persons = sorted(set().union(*frames.values()))
    complete = [person for person in persons if all(frames[camera].get(person) for camera in CAMERAS)]
    numbers = {person: int(person.removeprefix("person")) for person in complete}
    path = next((name for name in (MAT_PATH, *JSON_PATHS) if (root / name).is_file()), None)
    if path is None:
        raise SourceError(
            f"{root} has no splits", f"{MAT_PATH} (it comes with the dataset) or {JSON_PATHS[0]}", "copy it again"
        )
    halves = read_mat(root / path, persons) if path == MAT_PATH else read_json(root / path)
    splits = identity_splits(root / path, halves, persons, numbers)
    expected = sorted({*persons, *names_in(halves)})
    missing = [f"{SEQUENCES}/{c}/{person}/" for person in expected for c in CAMERAS if not frames[c].get(person)]
    notes: dict[str, Any] = {"splits_from": path}
    if len(complete) < len(persons):
        notes["persons_left_out"] = len(persons) - len(complete)
    return Reading("ilids-vid", root, camera_tracklets(frames, numbers, "_"), tuple(missing), splits, notes)
