import multiprocessing
import os
import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from keyreid.pipeline.commit import sha256_of
from keyreid.pipeline.errors import FormatError, SurroundingsError
from keyreid.pipeline.records import ShardReceipt
from keyreid.pipeline.shards import ShardReader, TrackletFrames, write_shard


def tracklet(tracklet_id: int, num_frames: int) -> TrackletFrames:
    rng = np.random.default_rng(tracklet_id)
    return TrackletFrames(
        tracklet_id,
        np.arange(num_frames, dtype=np.int32),
        tuple(rng.bytes(10 + frame) for frame in range(num_frames)),
        np.full((num_frames, 2), (64, 128), np.int32),
        rng.random((num_frames, 17, 3), np.float32),
        rng.integers(0, 256, (num_frames, 6, 64, 32), np.uint8),
    )


def reader_of(path: Path, **changes: Any) -> ShardReader:
    """A reader with the receipt of the file as it is now."""
    receipt = ShardReceipt(
        "shards", 0, 0, f"shards/{path.name}", sha256_of(path), path.stat().st_size, 5, "x", "y", {}, {}
    )
    return ShardReader(path, replace(receipt, **changes))


@pytest.fixture
def shard(tmp_path: Path) -> tuple[Path, list[TrackletFrames]]:
    tracklets = [tracklet(7, 3), tracklet(8, 0), tracklet(9, 2)]
    write_shard(tmp_path / "a.h5", tracklets, {"settings": "x", "inputs": "y"})
    return tmp_path / "a.h5", tracklets


def test_reads_back_what_was_written(shard: tuple[Path, list[TrackletFrames]]) -> None:
    path, tracklets = shard
    reader = reader_of(path)
    assert reader.tracklet_ids.tolist() == [7, 8, 9]
    assert [reader.num_frames(position) for position in range(3)] == [3, 0, 2]
    encoded, heatmaps = reader.read(0, [2, 0, 2])  # any order, repeats allowed
    assert encoded == [tracklets[0].encoded[2], tracklets[0].encoded[0], tracklets[0].encoded[2]]
    np.testing.assert_array_equal(heatmaps, tracklets[0].heatmaps[[2, 0, 2]])
    np.testing.assert_array_equal(reader.keypoints(2, [1]), tracklets[2].keypoints[[1]])


def test_a_frame_outside_the_tracklet_is_an_error_and_not_the_next_tracklets_frame(
    shard: tuple[Path, list[TrackletFrames]],
) -> None:
    with pytest.raises(IndexError, match=r"frames \[3\] of a tracklet of 3 readable frames"):
        reader_of(shard[0]).read(0, [3])


def test_equal_tracklets_give_equal_bytes_at_any_time(shard: tuple[Path, list[TrackletFrames]], tmp_path: Path) -> None:
    second = int(time.time())
    while int(time.time()) == second:  # HDF5 can record the second in which an object was made
        time.sleep(0.01)
    write_shard(tmp_path / "b.h5", shard[1], {"settings": "x", "inputs": "y"})
    assert sha256_of(tmp_path / "b.h5") == sha256_of(shard[0])
    write_shard(tmp_path / "c.h5", shard[1][:2], {"settings": "x", "inputs": "y"})
    assert sha256_of(tmp_path / "c.h5") != sha256_of(shard[0])


def _read_in_fork(reader: ShardReader, answer: Any) -> None:
    answer.put((reader.read(0, [1])[0], reader._opened.process == os.getpid()))


def test_an_open_reader_can_be_forked(shard: tuple[Path, list[TrackletFrames]]) -> None:
    reader = reader_of(shard[0])
    first = reader.read(0, [1])[0]
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    child = context.Process(target=_read_in_fork, args=(reader, answer))
    child.start()
    assert answer.get(timeout=30) == (first, True)
    child.join(30)
    assert child.exitcode == 0 and reader.read(0, [1])[0] == first


def test_an_open_reader_can_be_pickled_without_its_handle(shard: tuple[Path, list[TrackletFrames]]) -> None:
    reader = reader_of(shard[0])
    first = reader.read(0, [1])[0]
    copy = pickle.loads(pickle.dumps(reader))
    reader.close()
    assert copy.read(0, [1])[0] == first


def test_the_blob_is_contiguous_so_that_its_bytes_can_be_read_by_offset(
    shard: tuple[Path, list[TrackletFrames]],
) -> None:
    path, tracklets = shard
    with h5py.File(path) as file:
        blob, offsets = file["frames/blob"], file["frames/offsets"][:]
        start = blob.id.get_offset() + offsets[3]
        data = path.read_bytes()[start : start + offsets[4] - offsets[3]]
    assert data == tracklets[2].encoded[0]


def test_another_format_version_is_refused(shard: tuple[Path, list[TrackletFrames]]) -> None:
    with h5py.File(shard[0], "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(FormatError, match="shard format version 99; expected version 1; build the shards again"):
        _ = reader_of(shard[0]).tracklet_ids


def test_a_truncated_shard_is_refused(shard: tuple[Path, list[TrackletFrames]]) -> None:
    shard[0].write_bytes(shard[0].read_bytes()[:200])
    with pytest.raises(FormatError, match=r"not a readable shard .*build-shards rebuilds it"):
        _ = reader_of(shard[0]).tracklet_ids


def test_an_empty_shard(tmp_path: Path) -> None:
    write_shard(tmp_path / "empty.h5", [tracklet(0, 0)], {"settings": "x", "inputs": "y"})
    assert reader_of(tmp_path / "empty.h5").num_frames(0) == 0


def test_sizes_are_read_by_frame(shard: tuple[Path, list[TrackletFrames]]) -> None:
    assert reader_of(shard[0]).sizes(2, [1, 0]).tolist() == [[64, 128], [64, 128]]


def test_a_file_that_shrank_while_open_is_refused(shard: tuple[Path, list[TrackletFrames]]) -> None:
    reader = reader_of(shard[0])
    reader.images(2, [1])
    with open(shard[0], "r+b") as file:
        file.truncate(shard[0].read_bytes().index(shard[1][2].encoded[1]) + 1)
    with pytest.raises(FormatError, match=r"a\.h5 ends within a frame; run keyreid-prep verify"):
        reader.images(2, [1])
