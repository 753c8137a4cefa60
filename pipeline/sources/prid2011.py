"""PRID2011 (Hirzer et al., SCIA 2011), multi-shot: 200 persons under both cameras, ten divisions of 178 of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..index import Reading, SourceTracklet
from .halves import Halves, check_halves, identity_splits, names_in, read_json
from .reading import list_folder, require_root

SEQUENCES = "prid_2011/multi_shot"
CAMERAS = {1: "cam_a", 2: "cam_b"}
QUERY_CAMERA = 1
NUM_SHARED = 200  # from person 201 on, equal numbers under the two cameras are different people
MIN_FRAMES = 27  # under each camera; the 178 persons of the video protocol are those that have them
SPLITS_FILE = "splits_prid2011.json"
NUM_OWN_SPLITS = 10
OWN_SPLITS_SEED = 0
PERSON_FOLDER = re.compile(r"person_(\d{4})")
FRAME_FILE = re.compile(r"(\d{1,18})\.png", re.IGNORECASE)

Frames = list[tuple[int, str]]  # number and path, in time order
Sequences = dict[int, dict[str, Frames]]  # camera -> person folder -> frames


def read(root: Path) -> Reading:
    """Read the persons that both cameras show long enough, and all divisions of them into training and test.

    Identities are the numbers in the folder names; cam_a is camera 1 and the query, cam_b is camera 2. Divisions are
    those of splits_prid2011.json where that file lies in `root`, or else own ones (`own_halves`): the notes say which.

    Raises:
        SourceError: the layout or a name is wrong, too few persons are left, or the split file does not fit them.
    """
    require_root(root, [f"{SEQUENCES}/{folder}/" for folder in CAMERAS.values()], "PRID2011")
    frames: Sequences = {camera: _read_camera(root, folder) for camera, folder in CAMERAS.items()}
    persons = sorted(set().union(*frames.values()))
    long_enough = [p for p in persons if all(len(frames[camera].get(p, ())) >= MIN_FRAMES for camera in CAMERAS)]
    if len(long_enough) < 2:
        raise SourceError(
            f"{root} has {len(long_enough)} persons with {MIN_FRAMES} frames or more under both cameras",
            "at least 2 (178 in a complete copy)",
            "copy the dataset again",
        )
    path = root / SPLITS_FILE
    named: set[str] = set()
    if path.is_file():
        halves, source = read_json(path), SPLITS_FILE
        named = names_in(halves)
        _check_names(path, named)
        check_halves(path, halves, long_enough)
    else:
        halves = own_halves(long_enough)
        source = f"own splits of seed {OWN_SPLITS_SEED}, not those of published results"
    notes: dict[str, Any] = {"splits_from": source, "own_splits": not path.is_file()}
    if len(long_enough) < len(persons):
        notes["persons_left_out"] = len(persons) - len(long_enough)
    numbers = {person: _identity(person) for person in long_enough}
    tracklets = tuple(
        SourceTracklet(
            "train",  # write_manifest sets the split
            numbers[person],
            camera,
            tuple(path for _, path in frames[camera][person]),
            tuple(number for number, _ in frames[camera][person]),
            name=f"{folder}/{person}",
            identity_name=person,
            camera_name=folder,
        )
        for person in long_enough
        for camera, folder in CAMERAS.items()
    )
    splits = identity_splits(halves, numbers, QUERY_CAMERA)
    return Reading("prid2011", root, tracklets, tuple(_missing(frames, persons, named)), splits, notes)


def own_halves(persons: Sequence[str]) -> list[Halves]:
    """Ten random halves that depend on the names and OWN_SPLITS_SEED alone: the same on every machine and version.

    Division i sorts the persons by the SHA-256 of "SEED/i/NAME"; the first half is for testing.
    """
    halves = []
    for index in range(NUM_OWN_SPLITS):
        keys = {person: sha256(f"{OWN_SPLITS_SEED}/{index}/{person}".encode()).digest() for person in persons}
        drawn = sorted(persons, key=keys.__getitem__)
        halves.append((drawn[len(drawn) // 2 :], drawn[: len(drawn) // 2]))
    return halves


def _identity(person: str) -> int:
    match = PERSON_FOLDER.fullmatch(person)
    if match is None:
        raise SourceError(f"a folder {person!r} in {SEQUENCES}", "folders like person_0001", "remove it")
    return int(match[1])


def _read_camera(root: Path, camera_folder: str) -> dict[str, Frames]:
    """The frames of each person that the other camera shows too, in time order."""
    result: dict[str, Frames] = {}
    for person in list_folder(root / SEQUENCES / camera_folder)[0]:
        if not 1 <= _identity(person) <= NUM_SHARED:
            continue
        folder = f"{SEQUENCES}/{camera_folder}/{person}"
        result[person] = []
        for file in list_folder(root / folder)[1]:
            match = FRAME_FILE.fullmatch(file)
            if match is not None:
                result[person].append((int(match[1]), f"{folder}/{file}"))
            elif file.lower().endswith(".png"):
                raise SourceError(f"a file {folder}/{file}", "names like 0001.png", "remove it")
        result[person].sort()
    return result


def _check_names(path: Path, named: Collection[str]) -> None:
    known = {f"person_{number:04d}" for number in range(1, NUM_SHARED + 1)}
    unknown = sorted(set(named) - known)
    if unknown:
        raise SourceError(
            f"{path} names {unknown[0]!r}",
            f"{min(known)} to {max(known)}, the persons that both cameras show",
            "the file of another dataset? remove or replace it",
        )


def _missing(frames: Sequences, persons: Sequence[str], named: Collection[str]) -> list[str]:
    """Folders with too few frames: any for persons of the split file, none at all for the others."""
    found = []
    for person in sorted({*persons, *named}):
        for camera, camera_folder in CAMERAS.items():
            count, least = len(frames[camera].get(person, ())), MIN_FRAMES if person in named else 1
            if count < least:
                found.append(f"{SEQUENCES}/{camera_folder}/{person}/ ({count} frames, at least {least} expected)")
    return found
