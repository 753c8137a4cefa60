"""Batches of clips through the network, so that a CUDA device never waits for the host.

Letters: n clips, T frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.skeleton import PART_FLIP

from ..data.reading import HostClips
from ..data.transform import normalise_frames, part_weights_from_heatmaps
from ..network.keyreid import ClipDescriptors, KeyReID
from ..precision import autocast, compute_dtype
from .clip_batches import PartPlan
from .clip_pool import each_tensor
from .settings import DescriptionSettings, mean_camera


@dataclass(frozen=True)
class Compute:
    """How descriptors are computed; their values depend on it by rounding alone.

    Attributes:
        batch_size: clips that go through the network at once.
        num_workers: processes that read and decode; 0 does it in this one. Rounding does not depend on it either.
        mixed_precision: as in training: bfloat16 or float16 on CUDA; a CPU always computes in float32.
    """

    batch_size: int = 16
    num_workers: int = 0
    mixed_precision: bool = True

    def precision(self, model: KeyReID) -> str:
        """What the network computes in where it is: "float32", "bfloat16" or "float16"."""
        return str(compute_dtype(device_of(model), self.mixed_precision)).removeprefix("torch.")


def through_network(
    model: KeyReID,
    batches: Iterable[HostClips[PartPlan]],
    cameras: Sequence[Tensor],
    settings: DescriptionSettings,
    compute: Compute,
) -> Iterator[tuple[PartPlan, ClipDescriptors]]:
    """What the network says of each batch, on the host; float32.

    The next batch is on its way through a CUDA device before this one's result is waited for.

    Raises:
        SettingsError: the device has not memory for a batch.
    """
    waiting: tuple[PartPlan, ClipDescriptors, torch.cuda.Event | None] | None = None
    with mean_camera(model, settings.cameras):
        for batch in batches:
            rows = cameras[batch.plan.part][batch.plan.rows]
            try:
                launched = (batch.plan, *_launch(model, batch, rows, settings.flip, compute.mixed_precision))
            except torch.OutOfMemoryError as error:
                raise SettingsError(
                    f"a batch of {len(rows)} clips does not fit on {device_of(model)}", "", "lower --batch-size"
                ) from error
            if waiting is not None:
                yield _arrived(*waiting)
            waiting = launched
        if waiting is not None:
            yield _arrived(*waiting)


@torch.inference_mode()
def _launch(
    model: KeyReID, batch: HostClips[PartPlan], cameras: Tensor, flip: bool, mixed_precision: bool
) -> tuple[ClipDescriptors, torch.cuda.Event | None]:
    """Descriptors of the clips, with `flip` of their mirror images after them; on the host once the event is over."""
    device, variant = device_of(model), model.config.variant
    frames, heatmaps, cameras = (
        tensor.to(device, non_blocking=True) for tensor in (batch.frames, batch.heatmaps, cameras)
    )
    described = []
    for mirrored in (False, True)[: 1 + flip]:
        if mirrored:
            frames, heatmaps = frames.flip(-1), heatmaps.flip(-1)
            heatmaps = heatmaps[:, :, list(PART_FLIP)] if variant == "aligned" else heatmaps
        weights = part_weights_from_heatmaps(heatmaps, model.patch_grid, variant)
        if variant == "reference":  # finding M8: repeated frames carry the weight 0, which is mid-range
            weights *= _is_original(batch.plan.padding, model.config.clip_length).to(device)[:, :, None, None]
        with autocast(device, compute_dtype(device, mixed_precision)):
            described.append(model.describe(normalise_frames(frames), weights, cameras))
    clips = each_tensor(lambda *values: torch.cat(values).float().to("cpu", non_blocking=True), *described)
    event = None
    if device.type == "cuda":
        event = torch.cuda.Event()
        event.record()
    return clips, event


def _is_original(padding: list[int], clip_length: int) -> Tensor:
    """bool (n, T): false where a clip repeats an earlier frame of its own."""
    return torch.arange(clip_length) < clip_length - torch.tensor(padding)[:, None]


def _arrived(
    plan: PartPlan, clips: ClipDescriptors, event: torch.cuda.Event | None
) -> tuple[PartPlan, ClipDescriptors]:
    if event is not None:
        event.synchronize()
    return plan, clips


def device_of(model: KeyReID) -> torch.device:
    return next(model.parameters()).device
