"""The divisions of iLIDS-VID's persons, from the dataset's .mat file or from a splits.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceError
from ..manifest import IdentitySplit
from .matlab import load_integers

MAT_PATH = "train-test people splits/train_test_splits_ilidsvid.mat"
JSON_PATHS = ("splits.json", "train-test people splits/splits.json")

Halves = tuple[list[str], list[str]]  # folder names of the training and of the test persons


@dataclass(frozen=True)
class FoundSplits:
    """The divisions, the file they come from, and persons they name that have no folder."""

    splits: tuple[IdentitySplit, ...]
    path: str
    unknown_persons: tuple[str, ...]


def read_splits(root: Path, persons: Sequence[str], numbers: Mapping[str, int], query_camera: int) -> FoundSplits:
    """All divisions, in the file's order; the .mat file, the dataset's own, goes before a splits.json.

    Args:
        root: the dataset's folder.
        persons: all person folders, sorted, including those seen by one camera alone: positions count them.
        numbers: identity of each person that is kept.
        query_camera: see IdentitySplit.

    Raises:
        SourceError: no file with splits, or one that does not divide the persons.
    """
    path = next((name for name in (MAT_PATH, *JSON_PATHS) if (root / name).is_file()), None)
    if path is None:
        raise SourceError(
            f"{root} has no splits", f"{MAT_PATH} (it comes with the dataset) or {JSON_PATHS[0]}", "copy it again"
        )
    halves = _read_mat(root / path, persons) if path == MAT_PATH else _read_json(root / path)
    for index, (train, test) in enumerate(halves):
        _check_halves(f"split {index} of {root / path}", train, test, persons)
    splits = tuple(
        IdentitySplit(
            tuple(sorted(numbers[person] for person in train if person in numbers)),
            tuple(sorted(numbers[person] for person in test if person in numbers)),
            query_camera,
        )
        for train, test in halves
    )
    named = {person for pair in halves for half in pair for person in half}
    return FoundSplits(splits, path, tuple(sorted(named - set(persons))))


def _read_mat(path: Path, persons: Sequence[str]) -> list[Halves]:
    """Rows of ls_set are permutations of the 1-based positions of the sorted folders; the first half is for testing
    (the convention of Wang et al., kept by every later reader of this file)."""
    table = load_integers(path, "ls_set")
    count = table.shape[1]
    if count != len(persons):
        raise SourceError(
            f"{path} counts {count} persons by position, but there are {len(persons)} person folders",
            "as many folders as columns, because one missing folder would shift all positions after it",
            "complete the copy; or move the .mat file away and give splits.json, which names the folders",
        )
    for row, positions in enumerate(table):
        if not np.array_equal(np.sort(positions), np.arange(1, count + 1)):
            raise SourceError(f"row {row + 1} of {path}", f"each position 1 to {count} once", "copy the file again")
    rows = [[persons[position - 1] for position in positions] for positions in table.tolist()]
    return [(row[count // 2 :], row[: count // 2]) for row in rows]


def _read_json(path: Path) -> list[Halves]:
    """A list of {"train": [folders], "test": [folders]}, as torchreid writes it."""
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SourceError(f"{path} is not JSON ({error})", "", "write it again") from error
    if not isinstance(value, list) or not value or not all(_is_split(item) for item in value):
        raise SourceError(
            f"{path} has another form", 'a list of {"train": [person folders], "test": [person folders]}', ""
        )
    return [(item["train"], item["test"]) for item in value]


def _is_split(item: Any) -> bool:
    return isinstance(item, dict) and all(
        isinstance(item.get(half), list) and all(isinstance(name, str) for name in item[half])
        for half in ("train", "test")
    )


def _check_halves(where: str, train: Sequence[str], test: Sequence[str], persons: Sequence[str]) -> None:
    both = sorted(set(train) & set(test))
    if both:
        raise SourceError(f"{where} has {both[0]} in both halves", "each person in one of them", "write it again")
    neither = sorted(set(persons) - set(train) - set(test))
    if neither:
        raise SourceError(f"{where} has {neither[0]} in neither half", "each person in one of them", "write it again")
