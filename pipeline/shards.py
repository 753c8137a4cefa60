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
from .errors import FormatError, KeyReIDError, SurroundingsError
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
    """The readable frames of one tracklet, in time order; F frames.

    Attributes:
        frame_index: int32 (F,), position of each frame among the tracklet's frames (left-out ones are absent).
        encoded: JPEG or PNG files' bytes, see images.encode_for_shard.
        sizes: int32 (F, 2), width and height in pixels.
        keypoints: float32 (F, 17, 3), see records.FramePose; zero where no person was found.
        heatmaps: uint8 (F, 6, 64, 32), part heatmaps over the frame, 255 for 1.0.
    """

    tracklet_id: int
    frame_index: np.ndarray
    encoded: tuple[bytes, ...]
    sizes: np.ndarray
    keypoints: np.ndarray
    heatmaps: np.ndarray

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
                for name in ("tracklets", "frames"):  # groups that h5py makes on the way to a dataset record the time
                    shard.create_group(name)
                shard["tracklets/tracklet_id"] = np.array([t.tracklet_id for t in tracklets], dtype=np.int64)
                shard["tracklets/start"] = np.cumsum([0, *(t.num_frames for t in tracklets)], dtype=np.int64)
                blob = shard.create_dataset("frames/blob", (sum(lengths),), np.uint8)
                shard["frames/offsets"] = starts
                for name, inner, dtype in FRAME_TABLES:
                    rows = [getattr(tracklet, name) for tracklet in tracklets]
                    shard[f"frames/{name}"] = np.concatenate([np.zeros((0, *inner), dtype), *rows], dtype=dtype)
                shape = (len(lengths), *HEATMAP_SHAPE)
                # Not lzf, whose output depends on what its hash table held; gzip is smaller and as fast to read.
                packed = {"chunks": (1, *HEATMAP_SHAPE), "compression": "gzip", "compression_opts": 1}
                heatmaps = shard.create_dataset("frames/heatmaps", shape, np.uint8, **(packed if lengths else {}))
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
    keypoints: h5py.Dataset
    descriptor: int
    blob_start: int
    tracklet_ids: np.ndarray
    start: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray


