"""Batches of training clips: planned here, read and decoded by workers as uint8, finished on the device."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from keyreid.pipeline.errors import KeyReIDError, SettingsError
from keyreid.pipeline.store import TrackletStore

from .assemble import BatchAssembler
from .batch import ClipBatch, HostBatch
from .cache import GIGABYTE, FrameCache
from .labels import LabelTables
from .plan import EpochPlans
from .reading import BatchReader
from .sampler import IdentitySampler, check_shares
from .settings import DataSettings
from .workers import DEATHS, ignore_stop_signals, worker_death

CPU = torch.device("cpu")
NO_EXTRAS = DataSettings()


class TrainingLoader:
    """Epochs of ClipBatch; the same batches whatever the number of workers, the way they start, and the cache.

    Attributes:
        sampler: the tracklets of each batch.
        waiting_share: of the last whole epoch's time, what its consumer waited for batches, their assembly included.
    """

    def __init__(
        self,
        reader: BatchReader,
        sampler: IdentitySampler,
        plans: EpochPlans,
        cache: FrameCache,
        assembler: BatchAssembler,
        *,
        num_workers: int,
        start_method: str | None,
        pin_memory: bool,
    ) -> None:
        self.sampler, self.waiting_share = sampler, 0.0
        self._plans, self._cache, self._assembler = plans, cache, assembler
        self._loader: DataLoader = DataLoader(
            reader,
            sampler=plans,
            batch_size=None,  # a plan is a whole batch
            collate_fn=_as_it_is,
            num_workers=num_workers,
            worker_init_fn=ignore_stop_signals,
            persistent_workers=num_workers > 0,
            multiprocessing_context=start_method if num_workers else None,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # leaves the global generator alone
        )
        # Workers ignore SIGTERM, with which Python would end them when it exits, and then wait for them for ever.
        weakref.finalize(self, _end_workers, self._loader)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[ClipBatch]:
        """The batches of one epoch, in order, from step `first_step` on; those before it are not made.

        Raises:
            KeyReIDError: what a worker raised, or that one died.
        """
        self._plans.epoch, self._plans.first_step = epoch, first_step
        self._cache.drop_claims()
        began, used = time.perf_counter(), 0.0
        batches = iter(self._loader)
        while (host := _next(batches)) is not None:
            batch = self._assembler(host)
            given = time.perf_counter()
            yield batch
            used += time.perf_counter() - given
        whole = time.perf_counter() - began
        self.waiting_share = (whole - used) / whole

    def steps(self, epoch: int) -> int:
        """How many batches the epoch has; the same on every rank."""
        return len(self.sampler.batches(epoch))


def training_loader(
    store: TrackletStore,
    labels: LabelTables,
    *,
    clip_length: int,
    frame_size: tuple[int, int],
    identities_per_batch: int,
    clips_per_identity: int,
    seed: int,
    num_workers: int = 0,
    device: torch.device = CPU,
    rank: int = 0,
    world_size: int = 1,
    data: DataSettings = NO_EXTRAS,
    start_method: str | None = None,
) -> TrainingLoader:
    """Feed the training split of a prepared dataset; all choices are pure functions of (seed, epoch, step, place).

    The batch of all ranks does not depend on their number; each gets the clips of an equal share of its identities.

    Args:
        store: where the frames are.
        labels: rows of identities and cameras; tracklets of other identities are left out.
        clip_length: T.
        frame_size: H, W.
        identities_per_batch, clips_per_identity: P and K of the batch of all ranks.
        seed: of the run.
        num_workers: processes that read and decode; 0 does it in this one.
        device: where the batches are used.
        rank, world_size: which of how many processes that train together.
        data: where frames are decoded, kept and rendered.
        start_method: of the workers: "fork", "spawn" or "forkserver"; None: the system's.

    Raises:
        SettingsError: too few identities, see IdentitySampler; a P that the ranks cannot share equally; decoding on
            a device that has no decoder; a cache that does not fit.
    """
    check_shares(identities_per_batch, world_size)
    if data.decode == "device" and device.type != "cuda":
        raise SettingsError(f"decode device, and training runs on {device.type}", "a CUDA device", "use --decode host")
    tracklets = [t for t in store.tracklets("train") if t.identity in set(labels.identities)]
    sampler = IdentitySampler(
        tracklets, num_identities=identities_per_batch, clips_per_identity=clips_per_identity, seed=seed
    )
    num_frames = {t.tracklet_id: store.num_frames(t.tracklet_id) for t in tracklets}
    limit = 0 if data.cache == "none" else int(data.cache_gigabytes * GIGABYTE)
    cache = FrameCache(sum(num_frames.values()), frame_size, limit, device if data.cache == "device" else CPU)
    if limit and rank == 0:
        cache.report()
    return TrainingLoader(
        BatchReader(
            store,
            tracklets,
            labels,
            decode_on_device=data.decode == "device",
            render=data.heatmaps == "rendered",
        ),
        sampler,
        EpochPlans(sampler, num_frames, clip_length, seed, cache, rank, world_size),
        cache,
        BatchAssembler(frame_size, device, cache, store.reading),
        num_workers=num_workers,
        start_method=start_method,
        pin_memory=device.type == "cuda",
    )


def _end_workers(loader: DataLoader) -> None:
    iterator: Any = loader._iterator
    if iterator is not None:
        iterator._shutdown_workers()


def _next(batches: Iterator[HostBatch | KeyReIDError]) -> HostBatch | None:
    """The next batch; None after the last one."""
    try:
        given = next(batches, None)
    except DEATHS as error:
        death = worker_death(error)
        if death is None:
            raise
        raise death from error
    if isinstance(given, KeyReIDError):
        raise given
    return given


Given = TypeVar("Given")


def _as_it_is(batch: Given) -> Given:
    return batch
