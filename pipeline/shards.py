"""The HDF5 shard: what training reads. Writer and reader side by side; docs/data-format.md is the same in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


class ShardReader:
    """Random access to one shard; opens the file at first use, in the process that uses it.

    A reader can be pickled and forked before first use: no handle travels.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._index: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None, "_index": None}

    @property
    def origin(self) -> tuple[str, str]:
        """Fingerprints of the settings and of the inputs that it was made with."""
        self._open()
        assert self._file is not None
        return str(self._file.attrs.get("settings")), str(self._file.attrs.get("inputs"))

    @property
    def tracklet_ids(self) -> np.ndarray:
        """int64 (K,): the tracklets in this shard, in order."""
        return self._open()[0]

    def num_frames(self, position: int) -> int:
        """Readable frames of the position-th tracklet of this shard."""
        start = self._open()[1]
        return int(start[position + 1] - start[position])

    def read(self, position: int, frames: Sequence[int]) -> tuple[list[bytes], np.ndarray]:
        """Some frames of the position-th tracklet, in the order asked for; repeats are allowed.

        Args:
            position: tracklet of this shard, from 0.
            frames: indices into the readable frames of the tracklet.

        Returns:
            The encoded images, and the part heatmaps, uint8 (len(frames), 6, 64, 32).
        """
        rows = self._rows(position, frames)
        assert self._file is not None
        _, _, offsets = self._open()
        blob, heatmaps = self._file["frames/blob"], self._file["frames/heatmaps"]
        unique = {row: (blob[offsets[row] : offsets[row + 1]].tobytes(), heatmaps[row]) for row in sorted(set(rows))}
        return [unique[row][0] for row in rows], np.stack([unique[row][1] for row in rows])

    def keypoints(self, position: int, frames: Sequence[int]) -> np.ndarray:
        """Keypoints of some frames of a tracklet, float32 (len(frames), 17, 3), in pixels of the frame."""
        rows = self._rows(position, frames)
        assert self._file is not None
        dataset = self._file["frames/keypoints"]
        return np.stack([dataset[row] for row in rows])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._index = None

    def _rows(self, position: int, frames: Sequence[int]) -> list[int]:
        start = self._open()[1]
        count = int(start[position + 1] - start[position])
        bad = [frame for frame in frames if not 0 <= frame < count]
        if bad:
            raise IndexError(f"frames {bad} of a tracklet of {count} readable frames")
        return [int(start[position]) + int(frame) for frame in frames]

    def _open(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._index is None:
            try:
                file = h5py.File(self.path, "r")
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
            self._file = file
            self._index = (
                file["tracklets/tracklet_id"][:],
                file["tracklets/start"][:],
                file["frames/offsets"][:],
            )
        return self._index
