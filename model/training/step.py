"""One training step. Nothing in it makes the host wait for the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from keyreid.model.data.augment import augment_batch
from keyreid.model.data.batch import ClipBatch
from keyreid.model.data.sampler import torch_generator, torch_seed
from keyreid.model.network.keyreid import TrainingFeatures

from .config import RunConfig
from .learner import Clips, Gradients
from .losses import LossTerms
from .schedule import scale_center_gradients
from .state import TrainingState

Place = tuple[int, int, int]  # seed, epoch, step


def train_step(state: TrainingState, batch: ClipBatch, config: RunConfig, epoch: int) -> LossTerms:
    """Augment, forward, backward, update; every random draw is a function of (seed, epoch, step)."""
    training = config.training
    place = (training.seed, epoch, batch.step)
    clips = _augment(state, batch, config, place)
    state.optimizer.zero_grad(set_to_none=True)
    state.center_optimizer.zero_grad(set_to_none=True)
    if training.accumulate == 1:
        _seed_network(place, batch.first_clip)
        terms = cast(LossTerms, state.learner(clips))
        state.scaler.scale(terms.total).backward()
    else:
        terms = _backward_in_pieces(state, clips, training.accumulate, place, batch.first_clip)
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


def _seed_network(place: Place, first_clip: int) -> None:
    """Drop path and the shifts in time draw from the global generator, for the clips from `first_clip` on."""
    torch.manual_seed(torch_seed("network", *place, *([first_clip] if first_clip else [])))


def _backward_in_pieces(state: TrainingState, clips: Clips, pieces: int, place: Place, first_clip: int) -> LossTerms:
    """The gradient of the whole batch's loss, with the memory of one piece of it.

    Hard examples and BatchNorm need the whole batch at once, but only its features, which are small. So the pieces go
    through the network twice: first without a graph, for the features whose loss is then computed whole; then with
    one, each piece with the gradient of its own features, under the same random draws.
    """
    learner = state.undistributed
    chunks = [Clips(*piece) for piece in zip(*(tensor.chunk(pieces) for tensor in clips), strict=True)]
    starts = [first_clip + sum(len(chunk.frames) for chunk in chunks[:number]) for number in range(len(chunks))]
    cached = []
    for start, chunk in zip(starts, chunks, strict=True):
        _seed_network(place, start)
        with torch.no_grad():
            cached.append(learner.features(chunk))
    whole = TrainingFeatures(*(torch.cat(tensors) for tensors in zip(*cached, strict=True)))
    leaves = [tensor.requires_grad_() for tensor in whole[:-1]]  # the visibility has no gradient
    terms = learner.judge(whole, clips)
    wanted = [*leaves, *learner.judging_parameters()]
    gradients = torch.autograd.grad(state.scaler.scale(terms.total), wanted)
    of_parameters = gradients[len(leaves) :]
    of_features = list(zip(*(gradient.chunk(pieces) for gradient in gradients[: len(leaves)]), strict=True))
    for number, (start, chunk) in enumerate(zip(starts, chunks, strict=True)):
        last = number + 1 == len(chunks)
        _seed_network(place, start)
        with nullcontext() if last else _gradients_stay_here(state):
            gradients_of_piece = Gradients(of_features[number], of_parameters if last else ())
            cast(Tensor, state.learner(chunk, gradients_of_piece)).backward()
    return terms


def _gradients_stay_here(state: TrainingState) -> AbstractContextManager[None]:
    """Ranks exchange gradients once a step, not once a piece."""
    learner = state.learner
    return learner.no_sync() if isinstance(learner, DistributedDataParallel) else nullcontext()


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
