"""The HDF5 shard: what training reads. Writer and reader side by side; docs/data-format.md is the same in words."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from .commit import repair_hint, sha256_of
from .errors import FormatError, SurroundingsError
from .records import ShardReceipt
from .skeleton import NUM_JOINTS, NUM_PARTS

FORMAT_VERSION = 2
IMAGES_AT_ONCE = 32  # that one call of HDF5 writes: each takes 0.1 ms, whatever its size
HEATMAP_HEIGHT, HEATMAP_WIDTH = 64, 32  # stride 4 on a 256x128 frame
HEATMAP_SHAPE = (NUM_PARTS, HEATMAP_HEIGHT, HEATMAP_WIDTH)
# Name, shape of a row and type of what is kept uncompressed of each frame.
FRAME_TABLES = (("frame_index", (), np.int32), ("sizes", (2,), np.int32), ("keypoints", (NUM_JOINTS, 3), np.float32))


@dataclass(frozen=True)
class TrackletFrames:
    """The readable frames of one tracklet, in time order; F frames."""

    tracklet_id: int
    frame_index: np.ndarray  # int32 (F,), position of each frame among the tracklet's frames (left-out ones are absent)
    encoded: tuple[bytes, ...]  # JPEG or PNG files' bytes, see images.encode_for_shard
    sizes: np.ndarray  # int32 (F, 2), width and height in pixels
    keypoints: np.ndarray  # float32 (F, 17, 3), see KeypointColumns; zero where no person was found
    heatmaps: np.ndarray  # uint8 (F, 6, 64, 32), part heatmaps over the frame, 255 for 1.0

    @property
    def num_frames(self) -> int:
        return len(self.encoded)


def shard_path(prepared: Path, shard: int) -> Path:
    return prepared / "shards" / f"{shard:05d}.h5"


def write_shard(path: Path, tracklets: Sequence[TrackletFrames], attributes: dict[str, str | int]) -> None:
    """Write one shard, image by image: equal arguments give equal bytes.

    Raises:
        OSError: the disk is full, or fails.
    """
    lengths = [len(image) for tracklet in tracklets for image in tracklet.encoded]
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    with open(path, "w+b", buffering=0) as file:
        target = _Target(file.fileno())
        options = {"driver": "fileobj", "fileobj": target, "libver": ("v110", "v110"), "rdcc_nbytes": 0}
        try:
            with h5py.File("shard", "w", **options) as shard:
                shard.attrs["format_version"] = FORMAT_VERSION
                for name, value in sorted(attributes.items()):
                    shard.attrs[name] = value
                # Groups that h5py makes on the way to a dataset record the time.
                index, frames = shard.create_group("tracklets"), shard.create_group("frames")
                index["tracklet_id"] = np.array([t.tracklet_id for t in tracklets], dtype=np.int64)
                index["start"] = np.cumsum([0, *(t.num_frames for t in tracklets)], dtype=np.int64)
                blob = frames.create_dataset("blob", (sum(lengths),), np.uint8)
                frames["offsets"] = starts
                for name, inner, dtype in FRAME_TABLES:
                    rows = [getattr(tracklet, name) for tracklet in tracklets]
                    frames[name] = np.concatenate([np.zeros((0, *inner), dtype), *rows], dtype=dtype)
                # Not lzf, whose output depends on what its hash table held; gzip is smaller and as fast to read.
                packed = {"chunks": (1, *HEATMAP_SHAPE), "compression": "gzip", "compression_opts": 1}
                shape = (len(lengths), *HEATMAP_SHAPE)
                heatmaps = frames.create_dataset("heatmaps", shape, np.uint8, **(packed if lengths else {}))
                row = 0
                for tracklet in tracklets:
                    heatmaps[row : row + tracklet.num_frames] = tracklet.heatmaps
                    for first in range(0, tracklet.num_frames, IMAGES_AT_ONCE):
                        images = tracklet.encoded[first : first + IMAGES_AT_ONCE]
                        place, end = starts[row + first], starts[row + first + len(images)]
                        blob[place:end] = np.frombuffer(b"".join(images), np.uint8)
                    row += tracklet.num_frames
                    target.check()
        finally:
            target.check()  # in place of what HDF5 says of the same failure


class _Target:
    """The file that HDF5 writes to.

    Where a write fails HDF5 crashes the process when it closes the file. Here it is told that all went well, and the
    failure is raised afterwards.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._position = descriptor, 0
        self._failure: BaseException | None = None

    def check(self) -> None:
        """Raises what a write failed with."""
        if self._failure is not None:
            raise self._failure

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (os.fstat(self._descriptor).st_size if whence == os.SEEK_END else 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: memoryview) -> int:
        with self._keeping_failures():
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], self._position + written)
        self._position += len(data)
        return len(data)

    def readinto(self, buffer: memoryview) -> int:
        with self._keeping_failures():
            data = os.pread(self._descriptor, len(buffer), self._position)
            buffer[: len(data)] = data
        self._position += len(buffer)
        return len(buffer)

    def truncate(self, size: int) -> int:
        with self._keeping_failures():
            os.ftruncate(self._descriptor, size)
        return size

    def flush(self) -> None:
        """Writes are not buffered."""

    @contextmanager
    def _keeping_failures(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # of a signal's handler too
            self._failure = self._failure or error


class _Opened(NamedTuple):
    """A shard's open file and the index that was read from it."""

    process: int
    file: h5py.File
    heatmaps: h5py.Dataset
    descriptor: int
    blob_start: int
    tracklet_ids: np.ndarray
    start: np.ndarray
    offsets: np.ndarray


def _identity(found: os.stat_result) -> tuple[int, ...]:
    """Tells one file at a path from another that took its place, without reading it."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class ShardReader:
    """Random access to one shard by position of a tracklet in it and indices of the tracklet's readable frames.

    HDF5 never sees a file that does not have the hash in its receipt of when the run began: one wrong byte can make it
    run for minutes. The file is hashed at its first use, and again where another has taken its place when it is
    reopened. A reader can be pickled or forked at any time: each process opens the file for itself, and one on the same
    machine does not hash again. Images are read by their offset, which takes a few microseconds; HDF5 is asked for the
    rest.

    Raises:
        FormatError: from any method: the file is missing, damaged, was replaced or is of another format version.
        SurroundingsError: from any method: it cannot be read.
        IndexError: a tracklet does not have such frames.
    """

    def __init__(self, path: Path, receipt: ShardReceipt) -> None:
        self.path, self.receipt = Path(path), receipt
        self._verified: tuple[int, ...] | None = None
        self._opened: _Opened | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def verify(self) -> None:
        """Hash the file and compare it with the receipt, unless this very file was compared before."""
        with self._naming_failures():
            identity = _identity(self.path.stat())
            if identity == self._verified:
                return
            digest = sha256_of(self.path)
            if digest != self.receipt.sha256:
                found = f"has SHA-256 {digest[:16]}...: it was damaged, or rebuilt since this run began"
                raise self._changed(found, f"{self.receipt.sha256[:16]}... of its receipt")
            self._verified = identity

    @property
    def tracklet_ids(self) -> np.ndarray:
        """int64 (K,): the tracklets in this shard, in order."""
        return self._open().tracklet_ids

    def num_frames(self, position: int) -> int:
        """Readable frames of the position-th tracklet of this shard."""
        start = self._open().start
        return int(start[position + 1] - start[position])

    def images(self, position: int, frames: Sequence[int]) -> list[bytes]:
        """Encoded images."""
        opened, rows, images = self._open(), self._rows(position, frames), []
        with self._naming_failures():
            for row in rows:
                start, end = int(opened.offsets[row]), int(opened.offsets[row + 1])
                image = os.pread(opened.descriptor, end - start, opened.blob_start + start)
                if len(image) != end - start:
                    raise self._changed("ends within a frame")
                images.append(image)
        return images

    def heatmaps(self, position: int, frames: Sequence[int]) -> np.ndarray:
        """uint8 (len(frames), 6, 64, 32): part heatmaps."""
        opened, rows = self._open(), self._rows(position, frames)
        gathered = np.empty((len(rows), *HEATMAP_SHAPE), np.uint8)
        with self._naming_failures():
            for place, row in enumerate(rows):  # for HDF5 one selection of several rows is many times slower
                gathered[place] = opened.heatmaps[row]
        return gathered

    def read(self, position: int, frames: Sequence[int]) -> tuple[list[bytes], np.ndarray]:
        """Images and heatmaps."""
        return self.images(position, frames), self.heatmaps(position, frames)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.file.close()
        self._opened = None

    def _rows(self, position: int, frames: Sequence[int]) -> list[int]:
        first, count = int(self._open().start[position]), self.num_frames(position)
        if bad := [frame for frame in frames if not 0 <= frame < count]:
            raise IndexError(f"frames {bad} of a tracklet of {count} readable frames")
        return [first + int(frame) for frame in frames]

    def _open(self) -> _Opened:
        if self._opened is None or self._opened.process != os.getpid():
            self._opened = None  # in a forked process: the handle there is the parent's
            self.verify()
            with self._naming_failures():
                # No chunk cache: a chunk is one frame's, and seldom read twice; it would cost a megabyte an open shard.
                file = h5py.File(self.path, "r", rdcc_nbytes=0)
                try:
                    self._opened = self._read_index(file)
                except BaseException:
                    file.close()
                    raise
        return self._opened

    def _read_index(self, file: h5py.File) -> _Opened:
        descriptor, version = file.id.get_vfd_handle(), file.attrs["format_version"]
        if _identity(os.fstat(descriptor)) != self._verified:
            raise self._changed("was replaced while it was opened")
        if version != FORMAT_VERSION:
            found, expected = f"{self.path} has shard format version {version}", f"version {FORMAT_VERSION}"
            raise FormatError(found, expected, "build the shards again with this version")
        heatmaps = file["frames/heatmaps"]
        tables = [file[name] for name in ("tracklets/tracklet_id", "tracklets/start", "frames/offsets")]
        # The hash vouches for the content, not for whoever wrote both: no shape is believed before memory is taken.
        if heatmaps.shape[1:] != HEATMAP_SHAPE or any(table.nbytes > self.receipt.num_bytes for table in tables):
            raise ValueError("tables longer than the file, or heatmaps of another shape")
        blob_start = file["frames/blob"].id.get_offset() or 0  # None where there is no frame
        return _Opened(os.getpid(), file, heatmaps, descriptor, blob_start, *(table[:] for table in tables))

    @contextmanager
    def _naming_failures(self) -> Iterator[None]:
        """Within, an error that does not name the shard becomes one that does."""
        try:
            yield
        except FileNotFoundError:
            raise self._changed("is missing") from None
        except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            if getattr(error, "errno", None) is not None:
                remedy = "check the disk or mount, and run the command again"
                raise SurroundingsError(f"{self.path} cannot be read ({error})", "", remedy) from error
            raise self._changed(f"is not a readable shard ({error})") from error

    def _changed(self, found: str, expected: str = "") -> FormatError:
        return FormatError(f"{self.path} {found}", expected, repair_hint(self.path.parent.parent))
