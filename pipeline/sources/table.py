"""Your own tracklets as a CSV or Parquet table with one row a frame."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SourceError
from ..index import Reading, SourceTracklet
from ..records import SPLITS
from .reading import natural_key, split_missing

COLUMNS = ("frame_path", "tracklet", "identity", "camera", "split")
NUMBER_COLUMNS = ("frame_number", "frame_index")  # two names of one column
TIME_COLUMN = "time"
OPTIONAL = (*NUMBER_COLUMNS, TIME_COLUMN)
MAX_ROWS_PER_BYTE = 40  # of a Parquet file: paths that differ need more than that, however well they are compressed
MAX_EXPANSION = 1000
MAX_WHOLE = 2**53  # beyond it not every whole number is a double


def read(path: Path, root: Path | None = None) -> Reading:
    """Read a table of frames; columns frame_path, tracklet, identity, camera, split and, if you like, frame_number
    (or frame_index, its other name) and time.

    Frames of a tracklet are ordered by frame_number, or by time where every row has one, or naturally by their path;
    the order of the rows has no meaning. Identities and cameras are numbers or any text (see manifest.number_names).

    Args:
        path: a file .csv or .parquet.
        root: folder that frame_path is relative to; by default the folder of the table.

    Raises:
        SourceError: a column is missing, a value is empty or unknown, or a tracklet contradicts itself.
    """
    root = path.parent if root is None else root
    if not root.is_dir():
        raise SourceError(f"--root {root} is not a folder", "the folder that frame paths start from", "check the path")
    given = _load(path)
    frames = pd.DataFrame({column: _texts(path, given[column], column) for column in COLUMNS})
    unknown = sorted(set(frames["split"]) - set(SPLITS))
    if unknown:
        raise SourceError(f"{path} has split {unknown[0]!r}", "one of " + ", ".join(SPLITS), "rename it")
    frames["frame_path"] = _relative_paths(frames["frame_path"], root)
    notes: dict[str, Any] = {}
    number_column = next((column for column in NUMBER_COLUMNS if column in given), None)
    if number_column is not None:
        frames["number"] = _whole_numbers(path, given[number_column], number_column)
    if TIME_COLUMN in given:
        frames["time"], notes["times"] = _times(path, given[TIME_COLUMN])
    _check_tracklets(path, frames)
    lost, missing = split_missing(root, frames["frame_path"].tolist(), "frame folders")
    if lost:
        frames = frames[~frames["frame_path"].isin(lost)]
        notes["missing_frames"] = len(lost)
    return Reading(path.stem, root, tuple(_tracklets(frames)), tuple(missing), notes=notes)


def _load(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise SourceError(f"{path} is not a file", "a table .csv or .parquet", "check the path")
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise SourceError(f"a table {path.name}", "a file .csv or .parquet", "convert it or rename it")
    try:
        frames = _read_csv(path) if suffix == ".csv" else _read_parquet(path)
    except SourceError:
        raise
    except Exception as error:  # of pandas and pyarrow, which raise a dozen kinds on broken files
        raise SourceError(f"{path} cannot be read ({error})", "a table .csv or .parquet", "write it again") from error
    if frames.empty:
        raise SourceError(f"{path} has no rows", "one row a frame", "write it again")
    return frames


def _check_columns(path: Path, names: Sequence[str]) -> None:
    lacking = [column for column in COLUMNS if column not in names]
    if lacking:
        raise SourceError(
            f"{path} has no column {', '.join(lacking)} (it has {', '.join(names)})",
            f"columns {', '.join(COLUMNS)}",
            "rename or add them",
        )
    repeated = next((name for name in (*COLUMNS, *OPTIONAL) if names.count(name) > 1), None)
    if repeated is not None:
        raise SourceError(f"{path} has two columns {repeated}", "one", "remove the other")
    if all(column in names for column in NUMBER_COLUMNS):
        raise SourceError(f"{path} has the columns {' and '.join(NUMBER_COLUMNS)}", "one of them", "remove the other")


def _read_csv(path: Path) -> pd.DataFrame:
    """All columns as text: identity 0001 stays what it is, and "NA" is a name like any other."""
    options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig", "index_col": False}
    _check_columns(path, pd.read_csv(path, header=None, nrows=1, **options).iloc[0].tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # of rows with more fields than the header
        return pd.read_csv(path, **options)


def _read_parquet(path: Path) -> pd.DataFrame:
    """The columns that are read, as text or floating-point numbers."""
    size = path.stat().st_size
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        rows, expanded = file.metadata.num_rows, sum(group.total_byte_size for group in groups)
        if rows > MAX_ROWS_PER_BYTE * size or expanded > MAX_EXPANSION * size:
            raise ValueError(f"it claims {rows:,} rows of {expanded:,} bytes in a file of {size:,}")
        names = file.schema_arrow.names
        _check_columns(path, names)
        table = file.read(columns=[name for name in names if name in (*COLUMNS, *OPTIONAL)])
    if table.num_rows != rows:
        raise ValueError(f"it has {table.num_rows:,} rows and claims {rows:,}")
    kinds = [field.type if pa.types.is_floating(field.type) else pa.string() for field in table.schema]
    return table.cast(pa.schema(list(zip(table.column_names, kinds, strict=True)))).to_pandas(ignore_metadata=True)


def _texts(path: Path, column: pd.Series, name: str) -> pd.Series:
    """A column as text; refuses empty values, fractions and infinite numbers."""
    if pd.api.types.is_float_dtype(column):
        wrong = column.notna() & ~((column % 1 == 0) & (column.abs() <= MAX_WHOLE))
        _refuse(path, wrong, column, f"{name} that is neither text nor a whole number")
        filled = column.fillna(0).astype("int64").astype(str)  # 3.0 means person 3, not a person called "3.0"
        column = filled.where(column.notna(), "")
    texts = column.where(column.notna(), "").astype(str).str.strip()
    empty = texts == ""
    if empty.any():
        row = int(empty.to_numpy().argmax()) + 1
        raise SourceError(f"row {row} of {path} has no {name} ({int(empty.sum())} rows lack it)", "a value", "")
    return texts


def _whole_numbers(path: Path, column: pd.Series, name: str) -> pd.Series:
    numbers = pd.to_numeric(column.astype(str).str.strip(), errors="coerce").astype("float64")
    _refuse(path, ~((numbers % 1 == 0) & (numbers.abs() <= MAX_WHOLE)), column, f"{name} that is no whole number")
    return numbers.astype("int64")


def _times(path: Path, column: pd.Series) -> tuple[pd.Series, str]:
    """Seconds, and what they count from: "unix" (ISO 8601, UTC where no zone is given) or "seconds" (the table's own).

    NaN where there is no time.
    """
    texts = column.where(column.notna(), "").astype(str).str.strip()
    given = texts != ""
    seconds = pd.to_numeric(texts, errors="coerce")
    if (seconds.notna() == given).all():
        _refuse(path, np.isinf(seconds), column, "time that is infinite")
        return seconds.astype("float64"), "seconds"
    stamps = pd.to_datetime(texts.where(given, None), errors="coerce", utc=True, format="ISO8601")
    _refuse(path, stamps.isna() & given, column, "time that is no ISO 8601 and no number of seconds")
    nanoseconds = stamps.astype("datetime64[ns, UTC]").astype("int64")
    seconds = nanoseconds // 10**9 + nanoseconds % 10**9 / 1e9  # whole seconds by themselves: a double holds 53 bits
    return seconds.where(given), "unix"


def _refuse(path: Path, wrong: pd.Series, column: pd.Series, what: str) -> None:
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        value = repr(str(column.iloc[row]))[:80]
        raise SourceError(f"row {row + 1} of {path} has a value of {what}: {value}", "another value", "correct it")


def _relative_paths(paths: pd.Series, root: Path) -> list[str]:
    tops = [PurePosixPath(folder.as_posix()) for folder in (root.absolute(), root.resolve())]
    result = []
    for text in paths:
        if text[0] not in "/." and "//" not in text and "/." not in text and "\0" not in text:
            result.append(text.rstrip("/"))  # a million of them: nothing to resolve
            continue
        path = PurePosixPath(text)
        if path.is_absolute():
            top = next((top for top in tops if path.is_relative_to(top)), None)
            if top is None:
                raise SourceError(f"frame_path {text} is not under {root}", "paths under it", "give --root, such as /")
            path = path.relative_to(top)
        if ".." in path.parts or not path.parts or "\0" in text:
            raise SourceError(f"frame_path {text!r} leaves {root}", "paths under it", "give --root, such as /")
        result.append(path.as_posix())
    return result


def _check_tracklets(path: Path, frames: pd.DataFrame) -> None:
    for column, plural in (("identity", "identities"), ("camera", "cameras"), ("split", "splits")):
        pairs = frames[["tracklet", column]].drop_duplicates()
        mixed = pairs["tracklet"][pairs["tracklet"].duplicated()]
        if len(mixed):
            found = sorted(pairs[column][pairs["tracklet"] == mixed.iloc[0]])
            raise SourceError(
                f"tracklet {mixed.iloc[0]!r} of {path} has {len(found)} {plural}: {', '.join(found)}",
                "one: a tracklet is one person under one camera in one split",
                "give the pieces different names in the column tracklet",
            )
    for column, noun in (("frame_path", ""), ("number", "frame number ")):
        repeated = frames[frames.duplicated(["tracklet", column])] if column in frames else frames[:0]
        if len(repeated):
            first = repeated.iloc[0]
            raise SourceError(
                f"tracklet {first['tracklet']!r} of {path} names {noun}{first[column]} twice", "each frame once", ""
            )


def _tracklets(frames: pd.DataFrame) -> list[SourceTracklet]:
    """Tracklets by split, identity, camera and name: the same whatever the order of the rows."""
    columns = {name: frames[name].tolist() for name in frames}
    order = next((name for name in ("number", "time") if name in frames and frames[name].notna().all()), None)
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(columns["tracklet"]):
        rows_of.setdefault(name, []).append(row)
    keys = [natural_key(path) for path in columns["frame_path"]]
    found = []
    for name, rows in rows_of.items():
        rows.sort(key=lambda row: (columns[order][row] if order else 0, keys[row]))
        split, identity, camera = (columns[noun][rows[0]] for noun in ("split", "identity", "camera"))
        tracklet = SourceTracklet(
            split,
            identity,
            camera,
            tuple(columns["frame_path"][row] for row in rows),
            tuple(columns["number"][row] for row in rows) if "number" in columns else None,
            tuple(columns["time"][row] for row in rows) if "time" in columns else None,
            name=name,
        )
        found.append(((SPLITS.index(split), natural_key(identity), natural_key(camera), natural_key(name)), tracklet))
    return [tracklet for _, tracklet in sorted(found, key=lambda pair: pair[0])]
