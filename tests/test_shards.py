import multiprocessing
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from keyreid.pipeline import shards
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


Shard = tuple[Path, list[TrackletFrames]]


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    tracklets = [tracklet(7, 3), tracklet(8, 0), tracklet(9, 2)]
    write_shard(tmp_path / "a.h5", tracklets, {"settings": "x", "inputs": "y"})
    return tmp_path / "a.h5", tracklets


def test_reads_back_what_was_written(shard: Shard, tmp_path: Path) -> None:
    path, tracklets = shard
    reader = reader_of(path)
    assert reader.tracklet_ids.tolist() == [7, 8, 9]
    assert [reader.num_frames(position) for position in range(3)] == [3, 0, 2]
    encoded, heatmaps = reader.read(0, [2, 0, 2])  # any order, repeats allowed
    assert encoded == [tracklets[0].encoded[2], tracklets[0].encoded[0], tracklets[0].encoded[2]]
    np.testing.assert_array_equal(heatmaps, tracklets[0].heatmaps[[2, 0, 2]])
    assert reader.images(2, [0]) == [tracklets[2].encoded[0]]
    for read in (reader.images, reader.heatmaps):
        with pytest.raises(IndexError, match=r"frames \[3\] of a tracklet of 3 readable frames"):
            read(0, [3])  # it would be the next tracklet's
    write_shard(tmp_path / "empty.h5", [tracklet(0, 0)], {})
    assert reader_of(tmp_path / "empty.h5").num_frames(0) == 0
    with h5py.File(path) as file:
        for name in ("frame_index", "sizes", "keypoints"):
            rows = [getattr(tracklet, name) for tracklet in tracklets]
            np.testing.assert_array_equal(file[f"frames/{name}"][:], np.concatenate(rows))
        assert file["frames/heatmaps"].compression == "gzip", "lzf gives other bytes in one shard of eighty"


def test_equal_tracklets_give_equal_bytes_at_any_time(shard: Shard, tmp_path: Path) -> None:
    second = int(time.time())
    while int(time.time()) == second:  # HDF5 can record the second in which an object was made
        time.sleep(0.01)
    write_shard(tmp_path / "b.h5", shard[1], {"settings": "x", "inputs": "y"})
    assert sha256_of(tmp_path / "b.h5") == sha256_of(shard[0])


def _read_in_fork(reader: ShardReader, answer: Any) -> None:
    answer.put((reader.read(0, [1])[0], reader._opened.process == os.getpid()))


def test_an_open_reader_can_be_forked(shard: Shard) -> None:
    reader = reader_of(shard[0])
    first = reader.read(0, [1])[0]
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    child = context.Process(target=_read_in_fork, args=(reader, answer))
    child.start()
    assert answer.get(timeout=30) == (first, True)
    child.join(30)
    assert child.exitcode == 0 and reader.read(0, [1])[0] == first


def test_hdf5_never_sees_a_file_that_is_not_its_receipts(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = shard[0], bytearray(shard[0].read_bytes())
    monkeypatch.setattr(h5py, "File", lambda *_, **__: pytest.fail("HDF5 opened it"))
    reader = reader_of(path)
    data[9999] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.h5 has SHA-256 \w{16}\.\.\.: it was damaged,.*run keyreid-prep verify"):
        reader.read(0, [1])
    path.unlink()
    with pytest.raises(FormatError, match=r"a\.h5 is missing; run keyreid-prep verify"):
        reader.read(0, [1])


def test_a_shard_is_hashed_once_and_again_when_another_took_its_place(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: shards rebuilt during a training run ended in other weights, exit code 0."""
    (path, tracklets), hashed = shard, []
    monkeypatch.setattr(shards, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))
    reader = reader_of(path)
    reader.verify()
    copy = pickle.loads(pickle.dumps(reader))
    for one in (reader, copy, reader):
        assert one.read(0, [1])[0] == [tracklets[0].encoded[1]]
        one.close()
    assert len(hashed) == 1
    other = path.with_name("b.h5")
    other.write_bytes(path.read_bytes())
    other.rename(path)
    assert reader.read(0, [1])[0] == [tracklets[0].encoded[1]]  # other files of the same bytes are welcome
    reader.close()
    write_shard(other, tracklets, {"settings": "x", "inputs": "z"})
    other.rename(path)
    for one in (reader, copy):
        with pytest.raises(FormatError, match="rebuilt since this run began"):
            one.read(0, [1])


def test_what_the_receipt_vouches_for_and_this_version_cannot_read(shard: Shard) -> None:
    """Whoever writes a shard can write its receipt: nothing of it is believed before memory is taken."""

    def hollow(file: h5py.File, name: str, *shape: int) -> None:
        del file[name]
        file.create_dataset(name, shape, "i8" if "tracklets" in name else "u1")  # takes no room in the file

    path, sound = shard[0], shard[0].read_bytes()
    changes: list[tuple[Callable[[h5py.File], object], str]] = [
        (
            lambda file: file.attrs.modify("format_version", 99),
            "version 99; expected version 2; build the shards again",
        ),
        (
            lambda file: hollow(file, "tracklets/start", 1 << 40),
            r"a\.h5 is not a readable shard \(tables longer",
        ),
        (
            lambda file: hollow(file, "frames/heatmaps", 5, 1 << 40),
            "heatmaps of another shape",
        ),
        (lambda file: file.__delitem__("frames/heatmaps"), r"a\.h5 is not a readable shard"),
    ]
    for change, message in changes:
        path.write_bytes(sound)
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(FormatError, match=message):
            reader_of(path).read(0, [1])
    path.write_bytes(b"no shard")
    with pytest.raises(FormatError, match=r"a\.h5 is not a readable shard"):
        reader_of(path).read(0, [1])


FULL_DISK = """
import errno, resource, sys
from pathlib import Path
from keyreid.pipeline.shards import write_shard
from test_shards import tracklet

path, tracklets = Path(sys.argv[1]), [tracklet(number, 2) for number in range(10)]
write_shard(path, tracklets, {})
num_bytes = path.stat().st_size
refused = 0
for room in [*range(0, 8000, 500), *range(8000, num_bytes, num_bytes // 10), num_bytes - 1]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        write_shard(path, tracklets, {})
    except OSError as error:
        assert error.errno == errno.EFBIG
        refused += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
write_shard(path, tracklets, {})
assert path.stat().st_size == num_bytes
print(refused)
"""


def test_a_disk_that_is_full_at_any_byte_is_an_error_and_no_crash(tmp_path: Path) -> None:
    """HDF5 ends the process where it is told of a failed write."""
    tests = Path(__file__).parent
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.h5")]
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == 27


def test_writing_does_not_hold_the_images_again(tmp_path: Path) -> None:
    image = bytes(1_000_000)
    frames = replace(tracklet(0, 1), encoded=(image,))
    tracklets = [replace(frames, tracklet_id=number) for number in range(50)]  # 50 MB in the file, shared here
    tracemalloc.start()
    try:
        write_shard(tmp_path / "a.h5", tracklets, {})
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_file_that_shrank_while_open_and_a_disk_that_fails(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(shard[0])
    reader.images(2, [1])
    with open(shard[0], "r+b") as file:
        file.truncate(shard[0].read_bytes().index(shard[1][2].encoded[1]) + 1)
    with pytest.raises(FormatError, match=r"a\.h5 ends within a frame; run keyreid-prep verify"):
        reader.images(2, [1])
    monkeypatch.setattr(os, "pread", lambda *_: os.close(-1))
    with pytest.raises(SurroundingsError, match=r"a\.h5 cannot be read .*Bad file descriptor"):
        reader.images(2, [1])
