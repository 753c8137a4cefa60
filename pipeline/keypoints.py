"""The Parquet files of keypoints: writer and reader side by side; docs/data-format.md is the same in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .records import FramePose
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


def keypoints_path(prepared: Path, shard: int) -> Path:
    return prepared / "keypoints" / f"{shard:05d}.parquet"


def write_keypoints(path: Path, poses: list[FramePose]) -> None:
    """Write rows in the given order; equal poses give equal bytes."""
    columns = {name: [getattr(pose, name) for pose in poses] for name in SCHEMA.names if name != "keypoints"} | {
        "keypoints": [pose.keypoints.astype(np.float32).ravel() for pose in poses]
    }
    pq.write_table(pa.Table.from_pydict(columns, schema=SCHEMA), path, compression="zstd")


def read_keypoints(path: Path) -> list[FramePose]:
    """Read what write_keypoints wrote."""
    rows = pq.read_table(path, schema=SCHEMA).to_pylist()
    for row in rows:
        row["keypoints"] = np.array(row["keypoints"], np.float32).reshape(NUM_JOINTS, 3)
    return [FramePose(**row) for row in rows]
