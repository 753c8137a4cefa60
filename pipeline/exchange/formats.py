"""Foreign keypoints: what every format is read into, the checks of all of them, and the readers of tables and .pose
files. COCO's JSON is in coco.py."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from ..commit import sha256_of
from ..errors import SourceError, SurroundingsError
from ..pose.selection import Person
from ..skeleton import JOINTS, NUM_JOINTS
from ..sources.reading import first_line, open_source, read_at_most

POSE_SUFFIX = ".pose"
MAX_POSE_BYTES = 1 << 20  # of the file of one frame
CSV_BLOCK = 1 << 20  # bytes of a .csv file that are read at once; a row is shorter
JOINT_COLUMNS = tuple(f"{joint}_{axis}" for joint in JOINTS for axis in "xyc")
BATCH_ROWS = 1024  # of a Parquet file in memory at once
ROWS_OF_ANY_TABLE = 1_000_000  # more rows than that must take a byte each in the file
KEYPOINTS = (
    f"{3 * NUM_JOINTS} or {NUM_JOINTS} x 3 finite numbers: x, y and confidence of the COCO joints, 0 where missing"
)
LARGEST = float(np.finfo(np.float32).max)
OVERSHOOT = 0.2  # networks that learn heatmaps go a little beyond 0 and 1: clipped; farther off is another unit


@dataclass(frozen=True)
class SourceEntry:
    """What a foreign file says of one frame. Several entries of one name speak of the same frame.

    Attributes:
        name: path or file name of the frame, as the source has it.
        people: found in it; none where the source says that no one was detected; None where it does not say.
        size: width and height of the frame that the coordinates are pixels of, or None where the source is silent.
    """

    name: str
    people: tuple[Person, ...] | None
    size: tuple[int, int] | None = None


def printable(name: str) -> str:
    """The name without halves of characters, which JSON can hold and no terminal can print."""
    return name if name.isascii() else name.encode(errors="replace").decode()


def source_person(values: Any, score: Any, where: str, confidences: Any = None, full_confidence: float = 1.0) -> Person:
    """Check one person's numbers.

    Args:
        values: 51 numbers x, y, confidence joint by joint, or 17 lists of three.
        score: of the person, or None.
        where: file and entry, for errors.
        confidences: 17 numbers that stand in for every third of `values`, or None.
        full_confidence: what those in `values` have in place of 1.
    """
    shape = (NUM_JOINTS, 3)
    keypoints = _numbers(values, (shape, (NUM_JOINTS * 3,)), KEYPOINTS, where).reshape(shape)
    confidence = keypoints[:, 2]
    if confidences is None:
        confidence /= full_confidence
    else:
        confidence[:] = _numbers(confidences, ((NUM_JOINTS,),), f"{NUM_JOINTS} confidences", where)
    if confidence.min() < -OVERSHOOT or confidence.max() > 1 + OVERSHOOT:
        found = f"{where} has confidences from {confidence.min():g} to {confidence.max():g}"
        raise SourceError(found, "0 to 1", "scale them: percent by 1/100, logits through a sigmoid")
    np.minimum(confidence, 1, out=confidence)
    keypoints[confidence <= 0] = 0
    number = float(confidence.mean() if score is None else _numbers(score, ((),), "one score", where))
    if number < 0:
        found = f"{where} has score {number:g}"
        raise SourceError(found, "0 or more", "the best score counts most: shift or scale them")
    return Person(number, keypoints)


def _numbers(values: Any, shapes: tuple[tuple[int, ...], ...], expected: str, where: str) -> np.ndarray:
    """Finite float32 numbers of one of the shapes, in memory of their own."""
    try:
        numbers = np.array(values)
        if numbers.dtype.kind not in "iufO":  # of objects: None, Decimal, whole numbers of more than 64 bits
            raise TypeError(f"{numbers.dtype.name} in place of numbers")
        numbers = numbers.astype(np.float64)
        if numbers.shape not in shapes:
            raise ValueError(f"{' x '.join(map(str, numbers.shape)) or 'one'} numbers")
        if not (np.abs(numbers) < LARGEST).all():  # false for NaN
            raise ValueError("NaN, null or infinity")
    except (TypeError, ValueError, OverflowError) as error:
        raise SourceError(f"{where} has {first_line(error)}", expected, "docs/keypoints.md has the order") from error
    return numbers.astype(np.float32)


def walk(folder: Path, suffix: str) -> Iterator[Path]:
    """Files below a folder whose name ends with the suffix, in an order that does not depend on the disk.

    Raises:
        SurroundingsError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise SurroundingsError(f"{error.filename} cannot be read ({error.strerror})", "", "repair that, and try again")

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        yield from (Path(place, name) for name in sorted(names) if name.endswith(suffix))


