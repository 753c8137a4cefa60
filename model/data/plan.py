"""Which frames make each batch: drawn in one place, before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from .cache import FrameCache
from .clips import training_clip
from .sampler import IdentitySampler
from .seeds import numpy_generator


@dataclass(frozen=True)
class BatchPlan:
    """One rank's share of a training batch: B clips of T frames.

    Attributes:
        step, first_clip, all_clips: see ClipBatch.
        tracklet_ids: of each clip, B numbers.
        frames: int64 (B, T), which of its tracklet's readable frames each place of a clip shows.
        rows: int64 (B * T,), number of each frame among all training frames.
        missing: int64 (m,), the places in `rows` that have to be read; the others repeat one of these or are cached.
    """

    step: int
    first_clip: int
    all_clips: int
    tracklet_ids: list[int]
    frames: np.ndarray
    rows: np.ndarray
    missing: np.ndarray


class EpochPlans(Sampler[BatchPlan]):
    """The plans of `epoch` from `first_step` on; TrainingLoader.epoch sets both.

    The clips of a step are drawn for the batch of all ranks from one generator, a function of (seed, epoch, step);
    a rank keeps its share.

    Args:
        sampler: the tracklets of each batch.
        num_frames: readable frames of each training tracklet.
        clip_length: T.
        seed: of the run.
        cache: knows which frames need not be read.
        rank, world_size: the share.
    """

    def __init__(
        self,
        sampler: IdentitySampler,
        num_frames: Mapping[int, int],
        clip_length: int,
        seed: int,
        cache: FrameCache,
        rank: int,
        world_size: int,
    ) -> None:
        self._sampler, self._num_frames, self._clip_length, self._seed = sampler, num_frames, clip_length, seed
        self._first_row = dict(zip(num_frames, np.cumsum([0, *num_frames.values()]).tolist(), strict=False))
        self._cache, self.epoch, self.first_step = cache, 0, 0
        share = sampler.batch_size // world_size
        self._places = slice(rank * share, (rank + 1) * share)

    def __iter__(self) -> Iterator[BatchPlan]:
        batches = self._sampler.batches(self.epoch)
        for step in range(self.first_step, len(batches)):
            generator = numpy_generator("clips", self._seed, self.epoch, step)
            clips = [training_clip(self._num_frames[t], self._clip_length, generator) for t in batches[step]]
            yield self._plan(step, batches[step], np.array(clips))

    def _plan(self, step: int, tracklet_ids: list[int], clips: np.ndarray) -> BatchPlan:
        ours, frames = tracklet_ids[self._places], clips[self._places]
        rows = (frames + np.array([self._first_row[tracklet_id] for tracklet_id in ours])[:, None]).reshape(-1)
        first = np.sort(np.unique(rows, return_index=True)[1])
        missing = first[self._cache.claim(rows[first])]
        return BatchPlan(step, self._places.start, len(tracklet_ids), ours, frames, rows, missing)