def _identity(found: os.stat_result) -> tuple[int, ...]:
    """Tells one file at a path from another that took its place, without reading it."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class ShardReader:
    """Random access to one shard; each process opens the file for itself, at its first use there.

    HDF5 never sees a file that does not have the hash in its receipt of when the run began: one wrong byte can make it
    run for minutes. The file is hashed at its first use, and again where another has taken its place when it is
    reopened. A reader can be pickled or forked at any time: no handle travels, and a process on the same machine does
    not hash again. Images are read by their offset, which takes a few microseconds; HDF5 is asked for the rest.
    """

    def __init__(self, path: Path, receipt: ShardReceipt) -> None:
        self.path, self.receipt = Path(path), receipt
        self._verified: tuple[int, ...] | None = None
        self._opened: _Opened | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def verify(self) -> None:
        """Hash the file and compare it with the receipt, unless this very file was compared before.

        Raises:
            FormatError: it is missing or has another hash.
            SurroundingsError: it cannot be read.
        """
        with self._naming_failures():
            status = self.path.stat()
            if _identity(status) == self._verified:
                return
            digest = sha256_of(self.path) if status.st_size == self.receipt.num_bytes else ""
            if digest != self.receipt.sha256:
                found = f"SHA-256 {digest[:16]}..." if digest else f"{status.st_size:,} bytes"
                expected = f"{self.receipt.sha256[:16]}... and {self.receipt.num_bytes:,} bytes"
                raise self._changed(f"has {found}: it was damaged, or rebuilt since this run began", expected)
            self._verified = _identity(status)

    @property
    def tracklet_ids(self) -> np.ndarray:
        """int64 (K,): the tracklets in this shard, in order."""
        return self._open().tracklet_ids

    def num_frames(self, position: int) -> int:
        """Readable frames of the position-th tracklet of this shard."""
        start = self._open().start
        return int(start[position + 1] - start[position])

    def images(self, position: int, frames: Sequence[int]) -> list[bytes]:
        """Encoded images of the position-th tracklet: `frames` are indices of its readable frames, in any order."""
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
        """uint8 (len(frames), 6, 64, 32): part heatmaps; see images."""
        return self._gather(self._open().heatmaps, position, frames)

    def keypoints(self, position: int, frames: Sequence[int]) -> np.ndarray:
        """float32 (len(frames), 17, 3): keypoints in pixels of the frame; see images."""
        return self._gather(self._open().keypoints, position, frames)

    def sizes(self, position: int, frames: Sequence[int]) -> np.ndarray:
        """int32 (len(frames), 2): width and height in pixels; see images."""
        return self._open().sizes[self._rows(position, frames)]

    def read(self, position: int, frames: Sequence[int]) -> tuple[list[bytes], np.ndarray]:
        """Images and heatmaps of some frames."""
        return self.images(position, frames), self.heatmaps(position, frames)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.file.close()
        self._opened = None

    def _gather(self, dataset: h5py.Dataset, position: int, frames: Sequence[int]) -> np.ndarray:
        # Row by row: for HDF5 one selection of several rows is many times slower than several of one.
        rows = self._rows(position, frames)
        gathered = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
        with self._naming_failures():
            for place, row in enumerate(rows):
                gathered[place] = dataset[row]
        return gathered

    def _rows(self, position: int, frames: Sequence[int]) -> list[int]:
        count = self.num_frames(position)
        bad = [frame for frame in frames if not 0 <= frame < count]
        if bad:
            raise IndexError(f"frames {bad} of a tracklet of {count} readable frames")
        first = int(self._open().start[position])
        return [first + int(frame) for frame in frames]

    def _open(self) -> _Opened:
        if self._opened is None or self._opened.process != os.getpid():
            self._opened = None  # in a forked process: the handle there is the parent's
            self.verify()
            self._opened = self._open_file()
        return self._opened

    def _open_file(self) -> _Opened:
        with self._naming_failures():
            # No chunk cache: a chunk is one frame's, and seldom read twice; it would cost a megabyte an open shard.
            file = h5py.File(self.path, "r", rdcc_nbytes=0)
            try:
                if _identity(os.fstat(file.id.get_vfd_handle())) != self._verified:
                    raise self._changed("was replaced while it was opened")
                return self._read_index(file)
            except BaseException:
                file.close()
                raise

    def _read_index(self, file: h5py.File) -> _Opened:
        version, receipt = file.attrs["format_version"], self.receipt
        if version != FORMAT_VERSION:
            found, expected = f"{self.path} has shard format version {version}", f"version {FORMAT_VERSION}"
            raise FormatError(found, expected, "build the shards again with this version")
        settings, inputs = file.attrs["settings"], file.attrs["inputs"]
        if (settings, inputs) != (receipt.settings, receipt.inputs):
            found = f"was built with settings {settings} from inputs {inputs}"
            raise self._changed(found, f"settings {receipt.settings} and inputs {receipt.inputs}, as in its receipt")
        tracklets, frames = file["tracklets/tracklet_id"].shape[0], file["frames/offsets"].shape[0] - 1
        for name, shape, dtype in (
            ("tracklets/tracklet_id", (tracklets,), np.int64),
            ("tracklets/start", (tracklets + 1,), np.int64),
            ("frames/offsets", (frames + 1,), np.int64),
            *((f"frames/{name}", (frames, *inner), dtype) for name, inner, dtype in FRAME_TABLES),
            ("frames/heatmaps", (frames, *HEATMAP_SHAPE), np.uint8),
        ):
            dataset = file[name]
            unpacked = dataset.nbytes if dataset.chunks is None else 0  # before any of it is allocated
            if dataset.shape != shape or dataset.dtype != dtype or unpacked > receipt.num_bytes:
                raise ValueError(f"{name} is {dataset.dtype} {dataset.shape}, expected {np.dtype(dtype)} {shape}")
        start, offsets = file["tracklets/start"][:], file["frames/offsets"][:]
        for name, rising, end in (("start", start, frames), ("offsets", offsets, file["frames/blob"].size)):
            if rising[0] != 0 or rising[-1] != end or (np.diff(rising) < 0).any():
                raise ValueError(f"{name} does not rise from 0 to {end}")
        return _Opened(
            process=os.getpid(),
            file=file,
            heatmaps=file["frames/heatmaps"],
            keypoints=file["frames/keypoints"],
            descriptor=file.id.get_vfd_handle(),
            blob_start=file["frames/blob"].id.get_offset() or 0,  # None where there is no frame
            tracklet_ids=file["tracklets/tracklet_id"][:],
            start=start,
            offsets=offsets,
            sizes=file["frames/sizes"][:],
        )

    @contextmanager
    def _naming_failures(self) -> Iterator[None]:
        """Within, an error that does not name the shard becomes one that does."""
        try:
            yield
        except KeyReIDError:
            raise
        except FileNotFoundError:
            raise self._changed("is missing") from None
        except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            if getattr(error, "errno", None) is not None:
                remedy = "check the disk or mount, and run the command again"
                raise SurroundingsError(f"{self.path} cannot be read ({error})", "", remedy) from error
            raise self._changed(f"is not a readable shard ({error})") from error

    def _changed(self, found: str, expected: str = "") -> FormatError:
        return FormatError(f"{self.path} {found}", expected, repair_hint(self.path.parent.parent))
