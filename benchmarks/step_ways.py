"""Both ways of a training step, on the same parameters and the same batch, for benchmarks/step.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from network import count_flops, make_step
from network_plain import PlainKeyReID
from step_plain import PlainTraining
from torch import Tensor

from keyreid.model.data.augment import augment_batch
from keyreid.model.data.batch import ClipBatch
from keyreid.model.data.labels import LabelTables
from keyreid.model.data.sampler import torch_generator, torch_seed
from keyreid.model.training.config import RunConfig
from keyreid.model.training.rehearsal import AUGMENTATION, AVERAGE, Phases, watched
from keyreid.model.training.state import Clips, Learner, TrainingState, build_state
from keyreid.model.training.step import train_step
from keyreid.pipeline.skeleton import NUM_PARTS

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Ways:
    """What both ways train, and on what.

    Attributes:
        state: ours; the plain way trains the same network.
        plain: the plain way.
        batch: in host memory, as our loader hands it over.
        clips: the same in host memory, as `train_step` augments it in epoch 0.
        config: the recipe.
        device: where to train.
        dtype: what the network computes in.
    """

    state: TrainingState
    plain: PlainTraining
    batch: ClipBatch
    clips: Clips
    config: RunConfig
    device: torch.device
    dtype: torch.dtype

    def our_step(self, phases: Phases | None = None) -> None:
        """Copy, augment, forward, backward, update, average; as the trainer does it."""
        if phases is None:
            train_step(self.state, self.batch.to(self.device), self.config, 0)
            self.state.average.update(1000)
            return
        with watched(self.state, phases):
            phases.enter(AUGMENTATION)
            train_step(self.state, self.batch.to(self.device), self.config, 0)
            phases.enter(AVERAGE)
            self.state.average.update(1000)
            phases.enter(None)

    def plain_step(self, phases: Phases | None = None) -> None:
        """The same without augmenting."""
        self.plain.step(self.clips, self.device, phases)

    def check(self) -> float:
        """Largest relative difference of the loss terms and of the gradient's norm.

        Raises:
            SystemExit: it is over the tolerance.
        """
        learner = Learner(self.state.model, self.state.loss, dtype=self.dtype, gather=None, compiling="none")
        clips = Clips(*(tensor.to(self.device) for tensor in self.clips))
        plain = self._numbers(lambda: self.plain.losses(clips))
        ours = self._numbers(lambda: learner(clips)._asdict())
        least = 0.01 * abs(plain["total"])  # a term that is nearly 0 need not agree in its own digits
        worst = max(abs(ours[name] - value) / max(abs(value), least) for name, value in plain.items())
        if not worst <= TOLERANCE[self.dtype]:
            raise SystemExit(
                f"Error: the two ways differ by {worst:.1e}; expected {TOLERANCE[self.dtype]:.0e} at most\n"
                f"plain {plain}\nours  {ours}"
            )
        return worst

    def _numbers(self, losses: Callable[[], dict[str, Tensor]]) -> dict[str, float]:
        """Loss terms, and the norm of the network's gradient."""
        torch.manual_seed(torch_seed("network", self.config.training.seed, 0, self.batch.step))
        self.state.model.zero_grad()
        terms = losses()
        terms["total"].backward()
        gradients = [parameter.grad for parameter in self.state.model.parameters() if parameter.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients]))
        return {name: term.item() for name, term in terms.items()} | {"gradient": norm.item()}

    def graph_flops(self) -> dict[str, int]:
        """Of a forward and a backward pass of each network, compiled or not, in matrix products."""
        inputs = tuple(tensor.to(self.device) for tensor in self.clips[:3])
        networks = {"plain": PlainKeyReID(self.state.model), "ours": self.state.model}
        return {way: count_flops(make_step(network, inputs, self.dtype, True)) for way, network in networks.items()}


def build_ways(
    config: RunConfig, device: torch.device, *, num_identities: int, num_cameras: int, compile_plain: bool
) -> Ways:
    """Random weights, random clips in which every part is seen."""
    labels = LabelTables(tuple(range(num_identities)), tuple(range(num_cameras)))
    state = build_state(config.model_config(labels), config.training, device)
    dtype = torch.bfloat16 if config.training.mixed_precision and device.type == "cuda" else torch.float32
    plain = PlainTraining(state, config.training, dtype=dtype, compiled=compile_plain)
    batch = make_batch(config, num_identities, num_cameras)
    model = state.model.config
    generator = torch_generator("augment", config.training.seed, 0, batch.step)
    frames, weights, erased = augment_batch(
        batch.frames, batch.heatmaps, config.augment, generator, model.frame_size, state.model.patch_grid, model.variant
    )
    clips = Clips(frames, weights, batch.cameras, batch.identities, erased)
    return Ways(state, plain, batch, Clips(*(_pinned(tensor) for tensor in clips)), config, device, dtype)


def make_batch(config: RunConfig, num_identities: int, num_cameras: int) -> ClipBatch:
    """Random clips in host memory."""
    generator = torch.Generator().manual_seed(1)
    people, each = config.training.scaled_identities, config.training.clips_per_identity
    clips, length = people * each, config.model.clip_length
    frames = (clips, length, 3, *config.model.frame_size)
    heatmaps = (clips, length, NUM_PARTS, 64, 32)
    tensors = (
        torch.randint(0, 256, frames, generator=generator, dtype=torch.uint8),
        torch.randint(0, 256, heatmaps, generator=generator, dtype=torch.uint8),
        torch.randperm(num_identities, generator=generator)[:people].repeat_interleave(each),
        torch.randint(0, num_cameras, (clips,), generator=generator),
    )
    pinned = [_pinned(tensor) for tensor in tensors]
    return ClipBatch(*pinned, tracklet_ids=torch.arange(clips), step=0, first_clip=0, all_clips=clips)


def _pinned(tensor: Tensor) -> Tensor:
    """Where there is CUDA, in memory that it copies from without help, as loaders do."""
    return tensor.pin_memory() if torch.cuda.is_available() else tensor
