"""The Parquet files of keypoints."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from keyreid.pipeline.keypoints import KeypointColumns, read_keypoints, write_keypoints
from keyreid.pipeline.records import FRAME_STATUSES


def example() -> KeypointColumns:
    """A frame of each status."""
    return KeypointColumns(
        tracklet_id=np.full(5, 7),
        frame_index=np.arange(5, dtype=np.int32),
        sizes=np.array([(64 + index, 128) for index in range(5)], np.int32),
        status=np.array(FRAME_STATUSES),
        score=np.arange(5, dtype=np.float32) / 8,
        keypoints=np.random.default_rng(0).random((5, 17, 3), np.float32),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_keypoints(tmp_path / "a.parquet", example())
    return tmp_path / "a.parquet"


def test_reads_back_what_was_written(path: Path) -> None:
    columns, expected = read_keypoints(path), example()
    for field in fields(KeypointColumns):
        found, wanted = getattr(columns, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype.kind == wanted.dtype.kind and found.dtype.itemsize == wanted.dtype.itemsize
    assert columns.sizes.tolist() == [[64 + index, 128] for index in range(5)]
    assert columns.in_shards.tolist() == [True, True, True, False, False]
    assert columns.with_pose.tolist() == [True, True, False, False, False]
    assert columns[columns.with_pose].frame_index.tolist() == [0, 1] and len(columns[2:]) == 3


def test_equal_columns_give_equal_bytes_and_no_rows_are_fine(path: Path, tmp_path: Path) -> None:
    write_keypoints(tmp_path / "b.parquet", read_keypoints(path))
    assert (tmp_path / "b.parquet").read_bytes() == path.read_bytes()
    write_keypoints(path, example()[:0])
    columns = read_keypoints(path)
    assert len(columns) == 0 and columns.keypoints.shape == (0, 17, 3) and columns.sizes.shape == (0, 2)


def test_parts_are_joined_by_tracklet() -> None:
    columns = replace(example(), tracklet_id=np.array([0, 0, 1, 1, 2]))
    middle = columns.tracklet_id == 1
    joined = KeypointColumns.join([columns[~middle], columns[middle]])
    assert joined.frame_index.tolist() == [0, 1, 2, 3, 4] and joined.status.tolist() == list(FRAME_STATUSES)
