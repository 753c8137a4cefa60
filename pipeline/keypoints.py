"""The Parquet files of keypoints: writer and reader side by side; docs/data-format.md is the same in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .records import FRAME_NO_POSE, FRAMES_LEFT_OUT, FramePose
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
    """The rows of one keypoints file, in its order; F rows. See records.FramePose for units and ranges.

    Attributes:
        tracklet_id: int64 (F,).
        frame_index: int32 (F,).
        sizes: int32 (F, 2), width and height in pixels; 0 where the frame is left out.
        status: str (F,), of records.FRAME_STATUSES.
        score: float32 (F,).
        keypoints: float32 (F, 17, 3): x, y in pixels, confidence.
    """

    tracklet_id: np.ndarray
    frame_index: np.ndarray
    sizes: np.ndarray
    status: np.ndarray
    score: np.ndarray
    keypoints: np.ndarray

    @classmethod
    def of(cls, poses: Iterable[FramePose]) -> KeypointColumns:
        """The same rows as columns."""
        rows = list(poses)
        return cls(
            tracklet_id=np.array([pose.tracklet_id for pose in rows], np.int64),
            frame_index=np.array([pose.frame_index for pose in rows], np.int32),
            sizes=np.array([(pose.width, pose.height) for pose in rows], np.int32).reshape(-1, 2),
            status=np.array([pose.status for pose in rows], str),
            score=np.array([pose.score for pose in rows], np.float32),
            keypoints=np.array([pose.keypoints for pose in rows], np.float32).reshape(-1, NUM_JOINTS, 3),
        )

    def merge(self, others: KeypointColumns) -> KeypointColumns:
        """The rows of both, by tracklet; both are in the order of their tracklets."""
        both = (np.concatenate([getattr(one, name) for one in (self, others)]) for name in self.__dataclass_fields__)
        joined = KeypointColumns(*both)
        return joined[np.argsort(joined.tracklet_id, kind="stable")]

    def __getitem__(self, rows: np.ndarray | slice) -> KeypointColumns:
        """Some of the rows: a slice, a mask or indices."""
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
