"""Your own tracklets as a CSV or Parquet table with one row a frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
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
    the order of the rows has no meaning. Identities and cameras are numbers or any text (see index.number_names).

    Paths start from `root`, or from the folder of the table.

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
    if not path.is_file():
        raise SourceError(f"{path} is not a file", "a table .csv or .parquet", "check the path")
    if path.suffix.lower() not in readers:
        raise SourceError(f"a table {path.name}", "a file .csv or .parquet", "convert it or rename it")
    try:
        frames = readers[path.suffix.lower()](path)
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
            f"{path} has no column {', '.join(lacking)} (it has {', '.join(map(str, names))})",
            f"columns {', '.join(COLUMNS)}",
            "rename or add them",
        )
    repeated = [name for name in (*COLUMNS, *OPTIONAL) if names.count(name) > 1]
    if repeated:
        raise SourceError(f"{path} has two columns {repeated[0]}", "one", "remove the other")
    if all(column in names for column in NUMBER_COLUMNS):
        raise SourceError(f"{path} has the columns {' and '.join(NUMBER_COLUMNS)}", "one of them", "remove the other")


def _read_csv(path: Path) -> pd.DataFrame:
    """All columns as text: identity 0001 stays what it is, and "NA" is a name like any other."""
    frames = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    _check_columns(path, frames.iloc[0].tolist())
    return frames.set_axis(frames.iloc[0], axis="columns")[1:].reset_index(drop=True)


def _read_parquet(path: Path) -> pd.DataFrame:
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


def _relative_paths(paths: pd.Series, root: Path) -> list[str]:
    tops = [PurePosixPath(folder.as_posix()) for folder in (root.absolute(), root.resolve())]
    result = []
    for text in paths:
        if text[0] in "/." or "//" in text or "/." in text or "\0" in text:  # few of a million need to be resolved
            path = PurePosixPath(text)
            top = next((top for top in tops if path.is_relative_to(top)), None)
            if path.is_absolute() and top is None:
                raise SourceError(f"frame_path {text} is not under {root}", "paths under it", "give --root, such as /")
            path = path.relative_to(top) if top else path
            if ".." in path.parts or not path.parts or "\0" in text:
                raise SourceError(f"frame_path {text!r} leaves {root}", "paths under it", "give --root, such as /")
            text = path.as_posix()
        result.append(text)
    return result


def _check_tracklets(path: Path, frames: pd.DataFrame) -> None:
    for column, plural in (("identity", "identities"), ("camera", "cameras"), ("split", "splits")):
        pairs = frames[["tracklet", column]].drop_duplicates()
        mixed = pairs["tracklet"][pairs["tracklet"].duplicated()]
        if len(mixed):
            found = sorted(pairs[column][pairs["tracklet"] == mixed.iloc[0]])
            what = f"tracklet {mixed.iloc[0]!r} of {path} has {len(found)} {plural}: {', '.join(found)}"
            raise SourceError(what, "one per tracklet", "give the pieces different names in the column tracklet")
    for column, noun in (("frame_path", ""), ("number", "frame number ")):
        repeated = frames[frames.duplicated(["tracklet", column])] if column in frames else frames[:0]
        if len(repeated):
            name, value = repeated[["tracklet", column]].iloc[0]
            raise SourceError(f"tracklet {name!r} of {path} names {noun}{value} twice", "each frame once")


def _tracklets(frames: pd.DataFrame) -> list[SourceTracklet]:
    """Tracklets by split, identity, camera and name: the same whatever the order of the rows."""
    order = next((name for name in ("number", "time") if name in frames and frames[name].notna().all()), "frame_path")
    by = ["split", "identity", "camera", "tracklet", order, "frame_path"]
    frames = frames.sort_values(list(dict.fromkeys(by)), key=_ranks)
    starts = np.flatnonzero(frames["tracklet"] != frames["tracklet"].shift())
    columns = {name: frames[name].tolist() for name in frames}
    found = []
    for start, end in pairwise([*starts.tolist(), len(frames)]):
        paths, numbers, times = (
            tuple(columns[name][start:end]) if name in columns else None for name in ("frame_path", "number", "time")
        )
        split, identity, camera, name = (columns[noun][start] for noun in ("split", "identity", "camera", "tracklet"))
        found.append(SourceTracklet(split, identity, camera, paths or (), numbers, times, name))
    return found


def _ranks(column: pd.Series) -> pd.Series:
    """Numbers that order texts naturally, and splits as they are used."""
    if column.name in ("number", "time"):
        return column
    key: Callable[[str], Any] = SPLITS.index if column.name == "split" else natural_key
    return column.map({text: rank for rank, text in enumerate(sorted(column.unique(), key=key))})
