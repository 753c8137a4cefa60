"""Divisions of the persons into halves for training and testing, as files state them; tables in MATLAB files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..commit import MAX_JSON_BYTES
from ..errors import SourceError
from ..manifest import IdentitySplit

Halves = tuple[list[str], list[str]]  # folder names of the training and of the test persons
NUMERIC = ("double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
MAX_DEFLATION = 1032  # zlib makes a byte of at most so many
MAX_WHOLE = 2**53  # beyond it not every whole number is a double


def load_integers(path: Path, key: str) -> np.ndarray:
    """The two-dimensional variable `key` of a .mat file, int64 (rows, columns).

    Raises:
        SourceError: the file is broken, or the variable is missing, empty or not made of whole numbers.
    """
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import matfile_version

    try:
        if matfile_version(path)[0] != 1:  # scipy's reader of version 4 walks in circles where a size is negative
            raise ValueError("it is not of MATLAB 5 to 7.2")
        found = {name: (shape, kind) for name, shape, kind in whosmat(path)}
    except Exception as error:  # scipy raises a dozen kinds on broken files
        raise SourceError(f"{path} cannot be read ({error})", "a MATLAB file", "copy it again") from error
    if key not in found:
        names = ", ".join(map(repr, found)) or "nothing"
        raise SourceError(f"{path} holds {names}", f"a variable {key}", "copy the file again")
    shape, kind = found[key]
    what = f"{key} in {path} is {kind} of shape {shape}"
    if kind not in NUMERIC or len(shape) != 2 or min(shape) < 1:
        raise SourceError(what, "a table of whole numbers", "copy it again")
    if math.prod(shape) > MAX_DEFLATION * path.stat().st_size:
        raise SourceError(f"{what}, more than {path.stat().st_size:,} bytes can hold", "a table", "copy it again")
    try:
        value = np.asarray(loadmat(path, variable_names=[key])[key])
    except Exception as error:
        raise SourceError(f"{path} cannot be read ({error})", "a MATLAB file", "copy it again") from error
    if value.shape != shape or value.dtype.kind not in "iuf" or not (np.abs(value.astype(float)) <= MAX_WHOLE).all():
        raise SourceError(f"{what} and holds {value.dtype}", "a table of whole numbers", "copy it again")
    if not np.array_equal(value, np.trunc(value)):
        raise SourceError(f"{what} and holds fractions", "a table of whole numbers", "copy it again")
    return value.astype(np.int64)


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
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
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
        both = sorted(set(train) & set(test))
        neither = sorted(set(persons) - set(train) - set(test))
        for found, where in ((both, "both halves"), (neither, "neither half")):
            if found:
                raise SourceError(
                    f"split {index} of {path} has {found[0]} in {where}", "each person in one of them", "write it again"
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
            tuple(sorted(numbers[person] for person in set(train) if person in numbers)),
            tuple(sorted(numbers[person] for person in set(test) if person in numbers)),
            query_camera,
        )
        for train, test in halves
    )


def _is_split(item: Any) -> bool:
    return isinstance(item, dict) and all(
        isinstance(item.get(half), list) and all(isinstance(name, str) for name in item[half])
        for half in ("train", "test")
    )
