"""The Parquet files of keypoints."""

import errno
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keyreid.pipeline import keypoints
from keyreid.pipeline.errors import FormatError
from keyreid.pipeline.keypoints import SCHEMA, KeypointColumns, read_keypoints, write_keypoints
from keyreid.pipeline.records import FRAME_STATUSES, FramePose


def poses() -> list[FramePose]:
    """A frame of each status."""
    generator = np.random.default_rng(0)
    return [
        FramePose(7, index, 64 + index, 128, status, index / 8, generator.random((17, 3), np.float32))
        for index, status in enumerate(FRAME_STATUSES)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_keypoints(tmp_path / "a.parquet", KeypointColumns.of(poses()))
    return tmp_path / "a.parquet"


def test_reads_back_what_was_written(path: Path) -> None:
    columns, expected = read_keypoints(path), KeypointColumns.of(poses())
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
    write_keypoints(path, KeypointColumns.of([]))
    columns = read_keypoints(path)
    assert len(columns) == 0 and columns.keypoints.shape == (0, 17, 3) and columns.sizes.shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("status", pa.array(["ok", "ok", "ok", "ok", "quarantined"]), "unknown status 'quarantined'"),
        ("width", pa.array([64, 64, 64, 64, None], pa.int32()), "1 empty cells"),
        ("width", pa.array([64] * 5, pa.int64()), "columns .* of other names or types"),
        ("score", pa.array([0, 0, 0, 0, np.inf], pa.float32()), "numbers that are not finite"),
        ("keypoints", pa.array([[0.0] * 51] * 4 + [[0.0] * 50 + [None]], SCHEMA.field("keypoints").type), "1 empty"),
        ("keypoints", pa.array([[0.0] * 51] * 4 + [[np.nan] * 51], SCHEMA.field("keypoints").type), "numbers that"),
    ],
)
def test_contents_of_no_keypoints_file_are_refused(path: Path, name: str, column: pa.Array, message: str) -> None:
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index(name), name, column), path)
    with pytest.raises(FormatError, match=rf"a\.parquet is not a readable keypoints file \({message}"):
        read_keypoints(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 40 + b"PAR1", b"no Parquet at all"])
def test_what_is_no_parquet_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(FormatError, match="not a readable keypoints file"):
        read_keypoints(path)


def test_more_rows_than_the_file_can_hold_are_refused_before_memory_is_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal rows are packed so well that a small file may claim billions of them."""
    columns = KeypointColumns.of(poses()[2:3] * 20_000)
    write_keypoints(path, replace(columns, keypoints=np.zeros_like(columns.keypoints)))
    assert len(read_keypoints(path)) == 20_000
    monkeypatch.setattr(keypoints, "ROWS_OF_ANY_FILE", 1_000)
    monkeypatch.setattr(pq.ParquetFile, "read", lambda _: pytest.fail("read them"))
    with pytest.raises(FormatError, match=r"20,000 rows in [\d,]+ bytes"):
        read_keypoints(path)


def test_a_disk_that_fails_and_a_missing_file_say_nothing_about_the_content(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(pq.ParquetFile, "read", fail)
    with pytest.raises(OSError, match="Input/output error"):
        read_keypoints(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_keypoints(path)
