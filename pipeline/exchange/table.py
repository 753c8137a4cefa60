"""Keypoints in a CSV or Parquet table with one row a person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import SourceError
from ..skeleton import JOINTS
from .people import SourceEntry, source_person

LIST_COLUMN = "keypoints"
JOINT_COLUMNS = tuple(f"{joint}_{axis}" for joint in JOINTS for axis in "xyc")


class KeypointTable:
    """Columns frame_path, then `keypoints` (lists of 51) or nose_x, nose_y, nose_c, ..., and perhaps score.

    In a CSV file `keypoints` is text such as [64.0, 20.5, 0.9, ...]. Several rows of a frame are several people.
    """

    def __init__(self, source: Path) -> None:
        self._source = source

    def files(self) -> list[Path]:
        return [self._source]

    def entries(self) -> Iterator[SourceEntry]:
        frames = self._load()
        scores = frames["score"] if "score" in frames.columns else [None] * len(frames)
        people = zip(frames["frame_path"], _keypoints(frames), scores, strict=True)
        for row, (name, values, score) in enumerate(people, 1):
            where = f"{self._source}, row {row}"
            if not isinstance(name, str) or not name.strip():
                raise SourceError(f"{where} has no frame_path", "a path", "fill it in, or leave the row out")
            yield SourceEntry(name.strip(), (source_person(_parsed(values, where), score, where),))

    def _load(self) -> pd.DataFrame:
        try:
            if self._source.suffix.lower() == ".parquet":
                frames = pd.read_parquet(self._source)
            else:
                frames = pd.read_csv(self._source, dtype={"frame_path": str})
        except (ValueError, OSError) as error:
            raise SourceError(
                f"{self._source} cannot be read ({error})", "a table .csv or .parquet", "write it again"
            ) from error
        joints = [] if LIST_COLUMN in frames.columns else JOINT_COLUMNS
        lacking = [name for name in ("frame_path", *joints) if name not in frames.columns]
        if lacking:
            raise SourceError(
                f"{self._source} has no column {', '.join(lacking[:4])}{' ...' if len(lacking) > 4 else ''}",
                "frame_path, and keypoints (lists of 51) or nose_x, nose_y, nose_c to right_ankle_c",
                "rename or add them; docs/keypoints.md has examples",
            )
        return frames


def _keypoints(frames: pd.DataFrame) -> Iterator[Any]:
    return iter(frames[LIST_COLUMN] if LIST_COLUMN in frames.columns else frames[list(JOINT_COLUMNS)].to_numpy())


def _parsed(values: Any, where: str) -> Any:
    if not isinstance(values, str):
        return values
    try:
        return json.loads(values)
    except ValueError as error:
        raise SourceError(f"{where} has keypoints {values[:40]!r}", "text such as [64.0, 20.5, 0.9, ...]") from error
