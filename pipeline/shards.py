"""The HDF5 shard: what training reads. Writer and reader side by side; docs/data-format.md is the same in words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from .errors import FormatError
from .skeleton import NUM_JOINTS, NUM_PARTS

FORMAT_VERSION = 1
HEATMAP_HEIGHT, HEATMAP_WIDTH = 64, 32  # stride 4 on a 256x128 frame


@dataclass(frozen=True)
class TrackletFrames:
    """The readable frames of one tracklet, in time order; F frames.

    Attributes:
        tracklet_id: the tracklet in the manifest.
        frame_index: int32 (F,), position of each frame in the manifest's frame_paths (unreadable ones are absent).
        encoded: the image files' bytes, unchanged (JPEG or PNG).
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
    """Write one shard; equal arguments give equal bytes."""
    lengths = [len(image) for tracklet in tracklets for image in tracklet.encoded]
    starts = np.cumsum([0] + [tracklet.num_frames for tracklet in tracklets], dtype=np.int64)
    blob = b"".join(image for tracklet in tracklets for image in tracklet.encoded)
    # In memory first: where a disk is full HDF5 does not raise, it crashes the process.
    with h5py.File("shard", "w", driver="core", backing_store=False, libver=("v110", "v110")) as file:
        file.attrs["format_version"] = FORMAT_VERSION
        for name, value in sorted(attributes.items()):
            file.attrs[name] = value
        for name in ("tracklets", "frames"):  # groups that h5py makes on the way to a dataset record the time
            file.create_group(name)
        file["tracklets/tracklet_id"] = np.array([t.tracklet_id for t in tracklets], dtype=np.int64)
        file["tracklets/start"] = starts
        file["frames/blob"] = np.frombuffer(blob, dtype=np.uint8)
        file["frames/offsets"] = np.cumsum([0, *lengths], dtype=np.int64)
        file["frames/frame_index"] = _stack([t.frame_index for t in tracklets], (0,), np.int32)
        file["frames/sizes"] = _stack([t.sizes for t in tracklets], (0, 2), np.int32)
        file["frames/keypoints"] = _stack([t.keypoints for t in tracklets], (0, NUM_JOINTS, 3), np.float32)
        heatmap_shape = (NUM_PARTS, HEATMAP_HEIGHT, HEATMAP_WIDTH)
        heatmaps = _stack([t.heatmaps for t in tracklets], (0, *heatmap_shape), np.uint8)
        if len(heatmaps):
            file.create_dataset("frames/heatmaps", data=heatmaps, chunks=(1, *heatmap_shape), compression="lzf")
        else:
            file["frames/heatmaps"] = heatmaps
        file.flush()
        path.write_bytes(file.id.get_file_image())


def _stack(arrays: list[np.ndarray], empty: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.zeros(empty, dtype)


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


class ShardReader:
    """Random access to one shard; each process opens the file for itself, at its first use there.

    A reader can be pickled or forked at any time: no handle travels. Images are read from the file by their offset,
    which takes a few microseconds; HDF5 is asked for the rest.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._opened: _Opened | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None}

    @property
    def origin(self) -> tuple[str, str]:
        """Fingerprints of the settings and of the inputs that it was made with."""
        attributes = self._open().file.attrs
        return str(attributes.get("settings")), str(attributes.get("inputs"))

    @property
    def tracklet_ids(self) -> np.ndarray:
        """int64 (K,): the tracklets in this shard, in order."""
        return self._open().tracklet_ids

    def num_frames(self, position: int) -> int:
        """Readable frames of the position-th tracklet of this shard."""
        start = self._open().start
        return int(start[position + 1] - start[position])

    def images(self, position: int, frames: Sequence[int]) -> list[bytes]:
        """The encoded images of some frames of the position-th tracklet, in the order asked for.

        Args:
            position: tracklet of this shard, from 0.
            frames: indices into the readable frames of the tracklet; repeats are allowed.
        """
        opened, images = self._open(), []
        for row in self._rows(position, frames):
            start, end = int(opened.offsets[row]), int(opened.offsets[row + 1])
            image = os.pread(opened.descriptor, end - start, opened.blob_start + start)
            if len(image) != end - start:
                raise FormatError(
                    f"{self.path} ends within a frame",
                    f"{end - start} bytes",
                    "run keyreid-prep verify to see the rest",
                )
            images.append(image)
        return images

    def heatmaps(self, position: int, frames: Sequence[int]) -> np.ndarray:
        """Part heatmaps of some frames, uint8 (len(frames), 6, 64, 32); see images."""
        return self._gather(self._open().heatmaps, position, frames)

    def keypoints(self, position: int, frames: Sequence[int]) -> np.ndarray:
        """Keypoints of some frames, float32 (len(frames), 17, 3), in pixels of the frame; see images."""
        return self._gather(self._open().keypoints, position, frames)

    def sizes(self, position: int, frames: Sequence[int]) -> np.ndarray:
        """Width and height in pixels of some frames, int32 (len(frames), 2); see images."""
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
        gathered = np.empty((len(frames), *dataset.shape[1:]), dataset.dtype)
        for place, row in enumerate(self._rows(position, frames)):
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
            self._opened = self._read_index()
        return self._opened

    def _read_index(self) -> _Opened:
        try:
            # No chunk cache: a chunk is one frame's, and seldom read twice; it would cost a megabyte an open shard.
            file = h5py.File(self.path, "r", rdcc_nbytes=0)
            version = int(file.attrs["format_version"])
        except (OSError, KeyError) as error:
            raise FormatError(
                f"{self.path} is not a readable shard ({error})", "", "run keyreid-prep build-shards again"
            ) from error
        if version != FORMAT_VERSION:
            file.close()
            raise FormatError(
                f"{self.path} has shard format version {version}",
                f"version {FORMAT_VERSION}",
                "build the shards again with this version",
            )
        return _Opened(
            os.getpid(),
            file,
            file["frames/heatmaps"],
            file["frames/keypoints"],
            file.id.get_vfd_handle(),
            file["frames/blob"].id.get_offset() or 0,  # None where there is no frame
            file["tracklets/tracklet_id"][:],
            file["tracklets/start"][:],
            file["frames/offsets"][:],
            file["frames/sizes"][:],
        )
