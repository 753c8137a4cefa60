"""Foreign keypoints: what every format is read into, the checks of all of them, and the readers of tables and .pose
files. The reader of COCO's JSON is coco.py."""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from ..commit import sha256_of
from ..errors import SourceError, SurroundingsError
from ..pose.selection import Person as SourcePerson
from ..skeleton import JOINTS, NUM_JOINTS

POSE_SUFFIX = ".pose"
MAX_POSE_BYTES = 1 << 20  # of the file of one frame
CSV_BLOCK = 1 << 20  # bytes of a .csv file that are read at once; a row is shorter
JOINT_COLUMNS = tuple(f"{joint}_{axis}" for joint in JOINTS for axis in "xyc")
BATCH_ROWS = 1024  # of a Parquet file in memory at once
ROWS_OF_ANY_TABLE = 1_000_000  # more rows than that must take a byte each in the file
JOINT_VALUES = "x, y and confidence of the 17 COCO joints"
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
    people: tuple[SourcePerson, ...] | None
    size: tuple[int, int] | None = None


@contextmanager
def open_source(path: Path, kind: str) -> Iterator[IO[bytes]]:
    """Open a regular file, and nothing that would block or never end; errors within become errors that name it, and
    `kind`, what it should be.

    Raises:
        SourceError: it is missing, a folder, FIFO or device, or what a parser found wrong.
        SurroundingsError: the system cannot read it, or memory is short.
    """
    try:
        if not path.is_file():
            found = "is not a regular file" if path.exists() else "is not there"
            raise SourceError(f"{path} {found}", "a file, and no folder, FIFO or device", "check the path")
        with open(path, "rb") as file:
            yield file
    except (OSError, MemoryError, ValueError, LookupError, TypeError, RecursionError, NotImplementedError) as error:
        found = f"{path} cannot be read ({_first_line(error)})"
        if isinstance(error, MemoryError) or getattr(error, "errno", None):  # pyarrow's OSErrors of damage have none
            raise SurroundingsError(found, "", "repair that, and try again") from error
        raise SourceError(found, kind, "write it again") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


def printable(name: str) -> str:
    """The name without halves of characters, which JSON can hold and no terminal can print."""
    return name if name.isascii() else name.encode(errors="replace").decode()


def source_person(
    values: Any, score: Any, where: str, *, confidences: Any = None, full_confidence: float = 1.0
) -> SourcePerson:
    """Check one person's numbers.

    Args:
        values: 51 numbers x, y, confidence joint by joint, or 17 lists of three.
        score: of the person, or None.
        where: file and entry, for errors.
        confidences: 17 numbers that stand in for every third of `values`, or None.
        full_confidence: what those in `values` have in place of 1.

    Raises:
        SourceError: another number of joints, NaN, no number at all, or confidences that are not 0 to 1.
    """
    keypoints = _numbers(values, ((NUM_JOINTS * 3,), (NUM_JOINTS, 3)), JOINT_VALUES, where).reshape(NUM_JOINTS, 3)
    if confidences is None:
        keypoints[:, 2] /= full_confidence
    else:
        keypoints[:, 2] = _numbers(confidences, ((NUM_JOINTS,),), "one confidence per joint", where)
    confidence = keypoints[:, 2]
    lowest, highest = confidence.min(), confidence.max()
    if lowest < -OVERSHOOT or highest > 1 + OVERSHOOT:
        raise SourceError(
            f"{where} has a joint of confidence {lowest if lowest < -OVERSHOOT else highest:g}",
            "0 to 1",
            "scale them: percent by 1/100, logits through a sigmoid",
        )
    if highest > 1:
        np.minimum(confidence, 1, out=confidence)
    if lowest <= 0:
        keypoints[confidence <= 0] = 0
    number = float(confidence.mean() if score is None else _numbers([score], ((1,),), "a score", where)[0])
    if number < 0:
        raise SourceError(
            f"{where} has score {number:g}", "0 or more", "the best score counts most: shift or scale them"
        )
    return SourcePerson(number, keypoints)


