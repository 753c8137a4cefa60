"""iLIDS-VID (Wang et al., ECCV 2014): 300 persons under two cameras, ten divisions of the persons into halves for
training and testing. PRID2011 has these too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..commit import MAX_JSON_BYTES
from ..errors import SourceError
from ..index import Reading, SourceTracklet
from ..manifest import IdentitySplit
from .mars import load_integers
from .reading import list_folder, open_source, read_at_most, require_root

Halves = tuple[list[str], list[str]]  # folder names of the training and of the test persons
Frames = list[tuple[int, str]]  # number and path, in time order
QUERY_CAMERA = 1

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


def read_cameras(
    root: Path, sequences: str, cameras: Iterable[str], person_name: str, frame_name: str, numbers: range
) -> dict[str, dict[str, Frames]]:
    """Camera folder -> person folder -> frames, of the persons in `numbers`; a folder without frames has none.

    `person_name` and `frame_name` are patterns whose group is the number; the latter may name {camera} and {person}.

    Raises:
        SourceError: a folder or a .png file has another name.
    """
    found: dict[str, dict[str, Frames]] = {camera: {} for camera in cameras}
    for camera, persons in found.items():
        for person in list_folder(root / sequences / camera)[0]:
            match = re.fullmatch(person_name, person)
            if match is None:
                raise SourceError(f"a folder {person!r} in {sequences}", f"names like {_example(person_name)}")
            if int(match[1]) not in numbers:
                continue
            folder, pattern = f"{sequences}/{camera}/{person}", frame_name.format(camera=camera, person=person)
            frames = persons.setdefault(person, [])
            for file in list_folder(root / folder)[1]:
                match = re.fullmatch(pattern, file, re.IGNORECASE)
                if match is not None:
                    frames.append((int(match[1]), f"{folder}/{file}"))
                elif file.lower().endswith(".png"):
                    raise SourceError(f"{folder}/{file} contradicts its folder", f"names like {_example(pattern)}")
            frames.sort()
    return found


def _example(pattern: str) -> str:
    return re.sub(r"\(.*\)", "0001", pattern).replace("\\", "")


def camera_tracklets(
    frames: Mapping[str, Mapping[str, Frames]], numbers: Mapping[str, int], separator: str
) -> tuple[SourceTracklet, ...]:
    """A tracklet of each person in `numbers` under cameras 1, 2 and so on; write_manifest sets the splits.

    Its name is camera, separator, person.
    """
    return tuple(
        SourceTracklet(
            "train",
            identity,
            number,
            tuple(path for _, path in frames[camera][person]),
            tuple(frame for frame, _ in frames[camera][person]),
            name=f"{camera}{separator}{person}",
            identity_name=person,
            camera_name=camera,
        )
        for person, identity in numbers.items()
        for number, camera in enumerate(frames, start=1)
    )


def read_mat(path: Path, persons: Sequence[str]) -> list[Halves]:
    """Rows of ls_set are permutations of the 1-based positions of the sorted folders; the first half is for testing
    (the convention of Wang et al., kept by every later reader of this file). `persons` are sorted.
    """
    table = load_integers(path, "ls_set")
    count = table.shape[1]
    if count != len(persons):
        found = f"{path} counts {count} persons by position, but there are {len(persons)} person folders"
        remedy = "complete the copy; or move the .mat file away and give splits.json, which names the folders"
        raise SourceError(found, "as many: one missing folder would shift all positions after it", remedy)
    for row, positions in enumerate(table, start=1):
        if not np.array_equal(np.sort(positions), np.arange(1, count + 1)):
            raise SourceError(f"row {row} of {path}", f"each position 1 to {count} once", "copy the file again")
    rows = [[persons[position - 1] for position in positions] for positions in table.tolist()]
    return [(row[count // 2 :], row[: count // 2]) for row in rows]


def read_json(path: Path) -> list[Halves]:
    """A list of {"train": [folders], "test": [folders]}, as torchreid writes it."""
    with open_source(path, 'a JSON list of {"train": [person folders], "test": [person folders]}') as file:
        halves = [(item["train"], item["test"]) for item in json.loads(read_at_most(file, MAX_JSON_BYTES))]
        lists = all(isinstance(half, list) for pair in halves for half in pair)
        if not halves or not lists or not all(isinstance(person, str) for person in names_in(halves)):
            raise ValueError("it has another form")
    return halves


def names_in(halves: Iterable[Halves]) -> set[str]:
    """Everybody that some division names."""
    return {person for pair in halves for half in pair for person in half}


def identity_splits(
    path: Path, halves: Iterable[Halves], persons: Iterable[str], numbers: Mapping[str, int]
) -> tuple[IdentitySplit, ...]:
    """The divisions by identity of the persons in `numbers`; each of `persons` must be in one half."""
    splits = []
    for index, (train, test) in enumerate(halves):
        for where, found in (("both halves", {*train} & {*test}), ("neither half", {*persons} - {*train, *test})):
            if found:
                raise SourceError(f"split {index} of {path} has {min(found)} in {where}", "each person in one of them")
        kept = [tuple(sorted(numbers[person] for person in {*half} if person in numbers)) for half in (train, test)]
        splits.append(IdentitySplit(kept[0], kept[1], QUERY_CAMERA))
    return tuple(splits)
