"""The Parquet files of keypoints: writer and reader side by side; docs/data-format.md is the same in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .records import FRAME_NO_POSE, FRAMES_LEFT_OUT
from .skeleton import NUM_JOINTS

SCHEMA = pa.schema(
    [
        ("tracklet_id", pa.int64()),
        ("frame_index", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("status", pa.string()),
        ("score", pa.float32()),
        ("keypoints", pa.list_(pa.float32(), NUM_JOINTS * 3)),
    ]
)


@dataclass(frozen=True)
class KeypointColumns:
    """What is said of frames, in columns; F rows, in the order of a keypoints file."""

    tracklet_id: np.ndarray  # int64 (F,)
    frame_index: np.ndarray  # int32 (F,), position among the tracklet's frames, from 0
    sizes: np.ndarray  # int32 (F, 2), width and height in pixels; 0 where the frame is left out
    status: np.ndarray  # str (F,), of records.FRAME_STATUSES
    score: np.ndarray  # float32 (F,), of the chosen person, 0 to 1; 0 where there is none
    # float32 (F, 17, 3): x, y in pixels of the frame, origin at the top left, and confidence 0 to 1; rows in the order
    # of skeleton.JOINTS; all zero where a joint was not found
    keypoints: np.ndarray

    @classmethod
    def join(cls, parts: Sequence[KeypointColumns]) -> KeypointColumns:
        """The rows of all parts, by tracklet; each part is in the order of its tracklets."""
        rows = cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))
        return rows[np.argsort(rows.tracklet_id, kind="stable")]

    def __getitem__(self, rows: np.ndarray | slice | int) -> KeypointColumns:
        """Some of the rows: a slice, a mask or indices; of a number, the cells of that row."""
        return KeypointColumns(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.tracklet_id)

    @property
    def in_shards(self) -> np.ndarray:
        """bool (F,): frames that could be read, which the shards hold."""
        return ~np.isin(self.status, FRAMES_LEFT_OUT)

    @property
    def with_pose(self) -> np.ndarray:
        """bool (F,): frames with a person, found or put between its neighbours."""
        return self.in_shards & (self.status != FRAME_NO_POSE)


def keypoints_path(prepared: Path, shard: int) -> Path:
    return prepared / "keypoints" / f"{shard:05d}.parquet"


def write_keypoints(path: Path, columns: KeypointColumns) -> None:
    """Write rows in the given order; equal columns give equal bytes."""
    points = pa.array(np.ascontiguousarray(columns.keypoints, np.float32).ravel())
    arrays: dict[str, Any] = {
        "tracklet_id": columns.tracklet_id,
        "frame_index": columns.frame_index,
        "width": np.ascontiguousarray(columns.sizes[:, 0]),
        "height": np.ascontiguousarray(columns.sizes[:, 1]),
        "status": pa.array(columns.status.tolist(), pa.string()),
        "score": columns.score,
        "keypoints": pa.FixedSizeListArray.from_arrays(points, NUM_JOINTS * 3),
    }
    pq.write_table(pa.Table.from_pydict(arrays, schema=SCHEMA), path, compression="zstd")


def read_keypoints(path: Path) -> KeypointColumns:
    """Read what write_keypoints wrote; commit.require_intact says before that it still is what was written."""
    table = pq.ParquetFile(path).read()
    column = {name: table[name].to_numpy() for name in SCHEMA.names if name != "keypoints"}
    return KeypointColumns(
        tracklet_id=column["tracklet_id"],
        frame_index=column["frame_index"],
        sizes=np.stack([column["width"], column["height"]], axis=1),
        status=column["status"].astype(str),
        score=column["score"],
        keypoints=table["keypoints"].combine_chunks().flatten().to_numpy().reshape(-1, NUM_JOINTS, 3),
    )
