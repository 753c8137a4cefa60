"""Your own tracklets as a CSV or Parquet table with one row per frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SourceError
from ..index import Reading, SourceTracklet
from ..records import SPLITS
from .reading import MAX_WHOLE, natural_key, open_source, split_missing

COLUMNS = ("frame_path", "tracklet", "identity", "camera", "split")
NUMBER_COLUMNS = ("frame_number", "frame_index")  # two names of one column
TIME_COLUMN = "time"
OPTIONAL = (*NUMBER_COLUMNS, TIME_COLUMN)
MAX_ROWS_PER_BYTE = 40  # of a Parquet file: paths that differ need more than that, however well they are compressed
MAX_EXPANSION = 1000


def read(path: Path, root: Path | None = None) -> Reading:
    """Read a table of frames, whose paths start from `root`, or from the folder of the table.

    Frames of a tracklet are ordered by frame_number, or by time where every row has one, or naturally by their path;
    the order of the rows has no meaning. Identities and cameras are numbers or any text (see index.number_names).

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
    paths = frames["frame_path"]
    for top in (root.absolute(), root.resolve()):
        paths = paths.str.removeprefix(f"{top}".rstrip("/") + "/")
    unusual = paths.str.contains(r"^\.|//|/\.")  # few of a million; those that leave the root are refused by index
    frames["frame_path"] = paths.where(~unusual, paths[unusual].map(lambda path: PurePosixPath(path).as_posix()))
    notes: dict[str, Any] = {}
    number_column = next((column for column in NUMBER_COLUMNS if column in given), None)
    if number_column is not None:
        texts = given[number_column].astype(str).str.strip()
        numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
        wrong = ~((numbers % 1 == 0) & (numbers.abs() <= MAX_WHOLE))
        _refuse(path, wrong, texts, f"{number_column} that is no whole number")
        frames["number"] = numbers.astype("int64")
    if TIME_COLUMN in given:
        frames["time"], notes["times"] = _times(path, given[TIME_COLUMN])
    _check_tracklets(path, frames)
    lost, missing = split_missing(root, frames["frame_path"].tolist(), "frame folders")
    if lost:
        frames = frames[~frames["frame_path"].isin(lost)]
        notes["missing_frames"] = len(lost)
    return Reading(path.stem, root, tuple(_tracklets(frames)), tuple(missing), notes=notes)


def _load(path: Path) -> pd.DataFrame:
    """The columns that are read, as text or floating-point numbers."""
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise SourceError(f"a table {path.name}", "a file .csv or .parquet", "convert it or rename it")
    with open_source(path, "a table .csv or .parquet") as file:
        frames = readers[path.suffix.lower()](path, file)
    if frames.empty:
        raise SourceError(f"{path} has no rows", "one row per frame", "write it again")
    return frames


def _check_columns(path: Path, names: Sequence[str]) -> None:
    lacking = [column for column in COLUMNS if column not in names]
    if lacking:
        found = f"{path} has no column {', '.join(lacking)} (it has {', '.join(map(str, names))})"
        raise SourceError(found, f"columns {', '.join(COLUMNS)}", "rename or add them")
    repeated = [name for name in (*COLUMNS, *OPTIONAL) if names.count(name) > 1]
    if repeated or all(column in names for column in NUMBER_COLUMNS):
        twice = f"two columns {repeated[0]}" if repeated else f"the columns {' and '.join(NUMBER_COLUMNS)}"
        raise SourceError(f"{path} has {twice}", "one of them", "remove the other")


def _read_csv(path: Path, file: IO[bytes]) -> pd.DataFrame:
    """All columns as text: identity 0001 stays what it is, and "NA" is a name like any other."""
    frames = pd.read_csv(file, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    _check_columns(path, frames.iloc[0].tolist())
    return frames.set_axis(frames.iloc[0], axis="columns")[1:].reset_index(drop=True)


def _read_parquet(path: Path, file: IO[bytes]) -> pd.DataFrame:
    parquet, size = pq.ParquetFile(file), path.stat().st_size
    groups = [parquet.metadata.row_group(index) for index in range(parquet.metadata.num_row_groups)]
    rows, expanded = parquet.metadata.num_rows, sum(group.total_byte_size for group in groups)
    if rows > MAX_ROWS_PER_BYTE * size or expanded > MAX_EXPANSION * size:
        raise ValueError(f"it claims {rows:,} rows of {expanded:,} bytes in a file of {size:,}")
    names = parquet.schema_arrow.names
    _check_columns(path, names)
    table = parquet.read(columns=[name for name in names if name in (*COLUMNS, *OPTIONAL)])
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
        raise SourceError(f"row {row} of {path} has no {name} ({int(empty.sum())} rows lack it)", "a value")
    return texts


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


def _check_tracklets(path: Path, frames: pd.DataFrame) -> None:
    counts = frames.groupby("tracklet")[["identity", "camera", "split"]].nunique()
    for column in counts.columns[(counts > 1).any()]:
        name = counts[column].idxmax()
        found = ", ".join(sorted(frames[column][frames["tracklet"] == name].unique()))
        remedy = "give the pieces different names in the column tracklet"
        raise SourceError(f"tracklet {name!r} of {path} has more than one {column}: {found}", "one", remedy)
    for column in frames.columns.intersection(["frame_path", "number"]):
        for name, value in frames[["tracklet", column]][frames.duplicated(["tracklet", column])].to_numpy():
            raise SourceError(f"tracklet {name!r} of {path} names {column} {value} twice", "each frame once")


def _tracklets(frames: pd.DataFrame) -> list[SourceTracklet]:
    """Tracklets by split, identity, camera and name: the same whatever the order of the rows."""
    order = next((name for name in ("number", "time") if name in frames and frames[name].notna().all()), "frame_path")
    by = ["split", "identity", "camera", "tracklet", order, "frame_path"]
    frames = frames.sort_values(list(dict.fromkeys(by)), key=_ranks)
    columns = [name for name in ("frame_path", "number", "time") if name in frames]
    rows = frames.groupby(["split", "identity", "camera", "tracklet"], sort=False)[columns].agg(tuple)
    return [
        SourceTracklet(split, identity, camera, row["frame_path"], row.get("number"), row.get("time"), name)
        for (split, identity, camera, name), row in rows.to_dict("index").items()
    ]


def _ranks(column: pd.Series) -> pd.Series:
    """Numbers that order texts naturally, and splits as they are used."""
    if column.name in ("number", "time"):
        return column
    key: Callable[[str], Any] = SPLITS.index if column.name == "split" else natural_key
    return column.map({text: rank for rank, text in enumerate(sorted(column.unique(), key=key))})
