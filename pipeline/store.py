"""The prepared tracklets of one dataset as training and evaluation see them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .commit import repair_hint
from .environment import progress_bar
from .errors import FormatError
from .manifest import read_manifest
from .records import Tracklet
from .shards import ShardReader
from .stages import SHARDS, stage_receipts

HASH_THREADS = 8  # hashing leaves the interpreter lock alone; more would only wait for the disk
MAX_OPEN_SHARDS = 256  # in a process; systems allow 1,024 files or more


class TrackletStore:
    """Frames and heatmaps of a prepared dataset, by tracklet.

    Can be pickled and forked at any time; each process keeps the last MAX_OPEN_SHARDS shards open. What this store
    reads is what was there when it was made; see ShardReader, also for errors.

    Attributes:
        manifest: the manifest, under the chosen identity split.
        receipts: of the shards, in order.
        dropped: tracklets without any readable frame; they are in no split of this store.

    Raises:
        FormatError: not a prepared dataset, or shards are missing or made from other keypoints than there are now.
        SettingsError: the dataset has no such identity split.
    """

    def __init__(self, prepared: Path, identity_split: int = 0) -> None:
        self.path = Path(prepared)
        manifest = read_manifest(self.path)
        several = bool(manifest.identity_splits) or identity_split != 0
        self.manifest = manifest.with_identity_split(identity_split) if several else manifest
        self.receipts = list(stage_receipts(self.path, SHARDS).values())
        self._readers = [ShardReader(self.path / receipt.file, receipt) for receipt in self.receipts]
        self._used: dict[int, None] = {}  # shards that may be open, the last used last
        left_out = {int(t): n for receipt in self.receipts for t, n in receipt.notes["left_out"].items()}
        self._num_frames = [t.num_frames - left_out.get(t.tracklet_id, 0) for t in manifest.tracklets]
        self._first = {t.shard: t.tracklet_id for t in reversed(manifest.tracklets)}  # tracklet of each shard
        self.dropped = tuple(t for t in manifest.tracklets if self.num_frames(t.tracklet_id) == 0)

    def tracklets(self, *splits: str) -> tuple[Tracklet, ...]:
        """The tracklets of the named splits that have at least one readable frame, in manifest order."""
        return tuple(t for t in self.manifest.tracklets if t.split in splits and self.num_frames(t.tracklet_id) > 0)

    def num_frames(self, tracklet_id: int) -> int:
        """Readable frames of a tracklet."""
        return self._num_frames[tracklet_id]

    def shards_of(self, tracklets: Iterable[Tracklet]) -> list[int]:
        """Numbers of the shards that hold some tracklets, in order."""
        return sorted({tracklet.shard for tracklet in tracklets})

    def require_intact(self, shards: Iterable[int], *, hidden: bool = False) -> None:
        """Read shards and compare them with the hashes in their receipts, before hours are spent on what is in them.

        Args:
            shards: their numbers; each is read once in the life of this store.
            hidden: shows no progress bar.

        Raises:
            FormatError: one is missing or was changed since it was built; the first of them in the order given.
        """
        readers = [self._readers[shard] for shard in shards]
        with (
            ThreadPoolExecutor(HASH_THREADS) as pool,
            progress_bar(len(readers), "compare checksums", "shards", hidden=hidden) as bar,
        ):
            try:
                for _ in pool.map(ShardReader.verify, readers):
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def images(self, tracklet_id: int, frames: Sequence[int]) -> list[bytes]:
        """Encoded images of some readable frames of a tracklet; see ShardReader.images."""
        reader, position = self._place(tracklet_id)
        return reader.images(position, frames)

    def heatmaps(self, tracklet_id: int, frames: Sequence[int]) -> np.ndarray:
        """Their part heatmaps; see ShardReader.heatmaps."""
        reader, position = self._place(tracklet_id)
        return reader.heatmaps(position, frames)

    def read(self, tracklet_id: int, frames: Sequence[int]) -> tuple[list[bytes], np.ndarray]:
        """Encoded images and part heatmaps."""
        return self.images(tracklet_id, frames), self.heatmaps(tracklet_id, frames)

    @contextmanager
    def reading(self, tracklet_id: int) -> Iterator[None]:
        """Within, an image that cannot be decoded becomes an error that names its shard and tracklet."""
        try:
            yield
        except FormatError as error:
            shard = self._readers[self.manifest.tracklets[tracklet_id].shard].path
            found = f"tracklet {tracklet_id} in {shard} cannot be read: {error.found}"
            raise FormatError(found, "", repair_hint(self.path)) from error

    def _place(self, tracklet_id: int) -> tuple[ShardReader, int]:
        shard = self.manifest.tracklets[tracklet_id].shard
        self._used[shard] = self._used.pop(shard, None)  # the last used stands last
        if len(self._used) > MAX_OPEN_SHARDS:
            oldest = next(iter(self._used))
            self._used.pop(oldest)
            self._readers[oldest].close()
        return self._readers[shard], tracklet_id - self._first[shard]
