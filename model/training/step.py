"""One training step."""

from __future__ import annotations

import torch
from torch.nn.utils import clip_grad_norm_

from keyreid.model.data.augment import augment_batch
from keyreid.model.data.loader import ClipBatch
from keyreid.model.data.seeds import torch_generator, torch_seed

from .config import RunConfig
from .device import autocast
from .losses import LossTerms
from .schedule import step_centers
from .state import TrainingState


def train_step(state: TrainingState, batch: ClipBatch, config: RunConfig, epoch: int) -> LossTerms:
    """Augment, forward, backward, update; every random draw is a function of (seed, epoch, step)."""
    training, model_config = config.training, state.model.config
    place = (training.seed, epoch, batch.step)
    frames, part_weights, erased = augment_batch(
        batch.frames,
        batch.heatmaps,
        config.augment,
        torch_generator("augment", *place),
        model_config.frame_size,
        state.model.patch_grid,
        model_config.variant,
        first_clip=batch.first_clip,
        all_clips=batch.all_clips,
    )
    torch.manual_seed(torch_seed("network", *place))  # drop path and the shifts in time draw from the global generator
    with autocast(batch.frames.device, training.mixed_precision):
        output = state.model(frames, part_weights, batch.cameras)
    terms = state.loss(output, batch.identities, erased)
    state.optimizer.zero_grad(set_to_none=True)
    state.center_optimizer.zero_grad(set_to_none=True)
    terms.total.backward()
    if training.clip_gradient:
        clip_grad_norm_(state.model.parameters(), training.clip_gradient)
    state.optimizer.step()
    step_centers(state.center_optimizer, training)
    return terms
