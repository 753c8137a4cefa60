"""The device's half of a training batch: what a worker handed over becomes frames and heatmaps of one size."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from keyreid.pipeline.errors import FormatError
from keyreid.pipeline.heatmaps import quantised_heatmaps

from .batch import ClipBatch, FrameGroup, HostBatch, JpegGroup
from .cache import FrameCache
from .decode import decode_jpegs, resize_frames
from .plan import BatchPlan


class BatchAssembler:
    """Resizes, decodes and renders what needs it, in batch on the device, and keeps and recalls what is cached.

    Args:
        frame_size: H, W.
        device: where the batches are used.
        cache: of frames of this size.
        reading: gives an error within it the name of a tracklet and its shard, see TrackletStore.reading.
    """

    def __init__(
        self,
        frame_size: tuple[int, int],
        device: torch.device,
        cache: FrameCache,
        reading: Callable[[int], AbstractContextManager[None]],
    ) -> None:
        self._frame_size, self._device, self._cache, self._reading = frame_size, device, cache, reading

    def __call__(self, host: HostBatch) -> ClipBatch:
        plan = host.plan
        missing = plan.rows[plan.missing]
        frames, heatmaps = self._fresh_frames(host), self._fresh_heatmaps(host)
        self._cache.put(missing, frames, heatmaps)
        if len(missing) < len(plan.rows):
            frames, heatmaps = self._spread(plan.rows, missing, frames, heatmaps)
        clips, length = plan.frames.shape
        return ClipBatch(
            frames.unflatten(0, (clips, length)),
            heatmaps.unflatten(0, (clips, length)),
            host.identities.to(self._device, non_blocking=True),
            host.cameras.to(self._device, non_blocking=True),
            torch.tensor(plan.tracklet_ids),
            plan.step,
            plan.first_clip,
            plan.all_clips,
        )

    def _fresh_frames(self, host: HostBatch) -> Tensor:
        """uint8 (m, 3, H, W): what was read, in the order of the plan's missing rows."""
        groups = [FrameGroup(group.places, self._here(group.frames)) for group in host.groups]
        if host.jpegs is not None:
            groups += self._decode(host.jpegs, host.plan)
        if len(groups) == 1:  # one size and one decoder: the order is the plan's already
            return resize_frames(groups[0].frames, self._frame_size)
        frames = torch.empty((len(host.plan.missing), 3, *self._frame_size), dtype=torch.uint8, device=self._device)
        for group in groups:
            places = self._here(torch.tensor(group.places))
            frames.index_copy_(0, places, resize_frames(group.frames, self._frame_size))
        return frames

    def _decode(self, jpegs: JpegGroup, plan: BatchPlan) -> list[FrameGroup]:
        by_size: dict[torch.Size, tuple[list[int], list[Tensor]]] = {}
        images = list(jpegs.blob.split(jpegs.lengths))
        try:
            decoded = decode_jpegs(images, self._device)
        except FormatError:
            for place, image in zip(jpegs.places, images, strict=True):
                with self._reading(plan.tracklet_ids[plan.missing[place] // plan.frames.shape[1]]):
                    decode_jpegs([image], self._device)
            raise
        for place, frame in zip(jpegs.places, decoded, strict=True):
            places, frames = by_size.setdefault(frame.shape, ([], []))
            places.append(place)
            frames.append(frame)
        return [FrameGroup(places, torch.stack(frames)) for places, frames in by_size.values()]

    def _fresh_heatmaps(self, host: HostBatch) -> Tensor:
        """uint8 (m, P, 64, 32), see _fresh_frames."""
        if host.heatmaps is not None:
            return self._here(host.heatmaps)
        keypoints = torch.empty(0, 17, 3) if host.keypoints is None else host.keypoints
        return quantised_heatmaps(self._here(keypoints), host.sizes)

    def _spread(self, rows: np.ndarray, missing: np.ndarray, frames: Tensor, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Frames and heatmaps of every row, where some repeat what was read or are cached."""
        cached = self._cache.holds(rows)
        if cached.all():
            return self._cache.get(rows, self._device)
        place = {row: index for index, row in enumerate(missing.tolist())}
        fresh = self._here(torch.tensor([place[row] for row in rows[~cached].tolist()]))
        if not cached.any():
            return frames[fresh], heatmaps[fresh]
        recalled = self._cache.get(rows[cached], self._device)
        order = self._here(torch.from_numpy(np.argsort(np.argsort(cached, kind="stable"))))  # fresh first, then cached
        spread = [torch.cat([new[fresh], old])[order] for new, old in zip((frames, heatmaps), recalled, strict=True)]
        return spread[0], spread[1]

    def _here(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)
