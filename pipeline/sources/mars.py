"""MARS (Zheng et al., ECCV 2016): bbox_train, bbox_test and the tables in info/, which are MATLAB's."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceError
from ..index import Reading, SourceTracklet, is_junk
from .reading import MAX_WHOLE, open_source, read_at_most, require_root, rising, split_missing

INFO_FILES = (
    "info/train_name.txt",
    "info/test_name.txt",
    "info/tracks_train_info.mat",
    "info/tracks_test_info.mat",
    "info/query_IDX.mat",
)
JUNK_FOLDER = "00-1"
FILE_NAME = re.compile(r"((\d{4}|00-1)C(\d)T(\d{1,18}))F(\d{1,18})\.jpg", re.IGNORECASE)
# Of MATLAB's level 5 format (R. L. Smith, "MAT-File Format"): types of elements as numpy writes them, and numbers.
ELEMENT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MATRIX, COMPRESSED = 14, 15
NUMERIC_CLASSES = range(6, 16)  # of matrices: double to uint64
COMPLEX, LOGICAL = 0x800, 0x200  # flags of matrices
MAX_BYTES = 64 << 20  # of a file, and of what is compressed in it; those of MARS have 0.4 MB


def read(root: Path) -> Reading:
    """Read the dataset's five tables and check them against the file names and the files.

    The query tracklets are those of query_IDX.mat, the other test tracklets are the gallery. Junk has identity -1,
    distractors have identity 0. Cameras are 1 to 6. Tracklets are called what their file names begin with, such as
    0001C1T0001.
    """
    require_root(root, INFO_FILES, "MARS")
    tracklets = _read_tracklets(root, "train", "train")
    tracklets += _mark_queries(root / "info/query_IDX.mat", _read_tracklets(root, "test", "gallery"))
    # Junk is never opened: a copy without the 00-1 folder is as good.
    paths = [path for tracklet in tracklets if not is_junk(tracklet.identity) for path in tracklet.frame_paths]
    lost, missing = split_missing(root, paths, "MARS folders")
    notes: dict[str, Any] = {}
    if lost:
        tracklets = [_without(tracklet, lost) for tracklet in tracklets]
        tracklets = [tracklet for tracklet in tracklets if tracklet.frame_paths]
        notes["missing_frames"] = len(lost)
    return Reading("mars", root, tuple(tracklets), tuple(missing), notes=notes)


def _read_tracklets(root: Path, half: str, split: str) -> list[SourceTracklet]:
    """Tracklets of a half, frames in time order; each name is compared with the table's identity and camera."""
    names_path, table_path = root / f"info/{half}_name.txt", root / f"info/tracks_{half}_info.mat"
    with open_source(names_path, "UTF-8 text with one file name per line") as file:
        names = file.read().decode().split()
    table = load_integers(table_path, f"track_{half}_info")
    if table.shape[1] != 4:
        raise SourceError(f"{table_path} has {table.shape[1]} columns", "4: first frame, last frame, identity, camera")
    tracklets = []
    for row, (start, end, identity, camera) in enumerate(table.tolist(), start=1):
        if not 1 <= start <= end <= len(names):
            raise SourceError(
                f"row {row} of {table_path} names lines {start} to {end} of {names_path.name}",
                f"lines within 1 to {len(names)}",
                "copy both again",
            )
        ordered = []
        for name in names[start - 1 : end]:
            match = FILE_NAME.fullmatch(name)
            if match is None:
                raise SourceError(f"{name!r} in {names_path}", "a name like 0001C1T0001F001.jpg", "copy the file again")
            stem, person, named_camera, track, number = match.groups()
            if (-1 if person == JUNK_FOLDER else int(person), int(named_camera)) != (identity, camera):
                raise SourceError(
                    f"row {row} of {table_path} says identity {identity}, camera {camera} of {name}",
                    "tables and file names that agree",
                    "they are of different versions: copy the info folder again",
                )
            ordered.append((int(track), int(number), f"bbox_{half}/{person}/{name}", stem))
        ordered.sort()
        _, numbers, paths, stems = zip(*ordered, strict=True)
        identity_name = JUNK_FOLDER if identity < 0 else f"{identity:04d}"
        known = numbers if rising(numbers) else None  # several tracks in a row
        tracklets.append(SourceTracklet(split, identity, camera, paths, known, None, stems[0], identity_name))
    return tracklets


def _mark_queries(path: Path, test: list[SourceTracklet]) -> list[SourceTracklet]:
    marked = list(test)
    for index in load_integers(path, "query_IDX").ravel().tolist():
        found = f"{path} names test tracklet {index}"
        if not 1 <= index <= len(test):
            raise SourceError(found, f"1 to {len(test)}", "it belongs to another copy: copy info again")
        identity = int(test[index - 1].identity)
        if identity < 1 or marked[index - 1].split == "query":
            kind = "junk" if identity < 0 else "a distractor" if identity == 0 else "in it twice"
            raise SourceError(f"{found}, which is {kind}", "each query once, a person", "copy info again")
        marked[index - 1] = replace(test[index - 1], split="query")
    return marked


def _without(tracklet: SourceTracklet, lost: set[str]) -> SourceTracklet:
    kept = [path not in lost for path in tracklet.frame_paths]
    numbers = tracklet.frame_numbers
    return replace(
        tracklet,
        frame_paths=tuple(compress(tracklet.frame_paths, kept)),
        frame_numbers=None if numbers is None else tuple(compress(numbers, kept)),
    )


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
