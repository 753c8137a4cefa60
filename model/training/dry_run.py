"""--dry-run: what a run will take, from a few of its steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from keyreid.pipeline.environment import duration

from .config import RunConfig
from .inputs import TrainingInputs
from .memory import peak_memory
from .rehearsal import Rehearsal

STEPS = 3  # measured at least, after one that is not: it loads kernels and starts workers
PREFETCHED = 2  # batches that each worker process makes ahead


@dataclass(frozen=True)
class DryRun:
    """What was counted and measured.

    Attributes:
        parameters: numbers that are trained, without the centres of the centre loss.
        num_tracklets, num_identities: trained on.
        clips_per_batch, batches_per_epoch, epochs: of the run; epochs differ by a few batches.
        seconds_per_step: with the wait for data, while the device is never waited for within a step.
        phases: seconds of each phase in other steps, where the host waits for the device after each.
        memory: MiB, see peak_memory.
        device: "cpu" or the CUDA device's name.
    """

    parameters: int
    num_tracklets: int
    num_identities: int
    clips_per_batch: int
    batches_per_epoch: int
    epochs: int
    seconds_per_step: float
    phases: dict[str, float]
    memory: dict[str, int]
    device: str

    @property
    def hours(self) -> float:
        """Of all epochs, without evaluations and checkpoints."""
        return self.epochs * self.batches_per_epoch * self.seconds_per_step / 3600

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "hours": self.hours}

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield f"network     {self.parameters:,} trained parameters"
        yield f"data        {self.num_tracklets:,} tracklets of {self.num_identities:,} identities"
        yield f"epoch       about {self.batches_per_epoch:,} batches of {self.clips_per_batch} clips"
        rate = self.clips_per_batch / self.seconds_per_step
        yield f"step        {self.seconds_per_step:.3f} s, {rate:,.1f} clips a second on {self.device}"
        whole = sum(self.phases.values())
        for name, seconds in self.phases.items():
            yield f"            {100 * seconds / whole:5.1f} %  {name}"
        peaks = ", ".join(f"{kind.split('_')[0]} {amount:,} MiB" for kind, amount in self.memory.items())
        yield f"memory      at most {peaks} (worker processes not counted)"
        whole_run = duration(3600 * self.hours)
        yield f"whole run   {self.epochs} epochs: about {whole_run}, without evaluations and checkpoints"


def dry_run(inputs: TrainingInputs, config: RunConfig, device: torch.device) -> DryRun:
    """Train for a few steps and write nothing.

    What the workers made ahead during the slow first step would hide that they are slower than the network, so it is
    thrown away before anything is measured; and each of them delivers as many batches as the others.
    """
    rehearsal = Rehearsal(inputs, config, device)
    rehearsal.steps(1)
    ahead = PREFETCHED * inputs.num_workers
    rehearsal.skip(ahead)
    steps = max(STEPS, ahead)
    began = time.perf_counter()
    rehearsal.steps(steps)
    seconds = (time.perf_counter() - began) / steps
    model = rehearsal.state.model
    return DryRun(
        parameters=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        num_tracklets=len(inputs.tracklets),
        num_identities=len(inputs.labels.identities),
        clips_per_batch=inputs.loader.sampler.batch_size,
        batches_per_epoch=inputs.loader.steps(0),
        epochs=config.training.epochs,
        seconds_per_step=seconds,
        phases=rehearsal.phases(steps),
        memory=peak_memory(device),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    )
