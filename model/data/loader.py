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
from .sampler import IdentitySampler
from .seeds import numpy_generator


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
    """

    frames: Tensor
    heatmaps: Tensor
    identities: Tensor
    cameras: Tensor
    tracklet_ids: Tensor
    step: int

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
        )


@dataclass(frozen=True)
class _ClipKey:
    """Names one clip of training completely: what a worker needs to make it, whichever worker it is."""

    tracklet_id: int
    epoch: int
    step: int
    place: int


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
    """The batches of the epoch that `epoch` says; the training loop sets it before each epoch."""

    def __init__(self, sampler: IdentitySampler) -> None:
        self._sampler, self.epoch = sampler, 0

    def __iter__(self) -> Iterator[list[_ClipKey]]:
        for step, ids in enumerate(self._sampler.batches(self.epoch)):
            yield [_ClipKey(tracklet_id, self.epoch, step, place) for place, tracklet_id in enumerate(ids)]


class TrainingLoader:
    """Epochs of ClipBatch; the same batches whatever the number of workers."""

    def __init__(self, dataset: TrainingClips, sampler: IdentitySampler, num_workers: int, pin_memory: bool) -> None:
        self.sampler = sampler
        self._batches = EpochBatches(sampler)
        self._loader: DataLoader = DataLoader(
            dataset,
            batch_sampler=self._batches,
            collate_fn=_collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
        )

    def epoch(self, epoch: int) -> Iterator[ClipBatch]:
        """The batches of one epoch, in order."""
        self._batches.epoch = epoch
        return iter(self._loader)


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
    pin_memory: bool = False,
) -> TrainingLoader:
    """Feed the training split of a prepared dataset; all choices are pure functions of (seed, epoch, step, place).

    Raises:
        SettingsError: too few identities, see IdentitySampler.
    """
    sampler = IdentitySampler(
        store.tracklets("train"),
        num_identities=identities_per_batch,
        clips_per_identity=clips_per_identity,
        seed=seed,
    )
    dataset = TrainingClips(store, labels, clip_length, frame_size, seed)
    return TrainingLoader(dataset, sampler, num_workers, pin_memory)


def _collate(samples: list[tuple[_ClipKey, Tensor, np.ndarray, tuple[int, int]]]) -> ClipBatch:
    keys, frames, heatmaps, rows = zip(*samples, strict=True)
    return ClipBatch(
        torch.stack(frames),
        torch.from_numpy(np.stack(heatmaps)),
        torch.tensor([identity for identity, _ in rows]),
        torch.tensor([camera for _, camera in rows]),
        torch.tensor([key.tracklet_id for key in keys]),
        keys[0].step,
    )