def sha256_of_source(source: Path, suffix: str) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files."""

    def hashed(path: Path) -> str:
        with open_source(path, "a readable file"):
            return sha256_of(path)

    if not source.is_dir():
        return hashed(source)
    digest = hashlib.sha256()
    for path in walk(source, suffix):
        digest.update(f"{hashed(path)}  {path.relative_to(source)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def pose_entries(folder: Path) -> Iterator[SourceEntry]:
    """FRAME.pose, as the authors' extract_keypoint.py writes: JSON text, 17 lists of x, y, confidence; no score.

    Where no one was detected all numbers are 0. The frame's suffix is not in the name.
    """
    for path in walk(folder, POSE_SUFFIX):
        with open_source(path, "JSON: 17 lists of x, y, confidence") as file:
            values = json.loads(read_at_most(file, MAX_POSE_BYTES).decode("utf-8-sig"))
        name = printable(path.relative_to(folder).as_posix().removesuffix(POSE_SUFFIX))
        yield SourceEntry(name, (source_person(values, None, str(path)),))


def table_entries(path: Path) -> Iterator[SourceEntry]:
    """Columns frame_path, then `keypoints` (lists of 51) or nose_x, nose_y, nose_c, ..., and perhaps score.

    In a CSV file `keypoints` is text such as [64.0, 20.5, 0.9, ...]. Several rows of a frame are several people.
    """
    number = 0
    with open_source(path, "a table .parquet, or .csv in UTF-8 with one header") as file:
        for batch in _parquet_batches(path, file) if path.suffix.lower() == ".parquet" else _csv_batches(path):
            rows = batch.to_pandas()  # lists become arrays, which are checked ten times as fast
            points = rows["keypoints"] if "keypoints" in rows else rows[[*JOINT_COLUMNS]].to_numpy(float)
            scores = rows["score"] if "score" in rows else [None] * len(rows)
            for name, values, score in zip(rows["frame_path"], points, scores, strict=True):
                number += 1
                where = f"{path}, row {number}"
                if not isinstance(name, str) or not name.strip():
                    raise SourceError(f"{where} has no frame_path", "a path", "fill it in, or leave the row out")
                values = _from_text(values, where) if isinstance(values, str) else values
                person = source_person(values, None if pd.isna(score) else score, where)
                yield SourceEntry(printable(name.strip()), (person,))


def _from_text(values: str, where: str) -> Any:
    try:
        return json.loads(values)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where} has keypoints {values[:80]!r}", "text such as [64.0, 20.5, 0.9, ...]") from error


def _csv_batches(path: Path) -> Iterator[pa.RecordBatch]:
    parse = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(path, csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK), parse) as header:
        names = [name.strip() for name in header.schema.names]
    columns = _columns(path, names)
    types = {name: pa.string() if name in ("frame_path", "keypoints") else pa.float64() for name in columns}
    options = csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK, column_names=names, skip_rows=1)
    with csv.open_csv(path, options, parse, csv.ConvertOptions(include_columns=columns, column_types=types)) as rows:
        yield from rows


def _parquet_batches(path: Path, file: IO[bytes]) -> Iterator[pa.RecordBatch]:
    """What the file claims about its length is not believed."""
    num_bytes = os.fstat(file.fileno()).st_size
    schema = pq.ParquetFile(file).schema_arrow
    columns = _columns(path, schema.names)
    texts = [name for name in columns if pa.types.is_string(schema.field(name).type)]
    table = pq.ParquetFile(file, read_dictionary=texts, buffer_size=1 << 20)  # a text that repeats is there once
    if table.metadata.num_rows > max(ROWS_OF_ANY_TABLE, num_bytes):
        raise ValueError(f"{table.metadata.num_rows:,} rows in {num_bytes:,} bytes")
    table.scan_contents(columns)  # raises where the metadata of a column, asked below, would end the process
    for index in range(table.num_row_groups):
        group = table.metadata.row_group(index)
        for leaf in map(group.column, range(group.num_columns)):
            if leaf.path_in_schema.split(".")[0] in columns and leaf.num_values > NUM_JOINTS * 3 * group.num_rows:
                raise ValueError(f"{leaf.num_values:,} values of {leaf.path_in_schema} in {group.num_rows:,} rows")
    yield from table.iter_batches(BATCH_ROWS, columns=columns, use_threads=False)


def _columns(path: Path, names: list[str]) -> list[str]:
    """The columns to read."""
    columns = ["frame_path", *(["keypoints"] if "keypoints" in names else JOINT_COLUMNS)]
    columns += [name for name in names if name == "score"]
    wrong = [name for name in columns if names.count(name) != 1]
    if wrong:
        raise SourceError(
            f"{path} has {'several columns' if wrong[0] in names else 'no column'} {', '.join(wrong[:4])}",
            "frame_path, and keypoints (lists of 51) or nose_x, nose_y, nose_c to right_ankle_c, separated by commas",
            "rename, add or remove some; docs/keypoints.md has examples",
        )
    return columns
