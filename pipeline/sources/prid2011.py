"""PRID2011 (Hirzer et al., SCIA 2011), multi-shot: 200 persons under both cameras, ten divisions of 178 of them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..index import Reading
from .ilids_vid import Halves, camera_tracklets, identity_splits, names_in, read_cameras, read_json
from .reading import require_root

SEQUENCES = "prid_2011/multi_shot"
CAMERAS = {1: "cam_a", 2: "cam_b"}
NUM_SHARED = 200  # from person 201 on, equal numbers under the two cameras are different people
MIN_FRAMES = 27  # under each camera; the 178 persons of the video protocol are those that have them
SPLITS_FILE = "splits_prid2011.json"
NUM_OWN_SPLITS = 10
OWN_SPLITS_SEED = 0
PERSON_NAME = r"person_(\d{4})"
FRAME_NAME = r"(\d{{1,18}})\.png"


def read(root: Path) -> Reading:
    """Read the persons that both cameras show long enough, and all divisions of them into training and test.

    Identities are the numbers in the folder names; cam_a is camera 1 and the query, cam_b is camera 2. Divisions are
    those of splits_prid2011.json where that file lies in `root`, or else own ones (`own_halves`): the notes say which.
    """
    require_root(root, [f"{SEQUENCES}/{folder}/" for folder in CAMERAS.values()], "PRID2011")
    shared = range(1, NUM_SHARED + 1)
    frames = read_cameras(root, SEQUENCES, CAMERAS.values(), PERSON_NAME, FRAME_NAME, shared)
    persons = sorted(set().union(*frames.values()))
    long_enough = [p for p in persons if all(len(shown.get(p, ())) >= MIN_FRAMES for shown in frames.values())]
    if len(long_enough) < 2:
        found = f"{root} has {len(long_enough)} persons with {MIN_FRAMES} frames or more under both cameras"
        raise SourceError(found, "at least 2 (178 in a complete copy)", "copy the dataset again")
    path = root / SPLITS_FILE
    published = path.is_file()
    halves = read_json(path) if published else own_halves(long_enough)
    named = names_in(halves) if published else set()
    numbers = {person: int(person.removeprefix("person_")) for person in long_enough}
    splits = identity_splits(path, halves, long_enough, numbers)
    missing = [
        f"{SEQUENCES}/{folder}/{person}/ ({len(shown.get(person, ()))} frames, at least {least} expected)"
        for person, least in sorted((dict.fromkeys(persons, 1) | dict.fromkeys(named, MIN_FRAMES)).items())
        for folder, shown in frames.items()
        if len(shown.get(person, ())) < least
    ]
    own = f"own splits of seed {OWN_SPLITS_SEED}, not those of published results"
    notes: dict[str, Any] = {"splits_from": SPLITS_FILE if published else own, "own_splits": not published}
    if len(long_enough) < len(persons):
        notes["persons_left_out"] = len(persons) - len(long_enough)
    return Reading("prid2011", root, camera_tracklets(frames, numbers, "/"), tuple(missing), splits, notes)


def own_halves(persons: Sequence[str]) -> list[Halves]:
    """Ten random halves that depend on the names and OWN_SPLITS_SEED alone: the same on every machine and version.

    Division i sorts the persons by the SHA-256 of "SEED/i/NAME"; the first half is for testing.
    """
    halves = []
    for index in range(NUM_OWN_SPLITS):
        keys = {person: sha256(f"{OWN_SPLITS_SEED}/{index}/{person}".encode()).digest() for person in persons}
        ordered = sorted(persons, key=keys.__getitem__)
        halves.append((ordered[len(ordered) // 2 :], ordered[: len(ordered) // 2]))
    return halves
