"""The Parquet files of keypoints: writer and reader side by side; docs/data-format.md is the same in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import FormatError, SurroundingsError
from .records import FRAME_NO_POSE, FRAME_STATUSES, FRAMES_LEFT_OUT, FramePose
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
ROWS_OF_ANY_FILE = 1_000_000  # 250 MB as arrays; more rows than that must take a byte each in the file


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
    """Read a keypoints file.

    Raises:
        FormatError: not a Parquet file, other columns, empty cells, an unknown status, or a number that is not finite.
        OSError: it is missing, or the disk fails.
    """
    with open(path, "rb") as file:
        try:
            return _read_columns(file, path.stat().st_size)
        except MemoryError as error:
            found = f"{path} needs more memory than there is ({error})"
            raise SurroundingsError(found, "", "free some; keyreid-prep verify says if it is damaged") from error
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError) as error:
            if getattr(error, "errno", None) is not None:
                raise  # of the disk; what pyarrow says of the content has no number
            reason = (str(error) or type(error).__name__).splitlines()[0]
            found = f"{path} is not a readable keypoints file ({reason})"
            raise FormatError(found, "", "keyreid-prep verify says what else is wrong and what to do") from error


def _read_columns(file: Any, num_bytes: int) -> KeypointColumns:
    parquet = pq.ParquetFile(file)
    if not parquet.schema_arrow.equals(SCHEMA):
        raise ValueError(f"columns {', '.join(parquet.schema_arrow.names)} of other names or types")
    if parquet.metadata.num_rows > max(ROWS_OF_ANY_FILE, num_bytes):  # before anything is allocated for them
        raise ValueError(f"{parquet.metadata.num_rows:,} rows in {num_bytes:,} bytes")
    table = parquet.read()
    points = table["keypoints"].combine_chunks().flatten()
    empty = sum(table[name].null_count for name in table.column_names) + points.null_count
    if empty:
        raise ValueError(f"{empty} empty cells")
    column = {name: table[name].to_numpy() for name in SCHEMA.names if name != "keypoints"}
    columns = KeypointColumns(
        tracklet_id=column["tracklet_id"],
        frame_index=column["frame_index"],
        sizes=np.stack([column["width"], column["height"]], axis=1),
        status=column["status"].astype(str),
        score=column["score"],
        keypoints=points.to_numpy(zero_copy_only=False).reshape(-1, NUM_JOINTS, 3),
    )
    unknown = sorted(set(columns.status.tolist()) - set(FRAME_STATUSES))
    if unknown:
        raise ValueError(f"unknown status {unknown[0]!r}")
    if not (np.isfinite(columns.keypoints).all() and np.isfinite(columns.score).all()):
        raise ValueError("numbers that are not finite")
    return columns
