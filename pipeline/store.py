"""The prepared tracklets of one dataset as training and evaluation see them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .checksums import compare_checksums, mend
from .commit import has_its_size, read_receipt
from .errors import FormatError
from .manifest import Manifest, read_manifest
from .records import ShardReceipt, Tracklet
from .shards import ShardReader

MAX_OPEN_SHARDS = 256  # in a process; systems allow 1,024 files or more


class TrackletStore:
    """Frames and heatmaps of a prepared dataset, by tracklet.

    Can be pickled and forked at any time; each process opens the shards for itself when it first reads from them, and
    keeps the last MAX_OPEN_SHARDS open.

    Attributes:
        manifest: the manifest, under the chosen identity split.
        dropped: tracklets without any readable frame; they are in no split of this store.

    Raises:
        FormatError: not a prepared dataset, or shards are missing.
        SettingsError: the dataset has no such identity split.
    """

    def __init__(self, prepared: Path, identity_split: int = 0) -> None:
        self.path = Path(prepared)
        manifest = read_manifest(self.path)
        several = bool(manifest.identity_splits) or identity_split != 0
        self.manifest: Manifest = manifest.with_identity_split(identity_split) if several else manifest
        receipts = [read_receipt(self.path, "shards", shard) for shard in range(manifest.num_shards)]
        missing = [shard for shard, receipt in enumerate(receipts) if receipt is None]
        if missing:
            raise FormatError(
                f"{len(missing)} of {manifest.num_shards} shards of {prepared} are not built (first: {missing[0]:05d})",
                "all of them",
                "run keyreid-prep extract-keypoints and keyreid-prep build-shards; they go on where they stopped",
            )
        self._receipts = [receipt for receipt in receipts if receipt is not None]
        self._readers = [ShardReader(self.path / receipt.file) for receipt in self._receipts]
        self._compared: set[int] = set()  # shards that were found to be whole
        self._used: dict[int, None] = {}  # shards that may be open, the last used last
        self._places: dict[int, tuple[int, int, int]] = {}  # tracklet_id -> shard, position, readable frames
        for shard, (reader, receipt) in enumerate(zip(self._readers, self._receipts, strict=True)):
            _check(self.path, reader, receipt)
            for position, tracklet_id in enumerate(reader.tracklet_ids):
                self._places[int(tracklet_id)] = (shard, position, reader.num_frames(position))
            reader.close()
        self.dropped = tuple(t for t in manifest.tracklets if self.num_frames(t.tracklet_id) == 0)

    def tracklets(self, *splits: str) -> tuple[Tracklet, ...]:
        """The tracklets of the named splits that have at least one readable frame, in manifest order."""
        return tuple(t for t in self.manifest.tracklets if t.split in splits and self.num_frames(t.tracklet_id) > 0)

    def num_frames(self, tracklet_id: int) -> int:
        """Readable frames of a tracklet."""
        return self._places.get(tracklet_id, (0, 0, 0))[2]

    def shards_of(self, tracklets: Iterable[Tracklet]) -> list[int]:
        """Numbers of the shards that hold some tracklets, in order."""
        return sorted({self._places[tracklet.tracklet_id][0] for tracklet in tracklets})

    def require_whole(self, shards: Iterable[int], *, hidden: bool = False) -> None:
        """Read shards and compare them with the hashes in their receipts, each once in the life of this store.

        Raises:
            FormatError: one is missing or was changed since it was built.
        """
        new = [shard for shard in shards if shard not in self._compared]
        compare_checksums(self.path, [self._receipts[shard] for shard in new], hidden=hidden)
        self._compared.update(new)

    def images(self, tracklet_id: int, frames: Sequence[int]) -> list[bytes]:
        """Encoded images of some readable frames of a tracklet; see ShardReader.images."""
        reader, position = self._place(tracklet_id)
        with self.reading(tracklet_id):
            images = reader.images(position, frames)
        return images

    def heatmaps(self, tracklet_id: int, frames: Sequence[int]) -> np.ndarray:
        """Their part heatmaps; see ShardReader.heatmaps."""
        reader, position = self._place(tracklet_id)
        with self.reading(tracklet_id):
            heatmaps = reader.heatmaps(position, frames)
        return heatmaps

    def poses(self, tracklet_id: int, frames: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Their keypoints and sizes; see ShardReader.keypoints and ShardReader.sizes."""
        reader, position = self._place(tracklet_id)
        with self.reading(tracklet_id):
            poses = reader.keypoints(position, frames), reader.sizes(position, frames)
        return poses

    def read(self, tracklet_id: int, frames: Sequence[int]) -> tuple[list[bytes], np.ndarray]:
        """Encoded images and part heatmaps."""
        return self.images(tracklet_id, frames), self.heatmaps(tracklet_id, frames)

    @contextmanager
    def reading(self, tracklet_id: int) -> Iterator[None]:
        """Within, an error that does not name the shard becomes a FormatError that names it and the tracklet."""
        try:
            yield
        except (OSError, FormatError) as error:  # h5py raises OSError where a chunk cannot be unpacked
            shard = self._readers[self._places[tracklet_id][0]].path
            if str(shard) in str(error):
                raise
            found = error.found if isinstance(error, FormatError) else str(error)
            raise FormatError(
                f"tracklet {tracklet_id} in {shard} cannot be read: {found}",
                "",
                mend(self.path),
            ) from error

    def _place(self, tracklet_id: int) -> tuple[ShardReader, int]:
        shard, position, _ = self._places[tracklet_id]
        self._used[shard] = self._used.pop(shard, None)  # the last used stands last
        if len(self._used) > MAX_OPEN_SHARDS:
            oldest = next(iter(self._used))
            self._used.pop(oldest)
            self._readers[oldest].close()
        return self._readers[shard], position


def _check(prepared: Path, reader: ShardReader, receipt: ShardReceipt) -> None:
    """Whether a shard is what its receipt says, as far as that costs nothing; keyreid-prep verify reads it all."""
    if not has_its_size(prepared, receipt) or reader.origin != (receipt.settings, receipt.inputs):
        raise FormatError(
            f"{reader.path} is not the file that its receipt was written for",
            f"{receipt.num_bytes:,} bytes, settings {receipt.settings}, inputs {receipt.inputs}",
            "delete the receipt and run keyreid-prep build-shards again",
        )
