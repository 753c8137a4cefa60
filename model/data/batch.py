"""Training batches: which frames make one, drawn in one place before anything is read, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from keyreid.pipeline.store import TrackletStore

from .reading import ClipPlan
from .sampler import IdentitySampler, check_shares, numpy_generator, training_clip


@dataclass(frozen=True)
class ClipBatch:
    """B training clips of T frames.

    Attributes:
        frames: uint8 (B, T, 3, H, W), RGB.
        heatmaps: uint8 (B, T, P, 64, 32), 255 for 1.0.
        identities: int64 (B,), rows of the identity table.
        cameras: int64 (B,), rows of the camera table.
        tracklet_ids: int64 (B,), always in host memory: only messages need them.
        step: number of the batch in its epoch, from 0.
        first_clip: place of the first of these B clips in the batch of all ranks.
        all_clips: clips of the batch of all ranks.
    """

    frames: Tensor
    heatmaps: Tensor
    identities: Tensor
    cameras: Tensor
    tracklet_ids: Tensor
    step: int
    first_clip: int
    all_clips: int

    def to(self, device: torch.device) -> ClipBatch:
        """The same batch on a device."""
        names = ("frames", "heatmaps", "identities", "cameras")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


@dataclass(frozen=True)
class BatchPlan(ClipPlan):
    """One rank's share of a training batch; step, first_clip and all_clips as in ClipBatch."""

    step: int
    first_clip: int
    all_clips: int


class EpochPlans:
    """The plans of `epoch` from `first_step` on; TrainingLoader.epoch sets both.

    The clips of a step are drawn for the batch of all ranks from one generator, a function of (seed, epoch, step);
    a rank keeps its share.

    Args:
        sampler: the tracklets of each batch.
        store: knows how many frames a tracklet has.
        clip_length: T.
        seed: of the run.
        rank, world_size: the share.

    Raises:
        SettingsError: identities that the ranks cannot share equally.
    """

    def __init__(
        self,
        sampler: IdentitySampler,
        store: TrackletStore,
        clip_length: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_shares(sampler.num_identities, world_size)
        self._sampler, self._store, self._clip_length, self._seed = sampler, store, clip_length, seed
        self.epoch, self.first_step = 0, 0
        share = sampler.batch_size // world_size
        self._places = slice(rank * share, (rank + 1) * share)

    def __iter__(self) -> Iterator[BatchPlan]:
        batches = self._sampler.batches(self.epoch)
        for step in range(self.first_step, len(batches)):
            generator = numpy_generator("clips", self._seed, self.epoch, step)
            clips = [training_clip(self._store.num_frames(t), self._clip_length, generator) for t in batches[step]]
            ours, frames = batches[step][self._places], np.array(clips[self._places])
            yield BatchPlan(ours, frames, step, self._places.start, len(clips))
