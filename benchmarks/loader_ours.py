"""Our way to load training clips, in one process and with the device's half on the CPU."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from keyreid.model.data.augment import AugmentSettings, augment_batch
from keyreid.model.data.batch import EpochPlans
from keyreid.model.data.decode import decode_frame
from keyreid.model.data.labels import LabelTables
from keyreid.model.data.loader import TrainingLoader
from keyreid.model.data.sampler import IdentitySampler, torch_generator
from keyreid.pipeline.environment import keep_freed_memory
from keyreid.pipeline.store import TrackletStore

P, K, T = 4, 4, 4
SIZE, PATCH = (256, 128), 16
GRID = (SIZE[0] // PATCH, SIZE[1] // PATCH)
VARIANT = "reference"  # the plain way's: no swap of left and right parts, weights in [-1, 1]


def make_plans(store: TrackletStore) -> EpochPlans:
    """What both ways load."""
    sampler = IdentitySampler(store.tracklets("train"), num_identities=P, clips_per_identity=K, seed=0)
    return EpochPlans(sampler, store, T, seed=0)


class OurLoader:
    """Ours, as training uses it in one process."""

    def __init__(self, store: TrackletStore) -> None:
        keep_freed_memory()  # as training on a CPU does
        self._store, self._plans = store, make_plans(store)
        self._loader = TrainingLoader(
            store,
            LabelTables.of(store.tracklets("train")),
            clip_length=T,
            frame_size=SIZE,
            identities_per_batch=P,
            clips_per_identity=K,
            seed=0,
        )

    def batches(self, epochs: range) -> Iterator[tuple[Tensor, Tensor]]:
        """Frames float32 (B, T, 3, H, W) and part weights float32 (B, T, N, P)."""
        for epoch in epochs:
            for batch in self._loader.epoch(epoch):
                yield self._augmented(epoch, batch.step, batch.frames, batch.heatmaps)

    def milliseconds(self, epochs: range) -> dict[str, float]:
        """Processor time of each part of the work per clip; the parts are done again one by one, and the rest is
        planning and stacking."""
        spent = Counter[str]()
        whole = [self._timed(spent, "whole", list, self._loader.epoch(epoch)) for epoch in epochs]
        for epoch, batches in zip(epochs, whole, strict=True):
            self._plans.epoch = epoch
            for plan, batch in zip(self._plans, batches, strict=True):
                clips = list(zip(plan.tracklet_ids, plan.frames.tolist(), strict=True))
                images = self._timed(spent, "read images", self._images, clips)
                self._timed(spent, "read heatmaps", self._heatmaps, clips)
                self._timed(spent, "decode", self._decode, images)
                self._timed(spent, "augment", self._augmented, epoch, plan.step, batch.frames, batch.heatmaps)
        loading = ("read images", "read heatmaps", "decode")
        spent["rest"] = max(0.0, spent.pop("whole") - sum(spent[part] for part in loading))
        clips = P * K * sum(map(len, whole))
        return {part: round(1e3 * value / clips, 3) for part, value in spent.items()}

    def _augmented(self, epoch: int, step: int, frames: Tensor, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        generator = torch_generator("augment", 0, epoch, step)
        return augment_batch(frames, heatmaps, AugmentSettings(), generator, SIZE, GRID, VARIANT)[:2]

    def _images(self, clips: list[tuple[int, list[int]]]) -> list[bytes]:
        return [image for tracklet_id, frames in clips for image in self._store.images(tracklet_id, frames)]

    @staticmethod
    def _decode(images: list[bytes]) -> list[Tensor]:
        return [decode_frame(image, SIZE) for image in images]

    def _heatmaps(self, clips: list[tuple[int, list[int]]]) -> list[Any]:
        return [self._store.heatmaps(tracklet_id, frames) for tracklet_id, frames in clips]

    @staticmethod
    def _timed(spent: Counter[str], part: str, work: Callable[..., Any], *arguments: Any) -> Any:
        began = time.process_time()
        result = work(*arguments)
        spent[part] += time.process_time() - began
        return result