def _numbers(values: Any, shapes: Sequence[tuple[int, ...]], meaning: str, where: str) -> np.ndarray:
    """Finite float32 numbers of one of the shapes, in memory of their own."""
    try:
        numbers = np.array(values)
        if numbers.dtype.kind not in "iufO":  # of objects: None, Decimal, whole numbers of more than 64 bits
            raise TypeError(numbers.dtype.name)
        numbers = numbers.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise SourceError(
            f"{where} holds something that is no number ({_first_line(error)})", f"numbers: {meaning}"
        ) from error
    if numbers.shape not in shapes:
        found = " x ".join(map(str, numbers.shape)) or "1"
        raise SourceError(
            f"{where} has {found} numbers",
            f"{' or '.join(' x '.join(map(str, shape)) for shape in shapes)}: {meaning}",
            "leave out other joints, and bring these into the order of docs/keypoints.md",
        )
    if not (np.abs(numbers) < LARGEST).all():  # false for NaN
        raise SourceError(
            f"{where} holds NaN, null or infinity", f"numbers: {meaning}", "write 0, 0, 0 for a joint that is missing"
        )
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
            content = file.read(MAX_POSE_BYTES + 1)
            if len(content) > MAX_POSE_BYTES:
                raise ValueError(f"more than {MAX_POSE_BYTES:,} bytes")
            values = json.loads(content.decode("utf-8-sig"))
        name = printable(path.relative_to(folder).as_posix().removesuffix(POSE_SUFFIX))
        yield SourceEntry(name, (source_person(values, None, str(path)),))


def table_entries(path: Path) -> Iterator[SourceEntry]:
    """Columns frame_path, then `keypoints` (lists of 51) or nose_x, nose_y, nose_c, ..., and perhaps score.

    In a CSV file `keypoints` is text such as [64.0, 20.5, 0.9, ...]. Several rows of a frame are several people.
    """
    number = 0
    with open_source(path, "a table .parquet, or .csv in UTF-8 with one header") as file:
        for batch in _parquet_batches(path, file) if path.suffix.lower() == ".parquet" else _csv_batches(path):
            scores = batch["score"] if "score" in batch.schema.names else pa.nulls(len(batch))
            for cell, values, score in zip(batch["frame_path"], _points(batch), scores, strict=True):
                number += 1
                where, name = f"{path}, row {number}", cell.as_py()
                if not isinstance(name, str) or not name.strip():
                    raise SourceError(f"{where} has no frame_path", "a path", "fill it in, or leave the row out")
                yield SourceEntry(printable(name.strip()), (source_person(values, score.as_py(), where),))


def _csv_batches(path: Path) -> Iterator[pa.RecordBatch]:
    parse = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(path, csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK), parse) as header:
        names = [name.strip() for name in header.schema.names]
    columns = _columns(path, names)
    texts = {name: pa.string() for name in ("frame_path", "keypoints")}
    types = {name: texts.get(name, pa.float64()) for name in columns}
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


def _points(batch: pa.RecordBatch) -> Iterator[Any]:
    """What each row has as keypoints; arrays where that is plain, since Python's numbers take ten times as long."""
    if "keypoints" not in batch.schema.names:
        yield from ([cell.as_py() for cell in row] for row in zip(*map(batch.column, JOINT_COLUMNS), strict=True))
        return
    cells = batch["keypoints"]
    if pa.types.is_list(cells.type) and pa.types.is_floating(cells.type.value_type) and not cells.null_count:
        numbers = cells.flatten().to_numpy(zero_copy_only=False)  # null becomes NaN
        yield from np.split(numbers, np.cumsum(cells.value_lengths())[:-1])
        return
    for value in cells.to_pylist():
        try:
            yield json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError) as error:
            raise ValueError(f"keypoints {reprlib.repr(value)} are no text such as [64.0, 20.5, ...]") from error


def _columns(path: Path, names: list[str]) -> list[str]:
    """The columns to read."""
    columns = ["frame_path", *(["keypoints"] if "keypoints" in names else JOINT_COLUMNS)]
    lacking = [name for name in columns if name not in names]
    if lacking:
        raise SourceError(
            f"{path} has no column {', '.join(lacking[:4])}{' ...' if len(lacking) > 4 else ''}",
            "frame_path, and keypoints (lists of 51) or nose_x, nose_y, nose_c to right_ankle_c, separated by commas",
            "rename or add them; docs/keypoints.md has examples",
        )
    columns += [name for name in names if name == "score"]
    twice = [name for name in columns if names.count(name) > 1]
    if twice:
        raise SourceError(f"{path} has several columns {twice[0]}", "each name once", "rename the others")
    return columns
