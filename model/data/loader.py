"""Epochs of training batches: planned here, read and decoded by workers as uint8."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from keyreid.pipeline.store import TrackletStore

from .batch import BatchPlan, ClipBatch, EpochPlans
from .labels import LabelTables
from .reading import ClipLoader, HostClips
from .sampler import IdentitySampler


class TrainingLoader:
    """The training split of a prepared dataset as batches in host memory.

    All choices are pure functions of (seed, epoch, step, place). The batch of all ranks does not depend on their
    number; each gets the clips of an equal share of its identities.

    Args:
        store: where the frames are.
        labels: rows of identities and cameras; tracklets of other identities are left out.
        clip_length: T.
        frame_size: H, W.
        identities_per_batch, clips_per_identity: P and K of the batch of all ranks.
        seed: of the run.
        num_workers: processes that read and decode; 0 does it in this one.
        pin_memory: whether batches come in pinned memory, from which copies to a CUDA device overlap with the host.
        rank, world_size: which of how many processes that train together.
        start_method: see ClipLoader.

    Attributes:
        sampler: the tracklets of each batch.
        waiting_share: of the last whole epoch's time, what its consumer waited for batches.

    Raises:
        SettingsError: too few identities, see IdentitySampler, or a P that the ranks cannot share equally.
    """

    def __init__(
        self,
        store: TrackletStore,
        labels: LabelTables,
        *,
        clip_length: int,
        frame_size: tuple[int, int],
        identities_per_batch: int,
        clips_per_identity: int,
        seed: int,
        num_workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
        start_method: str | None = None,
    ) -> None:
        identity_row = {identity: row for row, identity in enumerate(labels.identities)}
        camera_row = {camera: row for row, camera in enumerate(labels.cameras)}
        tracklets = [tracklet for tracklet in store.tracklets("train") if tracklet.identity in identity_row]
        self._rows = {t.tracklet_id: (identity_row[t.identity], camera_row[t.camera]) for t in tracklets}
        self.sampler = IdentitySampler(
            tracklets, num_identities=identities_per_batch, clips_per_identity=clips_per_identity, seed=seed
        )
        self.waiting_share = 0.0
        self._plans = EpochPlans(self.sampler, store, clip_length, seed, rank, world_size)
        self._clips = ClipLoader(
            store,
            self._plans,
            frame_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
            keep_workers=True,
            start_method=start_method,
        )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[ClipBatch]:
        """The batches of one epoch, in order, from step `first_step` on; those before it are not read.

        Raises:
            KeyReIDError: what a worker raised, or that one died.
        """
        self._plans.epoch, self._plans.first_step = epoch, first_step
        began, used = time.perf_counter(), 0.0
        for clips in self._clips:
            batch = self._batch(clips)
            given = time.perf_counter()
            yield batch
            used += time.perf_counter() - given
        whole = time.perf_counter() - began
        self.waiting_share = (whole - used) / whole

    def steps(self, epoch: int) -> int:
        """How many batches the epoch has; the same on every rank."""
        return len(self.sampler.batches(epoch))

    def _batch(self, clips: HostClips[BatchPlan]) -> ClipBatch:
        plan = clips.plan
        identities, cameras = torch.tensor([self._rows[tracklet_id] for tracklet_id in plan.tracklet_ids]).unbind(1)
        return ClipBatch(
            clips.frames,
            clips.heatmaps,
            identities,
            cameras,
            torch.tensor(plan.tracklet_ids),
            plan.step,
            plan.first_clip,
            plan.all_clips,
        )
