"""Persons under two cameras, divided into halves for training and testing; tables in MATLAB files."""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from ..commit import MAX_JSON_BYTES
from ..errors import SourceError
from ..index import SourceTracklet
from ..manifest import IdentitySplit
from .reading import MAX_WHOLE, list_folder, open_source, read_at_most

Halves = tuple[list[str], list[str]]  # folder names of the training and of the test persons
Frames = list[tuple[int, str]]  # number and path, in time order
QUERY_CAMERA = 1
# Of MATLAB's level 5 format (R. L. Smith, "MAT-File Format"): types of elements as numpy writes them, and numbers.
ELEMENT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MATRIX, COMPRESSED = 14, 15
NUMERIC_CLASSES = range(6, 16)  # of matrices: double to uint64
COMPLEX, LOGICAL = 0x800, 0x200  # flags of matrices
MAX_BYTES = 64 << 20  # of a file, and of what is compressed in it; those of MARS have 0.4 MB


def load_integers(path: Path, key: str) -> np.ndarray:
    """The two-dimensional variable `key` of a .mat file of MATLAB 5 to 7.2, int64 (rows, columns).

    Not scipy's reader: it ends the process at some broken files, and takes the memory that others claim to need.
    """
    with open_source(path, f"a file of MATLAB 5 to 7.2, {key} in it a table of whole numbers") as file:
        value = _read_matrix(read_at_most(file, MAX_BYTES), key)
        near = value.size and (np.abs(value.astype(float)) <= MAX_WHOLE).all()
        if not near or not np.array_equal(value, np.trunc(value)):
            raise ValueError(f"{key} is {value.dtype} of shape {value.shape}")
    return value.astype(np.int64)


def _read_matrix(content: bytes, key: str) -> np.ndarray:
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128], "")
    if not order or struct.unpack_from(f"{order}H", content, 124) != (0x100,):
        raise ValueError("it does not begin as such a file")
    names: list[str] = []
    left = MAX_BYTES
    for kind, data in _elements(content[128:], order):
        if kind == COMPRESSED:
            inflater = zlib.decompressobj()
            data = inflater.decompress(data, left)[8:]
            left -= len(data)
            if not inflater.eof or left <= 0:
                raise ValueError(f"its variables are cut short or of more than {MAX_BYTES:,} bytes")
        elif kind != MATRIX:
            raise ValueError(f"an element of type {kind}")
        parts = list(islice(_elements(data, order), 4))  # flags, shape, name, numbers
        names.append(parts[2][1].decode("latin-1") if len(parts) > 2 else "")
        if names[-1] != key:
            continue
        flags, shape = (
            struct.unpack_from(f"{order}I", parts[0][1])[0],
            np.frombuffer(parts[1][1], f"{order}i4").tolist(),
        )
        if flags & 0xFF not in NUMERIC_CLASSES or flags & (COMPLEX | LOGICAL) or len(shape) != 2 or min(shape) < 0:
            raise ValueError(f"a matrix of class {flags & 0xFF} and shape {shape} is no table of real numbers")
        number_type, numbers = parts[3] if len(parts) > 3 else (0, b"")
        if number_type not in ELEMENT_TYPES or len(numbers) != math.prod(shape) * int(ELEMENT_TYPES[number_type][1]):
            raise ValueError(f"shape {shape}, and {len(numbers):,} bytes of type {number_type}")
        return np.frombuffer(numbers, order + ELEMENT_TYPES[number_type]).reshape(shape, order="F")
    raise ValueError(f"it holds {', '.join(map(repr, names)) or 'nothing'} and no variable {key}")


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
