"""What a training batch is: as a worker read it, and as the network's device has it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .plan import BatchPlan


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
class FrameGroup:
    """Some of a batch's frames that have one size.

    Attributes:
        places: which of the frames that were read these are; g numbers.
        frames: uint8 (g, 3, h, w), RGB, of the size that they are stored in.
    """

    places: list[int]
    frames: Tensor


@dataclass(frozen=True)
class JpegGroup:
    """Some of a batch's frames as JPEG bytes.

    Attributes:
        places: see FrameGroup.
        lengths: bytes of each image.
        blob: uint8 (sum of lengths,): the images one after the other.
    """

    places: list[int]
    lengths: list[int]
    blob: Tensor


@dataclass(frozen=True)
class HostBatch:
    """What a worker hands over: the m frames that a plan misses, in host memory.

    Attributes:
        plan: what was asked for.
        groups: the frames that are decoded, by size.
        jpegs: the frames that the device decodes; None where there is none.
        heatmaps: uint8 (m, P, 64, 32); None where they are rendered.
        keypoints: float32 (m, 17, 3) to render them from; None where they are stored.
        sizes: int32 (m, 2): width and height that the keypoints belong to.
        identities, cameras: int64 (B,), see ClipBatch.
    """

    plan: BatchPlan
    groups: list[FrameGroup]
    jpegs: JpegGroup | None
    heatmaps: Tensor | None
    keypoints: Tensor | None
    sizes: np.ndarray
    identities: Tensor
    cameras: Tensor

    def pin_memory(self) -> HostBatch:
        """In pinned memory, from which copies to a device run beside the host; DataLoader calls it."""
        return replace(
            self,
            groups=[replace(group, frames=group.frames.pin_memory()) for group in self.groups],
            heatmaps=None if self.heatmaps is None else self.heatmaps.pin_memory(),
            keypoints=None if self.keypoints is None else self.keypoints.pin_memory(),
            identities=self.identities.pin_memory(),
            cameras=self.cameras.pin_memory(),
        )
