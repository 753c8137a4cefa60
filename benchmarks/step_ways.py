"""Both ways of a training step, on the same parameters and the same batch, for benchmarks/step.py."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from step_plain import PlainTraining

from keyreid.model.data.augment import augment_batch
from keyreid.model.data.batch import ClipBatch
from keyreid.model.data.labels import LabelTables
from keyreid.model.data.seeds import torch_generator, torch_seed
from keyreid.model.training.config import RunConfig
from keyreid.model.training.learner import Clips
from keyreid.model.training.phases import Phases, watched
from keyreid.model.training.rehearsal import AUGMENTATION, AVERAGE
from keyreid.model.training.state import TrainingState, build_state
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
            self.state.average.update(self.state.model, step=1000)
            return
        with watched(self.state, phases):
            phases.enter(AUGMENTATION)
            train_step(self.state, self.batch.to(self.device), self.config, 0)
            phases.enter(AVERAGE)
            self.state.average.update(self.state.model, step=1000)
            phases.enter(None)

    def plain_step(self, phases: Phases | None = None) -> None:
        """The same without augmenting."""
        self.plain.step(self.clips, self.device, phases)

    def check(self) -> float:
        """Largest relative difference of the loss terms and of the gradient's norm; ours has done a step then.

        Raises:
            SystemExit: it is over the tolerance.
        """
        torch.manual_seed(torch_seed("network", self.config.training.seed, 0, self.batch.step))
        terms = self.plain.losses(Clips(*(tensor.to(self.device) for tensor in self.clips)))
        self.state.model.zero_grad()
        terms["total"].backward()
        expected = {name: term.item() for name, term in terms.items()} | {"gradient": self._gradient_norm()}
        ours = train_step(self.state, self.batch.to(self.device), self.config, 0)
        found = {name: term.item() for name, term in ours._asdict().items()} | {"gradient": self._gradient_norm()}
        worst = max(abs(found[name] - value) / max(abs(value), 1e-6) for name, value in expected.items())
        if not worst <= TOLERANCE[self.dtype]:
            raise SystemExit(
                f"Error: the two ways differ by {worst:.1e}; expected {TOLERANCE[self.dtype]:.0e} at most\n"
                f"plain {expected}\nours  {found}"
            )
        return worst

    def _gradient_norm(self) -> float:
        gradients = [parameter.grad for parameter in self.state.model.parameters() if parameter.grad is not None]
        return torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients])).item()


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
    return Ways(state, plain, batch, clips, config, device, dtype)


def make_batch(config: RunConfig, num_identities: int, num_cameras: int) -> ClipBatch:
    """Random clips in host memory, pinned where there is CUDA, as the loader does."""
    generator = torch.Generator().manual_seed(1)
    people, each = config.training.identities_per_batch, config.training.clips_per_identity
    clips, length = people * each, config.model["clip_length"]
    frames = (clips, length, 3, *config.model["frame_size"])
    heatmaps = (clips, length, NUM_PARTS, 64, 32)
    tensors = (
        torch.randint(0, 256, frames, generator=generator, dtype=torch.uint8),
        torch.randint(0, 256, heatmaps, generator=generator, dtype=torch.uint8),
        torch.randperm(num_identities, generator=generator)[:people].repeat_interleave(each),
        torch.randint(0, num_cameras, (clips,), generator=generator),
    )
    if torch.cuda.is_available():
        tensors = tuple(tensor.pin_memory() for tensor in tensors)
    return ClipBatch(*tensors, tracklet_ids=torch.arange(clips), step=0, first_clip=0, all_clips=clips)
