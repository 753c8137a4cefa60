"""Divisions of the persons into halves for training and testing, as files state them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceError
from ..manifest import IdentitySplit
from .matlab import load_integers

Halves = tuple[list[str], list[str]]  # folder names of the training and of the test persons


def read_mat(path: Path, persons: Sequence[str]) -> list[Halves]:
    """Rows of ls_set are permutations of the 1-based positions of the sorted folders; the first half is for testing
    (the convention of Wang et al., kept by every later reader of this file).

    Args:
        path: the .mat file.
        persons: all person folders, sorted.

    Raises:
        SourceError: not such a file, or it counts other persons.
    """
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


def read_json(path: Path) -> list[Halves]:
    """A list of {"train": [folders], "test": [folders]}, as torchreid writes it.

    Raises:
        SourceError: not such a file.
    """
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SourceError(f"{path} is not JSON ({error})", "", "write it again") from error
    if not isinstance(value, list) or not value or not all(_is_split(item) for item in value):
        raise SourceError(
            f"{path} has another form", 'a list of {"train": [person folders], "test": [person folders]}', ""
        )
    return [(item["train"], item["test"]) for item in value]


def names_in(halves: Iterable[Halves]) -> set[str]:
    """Everybody that some division names."""
    return {person for pair in halves for half in pair for person in half}


def check_halves(path: Path, halves: Sequence[Halves], persons: Iterable[str]) -> None:
    """Refuse divisions that have one of `persons` in both halves, or in neither.

    Raises:
        SourceError: naming the division, from 0, and the person.
    """
    for index, (train, test) in enumerate(halves):
        where = f"split {index} of {path}"
        both = sorted(set(train) & set(test))
        if both:
            raise SourceError(f"{where} has {both[0]} in both halves", "each person in one of them", "write it again")
        neither = sorted(set(persons) - set(train) - set(test))
        if neither:
            raise SourceError(
                f"{where} has {neither[0]} in neither half", "each person in one of them", "write it again"
            )


def identity_splits(
    halves: Iterable[Halves], numbers: Mapping[str, int], query_camera: int
) -> tuple[IdentitySplit, ...]:
    """The divisions by identity.

    Args:
        halves: by name.
        numbers: identity of each person that is kept; the others are left out of both halves.
        query_camera: see IdentitySplit.
    """
    return tuple(
        IdentitySplit(
            tuple(sorted(numbers[person] for person in train if person in numbers)),
            tuple(sorted(numbers[person] for person in test if person in numbers)),
            query_camera,
        )
        for train, test in halves
    )


def _is_split(item: Any) -> bool:
    return isinstance(item, dict) and all(
        isinstance(item.get(half), list) and all(isinstance(name, str) for name in item[half])
        for half in ("train", "test")
    )
