"""A keypoints file as arrays, for work on whole shards; read_keypoints gives the same rows as objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import FormatError
from ..keypoints import SCHEMA
from ..records import FRAME_INTERPOLATED, FRAME_NO_POSE, FRAME_OK
from ..skeleton import NUM_JOINTS


@dataclass(frozen=True)
class KeypointColumns:
    """The rows of one keypoints file, in its order; F rows. See records.FramePose for units and ranges.

    Attributes:
        tracklet_id: int64 (F,).
        frame_index: int32 (F,).
        sizes: int32 (F, 2), width and height in pixels; 0 where the frame could not be read.
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

    @property
    def in_shards(self) -> np.ndarray:
        """bool (F,): frames that could be read, which the shards hold."""
        return np.isin(self.status, (FRAME_OK, FRAME_INTERPOLATED, FRAME_NO_POSE))

    @property
    def with_pose(self) -> np.ndarray:
        """bool (F,): frames with a person, found or put between its neighbours."""
        return np.isin(self.status, (FRAME_OK, FRAME_INTERPOLATED))

    def __len__(self) -> int:
        return len(self.tracklet_id)


def read_keypoint_columns(path: Path) -> KeypointColumns:
    """Read a keypoints file.

    Raises:
        FormatError: not a Parquet file, columns of other types, or empty cells.
    """
    try:
        table = pq.read_table(path, schema=SCHEMA)
        points = table["keypoints"].combine_chunks()
        empty = sum(table[name].null_count for name in table.column_names) + points.flatten().null_count
        if empty:
            raise ValueError(f"{empty} empty cells")
        column = {name: table[name].to_numpy() for name in SCHEMA.names if name != "keypoints"}
        keypoints = points.flatten().to_numpy(zero_copy_only=False).reshape(-1, NUM_JOINTS, 3)
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        raise FormatError(
            f"{path} is not a readable keypoints file ({str(error).splitlines()[0]})",
            "",
            "keyreid-prep verify says what else is wrong and what to do",
        ) from error
    return KeypointColumns(
        tracklet_id=column["tracklet_id"],
        frame_index=column["frame_index"],
        sizes=np.stack([column["width"], column["height"]], axis=1),
        status=column["status"].astype(str),
        score=column["score"],
        keypoints=keypoints,
    )
