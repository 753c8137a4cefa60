"""One training step. Nothing in it makes the host wait for the device."""

from __future__ import annotations

import torch
from torch.nn.utils import clip_grad_norm_

from keyreid.model.data.augment import augment_batch
from keyreid.model.data.batch import ClipBatch
from keyreid.model.data.sampler import torch_generator, torch_seed

from .config import RunConfig
from .losses import LossTerms
from .state import Clips, TrainingState, falls_back, scale_center_gradients

Place = tuple[int, int, int]  # seed, epoch, step


def train_step(state: TrainingState, batch: ClipBatch, config: RunConfig, epoch: int) -> LossTerms:
    """Augment, forward, backward, update; every random draw is a function of (seed, epoch, step)."""
    training = config.training
    place = (training.seed, epoch, batch.step)
    clips = _augment(state, batch, config, place)
    try:
        terms = _backward(state, clips, place, batch.first_clip)
    except Exception as error:
        if not falls_back(state.learner, error):
            raise
        terms = _backward(state, clips, place, batch.first_clip)
    _update(state, config)
    return terms


def _augment(state: TrainingState, batch: ClipBatch, config: RunConfig, place: Place) -> Clips:
    model_config = state.model.config
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
    return Clips(frames, part_weights, batch.cameras, batch.identities, erased)


def _backward(state: TrainingState, clips: Clips, place: Place, first_clip: int) -> LossTerms:
    """The loss terms, and the gradient of the total."""
    state.optimizer.zero_grad(set_to_none=True)
    state.center_optimizer.zero_grad(set_to_none=True)
    _seed_network(place, first_clip)
    terms: LossTerms = state.learner(clips)
    state.scaler.scale(terms.total).backward()
    return terms


def _seed_network(place: Place, first_clip: int) -> None:
    """Drop path and the shifts in time draw from the global generator, for the clips from `first_clip` on."""
    torch.manual_seed(torch_seed("network", *place, *([first_clip] if first_clip else [])))


def _update(state: TrainingState, config: RunConfig) -> None:
    training, scaler = config.training, state.scaler
    scaler.unscale_(state.optimizer)
    if training.clip_gradient:
        clip_grad_norm_(state.model.parameters(), training.clip_gradient)
    scale_center_gradients(state.center_optimizer, training)
    scaler.step(state.optimizer)
    if training.center_weight:
        scaler.step(state.center_optimizer)
    scaler.update()
