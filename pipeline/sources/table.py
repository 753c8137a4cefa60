"""Your own tracklets as a CSV or Parquet table with one row a frame."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from ..errors import SourceError
from ..manifest import SourceTracklet
from ..records import SPLITS
from .folders import natural_key, split_missing
from .numbering import number_names
from .reading import Reading, without_junk

COLUMNS = ("frame_path", "tracklet", "identity", "camera", "split")
ORDER_COLUMN = "frame_index"


def read(path: Path, root: Path | None = None) -> Reading:
    """Read a table of frames; columns frame_path, tracklet, identity, camera, split and, if you like, frame_index.

    Frames of a tracklet are ordered by frame_index, or naturally by their path where there is no such column; the
    order of the rows has no meaning. Identities and cameras are numbers, or any text, which is then numbered as in
    the folder source.

    Args:
        path: a file .csv or .parquet.
        root: folder that frame_path is relative to; by default the folder of the table.

    Raises:
        SourceError: a column is missing, a value is empty or unknown, or a tracklet contradicts itself.
    """
    root = path.parent if root is None else root
    if not root.is_dir():
        raise SourceError(f"--root {root} is not a folder", "the folder that frame paths start from", "check the path")
    frames = _load(path)
    _check_values(path, frames)
    frames["frame_path"] = _relative_paths(frames["frame_path"], root)
    _check_tracklets(path, frames)
    notes: dict[str, Any] = {}
    lost, missing = split_missing(root, frames["frame_path"].tolist(), "frame folders")
    if lost:
        frames = frames[~frames["frame_path"].isin(lost)]
        notes["missing_frames"] = len(lost)
    tracklets = _tracklets(frames, notes)
    return Reading(path.stem, root, without_junk(tracklets, notes), tuple(missing), notes=notes)


def _load(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise SourceError(f"{path} is not a file", "a table .csv or .parquet", "check the path")
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise SourceError(f"a table {path.name}", "a file .csv or .parquet", "convert it or rename it")
    try:
        frames = _read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise SourceError(f"{path} cannot be read ({error})", "a table .csv or .parquet", "write it again") from error
    lacking = [column for column in COLUMNS if column not in frames.columns]
    if lacking:
        raise SourceError(
            f"{path} has no column {', '.join(lacking)} (it has {', '.join(map(str, frames.columns))})",
            f"columns {', '.join(COLUMNS)}",
            "rename or add them",
        )
    if frames.empty:
        raise SourceError(f"{path} has no rows", "one row a frame", "write it again")
    return frames


def _read_csv(path: Path) -> pd.DataFrame:
    """All columns as text: identity 0001 stays what it is, and "NA" is a name like any other."""
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")


def _check_values(path: Path, frames: pd.DataFrame) -> None:
    """Turn the columns into text (frame_index into numbers) and refuse empty or unknown values."""
    for column in COLUMNS:
        empty = frames[column].isna() | (frames[column].astype(str).str.strip() == "")
        if empty.any():
            row = int(empty.to_numpy().argmax()) + 1
            raise SourceError(f"row {row} of {path} has no {column} ({int(empty.sum())} rows lack it)", "a value", "")
        if pd.api.types.is_float_dtype(frames[column]) and (frames[column] % 1 == 0).all():
            frames[column] = frames[column].astype("int64")  # 3.0 means person 3, not a person called "3.0"
        frames[column] = frames[column].astype(str).str.strip()
    unknown = sorted(set(frames["split"]) - set(SPLITS))
    if unknown:
        raise SourceError(f"{path} has split {unknown[0]!r}", "one of " + ", ".join(SPLITS), "rename it")
    if ORDER_COLUMN in frames.columns:
        numbers = pd.to_numeric(frames[ORDER_COLUMN], errors="coerce")
        if numbers.isna().any():
            row = int(numbers.isna().to_numpy().argmax()) + 1
            raise SourceError(f"row {row} of {path} has a {ORDER_COLUMN} that is no number", "a number", "")
        frames[ORDER_COLUMN] = numbers


def _relative_paths(paths: pd.Series, root: Path) -> list[str]:
    tops = [PurePosixPath(folder.as_posix()) for folder in (root.absolute(), root.resolve())]
    result = []
    for text in paths:
        path = PurePosixPath(text)
        if path.is_absolute():
            top = next((top for top in tops if path.is_relative_to(top)), None)
            if top is None:
                raise SourceError(f"frame_path {text} is not under {root}", "paths under it", "give --root, such as /")
            path = path.relative_to(top)
        result.append(path.as_posix())
    return result


def _check_tracklets(path: Path, frames: pd.DataFrame) -> None:
    for column, plural in (("identity", "identities"), ("camera", "cameras"), ("split", "splits")):
        values = frames.groupby("tracklet", sort=True)[column].unique()
        mixed = values[values.map(len) > 1]
        if len(mixed):
            found = ", ".join(sorted(mixed.iloc[0]))
            raise SourceError(
                f"tracklet {mixed.index[0]!r} of {path} has {len(mixed.iloc[0])} {plural}: {found}",
                "one: a tracklet is one person under one camera in one split",
                "give the pieces different names in the column tracklet",
            )
    repeated = frames[frames.duplicated(["tracklet", "frame_path"])]
    if len(repeated):
        first = repeated.iloc[0]
        raise SourceError(
            f"tracklet {first['tracklet']!r} of {path} names {first['frame_path']} twice", "each frame once", ""
        )


def _tracklets(frames: pd.DataFrame, notes: dict[str, Any]) -> list[SourceTracklet]:
    """Tracklets by split, identity, camera and name: the same whatever the order of the rows."""
    numbers: dict[str, dict[str, int]] = {}
    for column in ("identity", "camera"):
        numbers[column], given = number_names(frames[column], column)
        if given:
            notes[f"{column}_numbers"] = given
    found = []
    for name, rows in frames.groupby("tracklet", sort=True):
        order = rows[ORDER_COLUMN].tolist() if ORDER_COLUMN in rows else [0] * len(rows)
        paths = sorted(zip(order, rows["frame_path"], strict=True), key=lambda pair: (pair[0], natural_key(pair[1])))
        first = rows.iloc[0]
        tracklet = SourceTracklet(
            first["split"],
            numbers["identity"][first["identity"]],
            numbers["camera"][first["camera"]],
            tuple(path for _, path in paths),
        )
        key = (SPLITS.index(tracklet.split), tracklet.identity, tracklet.camera, natural_key(str(name)))
        found.append((key, tracklet))
    return [tracklet for _, tracklet in sorted(found, key=lambda pair: pair[0])]
