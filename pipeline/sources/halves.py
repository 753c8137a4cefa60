"""Divisions of the persons into halves for training and testing, as files state them; tables in MATLAB files."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..commit import MAX_JSON_BYTES
from ..errors import SourceError
from ..manifest import IdentitySplit

Halves = tuple[list[str], list[str]]  # folder names of the training and of the test persons
# Of MATLAB's level 5 format (R. L. Smith, "MAT-File Format"): types of elements as numpy writes them, and numbers.
ELEMENT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MATRIX, COMPRESSED = 14, 15
NUMERIC_CLASSES = range(6, 16)  # of matrices: double to uint64
COMPLEX, LOGICAL = 0x800, 0x200  # flags of matrices
MATRIX_HEADER = 4096  # bytes in which the name of a matrix stands
MAX_BYTES = 64 << 20  # of a file and of a matrix; those of MARS have 0.4 MB
MAX_WHOLE = 2**53  # beyond it not every whole number is a double


def load_integers(path: Path, key: str) -> np.ndarray:
    """The two-dimensional variable `key` of a .mat file of MATLAB 5 to 7.2, int64 (rows, columns).

    Not scipy's reader: it ends the process at some broken files, and takes the memory that others claim to need.

    Raises:
        SourceError: the file is broken, or the variable is missing, empty or not made of whole numbers.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        value, names = _read_matrix(path.read_bytes(), key)
    except (ValueError, struct.error, zlib.error) as error:
        raise SourceError(f"{path} cannot be read ({error})", "a file of MATLAB 5 to 7.2", "copy it again") from error
    if value is None:
        found = ", ".join(map(repr, names)) or "nothing"
        raise SourceError(f"{path} holds {found}", f"a variable {key}", "copy the file again")
    whole = value.size and (np.abs(value.astype(float)) <= MAX_WHOLE).all() and np.array_equal(value, np.trunc(value))
    if not whole:
        raise SourceError(
            f"{key} in {path} is {value.dtype} of shape {value.shape}", "a table of whole numbers", "copy it again"
        )
    return value.astype(np.int64)


def _read_matrix(content: bytes, key: str) -> tuple[np.ndarray | None, list[str]]:
    """The matrix of a name, or None; and the names that were met."""
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128], "")
    if not order or struct.unpack_from(f"{order}H", content, 124) != (0x100,):
        raise ValueError("it does not begin as such a file")
    names: list[str] = []
    for kind, data in _elements(content[128:], order):
        inflater = zlib.decompressobj()
        if kind == COMPRESSED:
            header = inflater.decompress(data, MATRIX_HEADER)
        elif kind == MATRIX:
            header = struct.pack(f"{order}II", MATRIX, len(data)) + data
        else:
            raise ValueError(f"an element of type {kind}")
        parts = list(islice(_elements(header[8:], order), 3))  # flags, shape, name
        names.append(parts[2][1].decode("latin-1") if len(parts) == 3 else "")
        if names[-1] != key:
            continue
        if kind == COMPRESSED:
            header += inflater.decompress(inflater.unconsumed_tail, MAX_BYTES)
            if not inflater.eof:
                raise ValueError(f"{key} is cut short or of more than {MAX_BYTES:,} bytes")
        return _numbers(list(islice(_elements(header[8:], order), 4)), order), names
    return None, names


def _numbers(parts: list[tuple[int, bytes]], order: str) -> np.ndarray:
    """Flags, shape, name and data of a matrix as an array."""
    flags = struct.unpack_from(f"{order}I", parts[0][1])[0]
    shape = np.frombuffer(parts[1][1], f"{order}i4").tolist()
    if flags & 0xFF not in NUMERIC_CLASSES or flags & (COMPLEX | LOGICAL) or len(shape) != 2 or min(shape) < 0:
        raise ValueError(f"a matrix of class {flags & 0xFF} and shape {shape} is no table of real numbers")
    kind, data = parts[3] if len(parts) == 4 else (0, b"")
    if kind not in ELEMENT_TYPES or len(data) != math.prod(shape) * int(ELEMENT_TYPES[kind][1]):
        raise ValueError(f"shape {shape}, and {len(data):,} bytes of type {kind}")
    return np.frombuffer(data, order + ELEMENT_TYPES[kind]).reshape(shape, order="F")


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and data of each element in turn; none is longer than what is there."""
    place = 0
    while place + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        start, step = place + 8, 8
        if kind >> 16:  # type, size and at most 4 bytes of data in 8 bytes
            kind, size, start, step = kind & 0xFFFF, kind >> 16, place + 4, 4
        if start + size > len(content) or (step == 4 and size > 4):
            raise ValueError(f"an element of {size:,} bytes where {len(content) - start:,} are left")
        yield kind, content[start : start + size]
        place = start + size + (0 if kind == COMPRESSED else -size % step)


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
