"""Foreign keypoints: what every format is read into, the checks of all of them, and the readers of tables and .pose
files. The reader of COCO's JSON is coco.py."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import reprlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from numbers import Real
from pathlib import Path
from types import NoneType
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..commit import sha256_of
from ..errors import SourceError, SurroundingsError
from ..skeleton import JOINTS, NUM_JOINTS

POSE_SUFFIX = ".pose"
MAX_POSE_BYTES = 1 << 20  # of the file of one frame
MAX_LINE = 1 << 20  # characters of a line of a .csv file
PERSON_COLUMNS = ("frame_path", "keypoints", "score")
JOINT_COLUMNS = tuple(f"{joint}_{axis}" for joint in JOINTS for axis in "xyc")
BATCH_ROWS = 1024  # of a Parquet file in memory at once
ROWS_OF_ANY_TABLE = 1_000_000  # more rows than that must take a byte each in the file
JOINT_VALUES = "x, y and confidence of the 17 COCO joints"
PLAIN = {int, float}  # types of numbers that need no second look
LARGEST = float(np.finfo(np.float32).max)
OVERSHOOT = 0.2  # networks that learn heatmaps go a little beyond 0 and 1: clipped; farther off is another unit


@dataclass(frozen=True)
class SourcePerson:
    """One person of a frame, as a foreign file has it.

    Attributes:
        score: of the person, 0 or more; where the file has none, the mean confidence of the 17 joints.
        keypoints: float32 (17, 3): x, y in pixels of the frame and confidence 0 to 1, joints in COCO's order; zeros
            where the confidence is 0.
    """

    score: float
    keypoints: np.ndarray


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
def open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file, and nothing that would block or never end.

    Raises:
        SourceError: it is missing, or a folder, FIFO or device.
        SurroundingsError: the system cannot read it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise SourceError(f"{path} is not there", "a file", "check the path") from error
        if error.errno == errno.ENXIO:
            raise SourceError(f"{path} is a socket or a device", "a file") from error
        raise SurroundingsError(
            f"{path} cannot be opened ({error.strerror})", "", "repair that, and try again"
        ) from error
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise SourceError(f"{path} is not a regular file", "no folder, FIFO or device", "check the path")
        yield file


@contextmanager
def explain(path: Path, kind: str) -> Iterator[None]:
    """Within, what a parser raises becomes an error that names the file; KeyReIDErrors pass.

    Args:
        path: the file that is read.
        kind: what it should be.
    """
    try:
        yield
    except MemoryError as error:  # pyarrow's is one
        raise SurroundingsError(f"reading {path} takes more memory than there is", f"{kind}", "free some") from error
    except OSError as error:
        if error.errno is None:  # pyarrow's word for damage
            raise SourceError(f"{path} cannot be read ({_first_line(error)})", kind, "write it again") from error
        raise SurroundingsError(
            f"{path} cannot be read ({error.strerror})", "", "repair that, and try again"
        ) from error
    except (ValueError, LookupError, TypeError, RecursionError, NotImplementedError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read ({_first_line(error)})", kind, "write it again") from error


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


def _numbers(values: Any, shapes: tuple[tuple[int, ...], ...], meaning: str, where: str) -> np.ndarray:
    """Finite float32 numbers of one of the shapes, in memory of their own."""
    kinds = {values.dtype.type} if isinstance(values, np.ndarray) else {type(values)}
    if isinstance(values, list):
        kinds = set(map(type, values))
        if list in kinds:
            kinds = set(map(type, chain.from_iterable(one if isinstance(one, list) else [one] for one in values)))
    if not kinds <= PLAIN:
        for kind in kinds:  # numpy would take "1.5" and true for numbers
            if kind is bool or not issubclass(kind, (Real, np.floating, Decimal, NoneType)):
                raise SourceError(f"{where} holds something that is no number ({kind.__name__})", f"numbers: {meaning}")
    try:
        numbers = np.array(values, np.float64)
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{where} has numbers that fit no table ({_first_line(error)})", f"{meaning}") from error
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
    if not source.is_dir():
        with open_regular(source), explain(source, "a readable file"):
            return sha256_of(source)
    digest = hashlib.sha256()
    for path in walk(source, suffix):
        with open_regular(path), explain(path, "a readable file"):
            digest.update(f"{sha256_of(path)}  {path.relative_to(source)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def pose_entries(folder: Path) -> Iterator[SourceEntry]:
    """FRAME.pose, as the authors' extract_keypoint.py writes: JSON text, 17 lists of x, y, confidence; no score.

    Where no one was detected all numbers are 0. The frame's suffix is not in the name.
    """
    for path in walk(folder, POSE_SUFFIX):
        with open_regular(path) as file, explain(path, "JSON: 17 lists of x, y, confidence"):
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
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
    for number, (name, values, score) in enumerate(rows, 1):
        where = f"{path}, row {number}"
        if not isinstance(name, str) or not name.strip():
            raise SourceError(f"{where} has no frame_path", "a path", "fill it in, or leave the row out")
        yield SourceEntry(printable(name.strip()), (source_person(_parsed(values, where), score, where),))


def _parsed(values: Any, where: str) -> Any:
    if not isinstance(values, str):
        return values
    try:
        return json.loads(values)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{where} has keypoints {reprlib.repr(values)}", "text such as [64.0, 20.5, 0.9, ...]"
        ) from error


def _csv_rows(path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """Path, keypoints and score of each row."""
    with open_regular(path) as file, explain(path, "a table .csv in UTF-8, with one header"):
        text = (line.decode("utf-8") for line in iter(lambda: file.readline(MAX_LINE), b""))
        rows = csv.reader(text, strict=True)
        header = [name.strip().removeprefix("\ufeff") for name in next(rows, [])]
        _check_columns(path, header)
        place = {name: header.index(name) for name in (*PERSON_COLUMNS, *JOINT_COLUMNS) if name in header}
        for number, row in enumerate(rows, 1):
            if not row:
                continue  # an empty line
            if len(row) != len(header):
                raise ValueError(f"row {number} has {len(row)} cells under {len(header)} names")
            if "keypoints" in place:
                values: Any = row[place["keypoints"]]
            else:
                values = [float(row[place[name]] or "nan") for name in JOINT_COLUMNS]
            score = float(row[place["score"]] or "nan") if "score" in place else None
            yield row[place["frame_path"]], values, score


def _parquet_rows(path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """Path, keypoints and score of each row; what the file claims about its length is not believed."""
    with open_regular(path) as file, explain(path, "a table .parquet"):
        num_bytes = os.fstat(file.fileno()).st_size
        schema = pq.ParquetFile(file).schema_arrow
        texts = [one.name for one in schema if pa.types.is_string(one.type) and one.name in PERSON_COLUMNS]
        table = pq.ParquetFile(file, read_dictionary=texts, buffer_size=1 << 20)  # a text that repeats is there once
        names = schema.names
        _check_columns(path, names)
        if table.metadata.num_rows > max(ROWS_OF_ANY_TABLE, num_bytes):
            raise ValueError(f"{table.metadata.num_rows:,} rows in {num_bytes:,} bytes")
        columns = ["keypoints"] if "keypoints" in names else list(JOINT_COLUMNS)
        chosen = ["frame_path", *columns, *(name for name in ("score",) if name in names)]
        table.scan_contents(chosen)  # raises where the metadata of a column, asked below, would end the process
        for index in range(table.num_row_groups):
            group = table.metadata.row_group(index)
            for leaf in map(group.column, range(group.num_columns)):
                if leaf.path_in_schema.split(".")[0] in chosen and leaf.num_values > NUM_JOINTS * 3 * group.num_rows:
                    raise ValueError(f"{leaf.num_values:,} values of {leaf.path_in_schema} in {group.num_rows:,} rows")
        for batch in table.iter_batches(BATCH_ROWS, columns=chosen, use_threads=False):
            scores = batch.column("score") if "score" in names else pa.nulls(len(batch))
            for name, points, score in zip(batch.column("frame_path"), _points(batch, columns), scores, strict=True):
                yield name.as_py(), points, score.as_py()


def _points(batch: pa.RecordBatch, columns: list[str]) -> Iterator[Any]:
    """What each row has as keypoints; arrays where that is plain, since Python's numbers take ten times as long."""
    first = batch.column(columns[0])
    if len(columns) > 1:
        rows = zip(*(batch.column(name) for name in columns), strict=True)
        yield from ([cell.as_py() for cell in row] for row in rows)
    elif pa.types.is_list(first.type) and pa.types.is_floating(first.type.value_type) and not first.null_count:
        numbers = first.flatten().to_numpy(zero_copy_only=False)  # null becomes NaN
        yield from np.split(numbers, np.cumsum(first.value_lengths())[:-1])
    else:
        yield from (cell.as_py() for cell in first)


def _check_columns(path: Path, names: list[str]) -> None:
    joints = ["keypoints"] if "keypoints" in names else list(JOINT_COLUMNS)
    lacking = [name for name in ("frame_path", *joints) if name not in names]
    if lacking:
        raise SourceError(
            f"{path} has no column {', '.join(lacking[:4])}{' ...' if len(lacking) > 4 else ''}",
            "frame_path, and keypoints (lists of 51) or nose_x, nose_y, nose_c to right_ankle_c, separated by commas",
            "rename or add them; docs/keypoints.md has examples",
        )
    twice = [name for name in (*PERSON_COLUMNS, *joints) if names.count(name) > 1]
    if twice:
        raise SourceError(f"{path} has several columns {twice[0]}", "each name once", "rename the others")
