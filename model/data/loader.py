"""Batches of training clips: bytes read by offset, decoded, handed over as uint8."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from keyreid.pipeline.store import TrackletStore

from .clips import training_clip
from .decode import decode_clip
from .labels import LabelTables
from .sampler import IdentitySampler, check_shares
from .seeds import numpy_generator

CPU = torch.device("cpu")


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

    def pin_memory(self) -> ClipBatch:  # DataLoader calls it where asked to
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> ClipBatch:
        """The same batch on a device; does not wait for the copy where the batch is in pinned memory."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> ClipBatch:
        return ClipBatch(
            frames=change(self.frames),
            heatmaps=change(self.heatmaps),
            identities=change(self.identities),
            cameras=change(self.cameras),
            tracklet_ids=self.tracklet_ids,
            step=self.step,
            first_clip=self.first_clip,
            all_clips=self.all_clips,
        )


@dataclass(frozen=True)
class _ClipKey:
    """Names one clip of training completely: what a worker needs to make it, whichever worker it is."""

    tracklet_id: int
    epoch: int
    step: int
    place: int
    all_clips: int


class TrainingClips(Dataset):
    """Map-style dataset from _ClipKey to one clip."""

    def __init__(
        self, store: TrackletStore, labels: LabelTables, clip_length: int, frame_size: tuple[int, int], seed: int
    ) -> None:
        # A copy whose shard files are not open: a handle must not be shared with forked workers.
        self._store = copy.deepcopy(store)
        self._clip_length, self._frame_size, self._seed = clip_length, frame_size, seed
        identity_row = {identity: row for row, identity in enumerate(labels.identities)}
        camera_row = {camera: row for row, camera in enumerate(labels.cameras)}
        self._rows = {
            tracklet.tracklet_id: (identity_row[tracklet.identity], camera_row[tracklet.camera])
            for tracklet in store.tracklets("train")
        }

    def __getitem__(self, key: _ClipKey) -> tuple[_ClipKey, Tensor, np.ndarray, tuple[int, int]]:
        generator = numpy_generator("clip", self._seed, key.epoch, key.step, key.place)
        chosen = training_clip(self._store.num_frames(key.tracklet_id), self._clip_length, generator)
        encoded, heatmaps = self._store.read(key.tracklet_id, chosen)
        return key, decode_clip(encoded, self._frame_size), heatmaps, self._rows[key.tracklet_id]


class EpochBatches(Sampler[list[_ClipKey]]):
    """One rank's share of the batches of `epoch` from `first_step` on; TrainingLoader.epoch sets both."""

    def __init__(self, sampler: IdentitySampler, rank: int, world_size: int) -> None:
        self._sampler, self.epoch, self.first_step = sampler, 0, 0
        share = sampler.batch_size // world_size
        self._places = range(rank * share, (rank + 1) * share)

    def __iter__(self) -> Iterator[list[_ClipKey]]:
        for step, ids in enumerate(self._sampler.batches(self.epoch)):
            if step >= self.first_step:
                yield [_ClipKey(ids[place], self.epoch, step, place, len(ids)) for place in self._places]


class TrainingLoader:
    """Epochs of ClipBatch; the same batches whatever the number of workers."""

    def __init__(
        self, dataset: TrainingClips, sampler: IdentitySampler, batches: EpochBatches, num_workers: int, pin: bool
    ) -> None:
        self.sampler = sampler
        self._batches = batches
        self._loader: DataLoader = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=_collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin,
        )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[ClipBatch]:
        """The batches of one epoch, in order, from step `first_step` on; those before it are not made."""
        self._batches.epoch, self._batches.first_step = epoch, first_step
        return iter(self._loader)

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
) -> TrainingLoader:
    """Feed the training split of a prepared dataset; all choices are pure functions of (seed, epoch, step, place).

    The batch of all ranks does not depend on their number; each gets the clips of an equal share of its identities.

    Args:
        store: where the frames are.
        labels: rows of identities and cameras.
        clip_length: T.
        frame_size: H, W.
        identities_per_batch, clips_per_identity: P and K of the batch of all ranks.
        seed: of the run.
        num_workers: processes that read and decode; 0 does it in this one.
        device: where the batches are used.
        rank, world_size: which of how many processes that train together.

    Raises:
        SettingsError: too few identities, see IdentitySampler, or a P that the ranks cannot share equally.
    """
    check_shares(identities_per_batch, world_size)
    sampler = IdentitySampler(
        store.tracklets("train"),
        num_identities=identities_per_batch,
        clips_per_identity=clips_per_identity,
        seed=seed,
    )
    dataset = TrainingClips(store, labels, clip_length, frame_size, seed)
    batches = EpochBatches(sampler, rank, world_size)
    return TrainingLoader(dataset, sampler, batches, num_workers, pin=device.type == "cuda")


def _collate(samples: list[tuple[_ClipKey, Tensor, np.ndarray, tuple[int, int]]]) -> ClipBatch:
    keys, frames, heatmaps, rows = zip(*samples, strict=True)
    return ClipBatch(
        torch.stack(frames),
        torch.from_numpy(np.stack(heatmaps)),
        torch.tensor([identity for identity, _ in rows]),
        torch.tensor([camera for _, camera in rows]),
        torch.tensor([key.tracklet_id for key in keys]),
        keys[0].step,
        keys[0].place,
        keys[0].all_clips,
    )
