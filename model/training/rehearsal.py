"""A few real steps on real batches, of which nothing is kept: --dry-run and --profile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from keyreid.model.data.batch import ClipBatch
from keyreid.pipeline.commit import commit_file
from keyreid.pipeline.environment import duration
from keyreid.pipeline.errors import SettingsError

from .config import RunConfig
from .failures import peak_memory
from .inputs import TrainingInputs
from .state import TrainingState, build_state, cosine_schedule
from .step import train_step

FORWARD, BACKWARD, UPDATE = "forward pass and losses", "backward pass", "optimisers"


class Phases:
    """A stop-watch of named phases, one after another; the host waits for the device where one ends.

    Args:
        synchronize: waits for the device.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._synchronize = synchronize
        self._name: str | None = None
        self._began = 0.0

    def enter(self, name: str | None) -> None:
        """End the phase that is going on and begin another, or none."""
        self._synchronize()
        now = time.perf_counter()
        if self._name is not None:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._began
        self._name, self._began = name, now


@contextmanager
def watched(state: TrainingState, phases: Phases) -> Iterator[None]:
    """Let the steps of `train_step` enter the phases forward, backward and optimisers; what is before them is not."""
    hooks = [
        state.learner.register_forward_pre_hook(lambda *_: phases.enter(FORWARD)),
        state.learner.register_forward_hook(lambda *_: phases.enter(BACKWARD)),
        state.optimizer.register_step_pre_hook(lambda *_: phases.enter(UPDATE)),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


WAITING, AUGMENTATION, AVERAGE = "waiting for data", "copy and augmentation", "moving average"


class Rehearsal:
    """Network, loss and optimisers as a run begins with them, and the batches of its first epochs.

    Args:
        inputs: the opened dataset.
        config: of the run.
        device: where to train.

    Raises:
        SettingsError: torchrun started this process with others.
    """

    def __init__(self, inputs: TrainingInputs, config: RunConfig, device: torch.device) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise SettingsError(
                f"a dry run or profile in {os.environ['WORLD_SIZE']} processes",
                "one: it measures a process that trains alone",
                "start keyreid-train without torchrun",
            )
        self.inputs, self.config, self.device = inputs, config, device
        self.state = build_state(config.model_config(inputs.labels), config.training, device)
        cosine_schedule(self.state.optimizer, config.training).step(0)
        self._batches = self._endless()
        self._done = 0

    def steps(self, number: int) -> None:
        """Some training steps, and the wait for the last of them."""
        for _ in range(number):
            self._train(*next(self._batches))
        self.synchronize()

    def skip(self, number: int) -> None:
        """Take some batches and leave them."""
        for _ in range(number):
            next(self._batches)

    def phases(self, number: int) -> dict[str, float]:
        """Seconds a step of each phase, over some more steps; slower in all, since each phase waits for the device."""
        phases = Phases(self.synchronize)
        with watched(self.state, phases):
            for _ in range(number):
                phases.enter(WAITING)
                epoch, batch = next(self._batches)
                phases.enter(AUGMENTATION)
                self._train(epoch, batch, before_average=lambda: phases.enter(AVERAGE))
                phases.enter(None)
        return {name: seconds / number for name, seconds in phases.seconds.items()}

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _train(self, epoch: int, batch: ClipBatch, before_average: Callable[[], None] = lambda: None) -> None:
        train_step(self.state, batch.to(self.device), self.config, epoch)
        before_average()
        self._done += 1
        self.state.average.update(self._done)

    def _endless(self) -> Iterator[tuple[int, ClipBatch]]:
        for epoch in count():
            for batch in self.inputs.loader.epoch(epoch):
                yield epoch, batch


STEPS = 3  # measured at least; the one before them loads kernels and starts workers
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
        yield f"step        {self.seconds_per_step:.3f} s, {rate:,.1f} clips/s on {self.device}"
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


WARMUP = 3  # steps before the profile
ROWS = 12  # of the table


def profile_steps(inputs: TrainingInputs, config: RunConfig, device: torch.device, run: Path) -> tuple[Path, list[str]]:
    """Train for a few steps; RUN/profile/trace.json is for chrome://tracing or ui.perfetto.dev.

    Returns:
        The path of the trace, and a table for a terminal: phases of a step, then the operators that take most.
    """
    rehearsal = Rehearsal(inputs, config, device)
    rehearsal.steps(WARMUP)
    phases = rehearsal.phases(STEPS)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        rehearsal.steps(STEPS)
    path = run / "profile" / "trace.json"
    commit_file(path, lambda partial: profiler.export_chrome_trace(str(partial)))
    return path, [*_phase_lines(phases), "", *_operator_lines(profiler, on_device=device.type == "cuda")]


def _phase_lines(phases: dict[str, float]) -> list[str]:
    whole = sum(phases.values())
    head = f"{'ms per step':>11}  share  phase"
    return [head, *(f"{1000 * s:11.1f}  {100 * s / whole:4.1f} %  {name}" for name, s in phases.items())]


def _operator_lines(profiler: profile, *, on_device: bool) -> list[str]:
    """Operators by the time of their own kernels, or on a CPU by their own time."""
    own = "self_device_time_total" if on_device else "self_cpu_time_total"
    # A kernel is listed once more as an event of the device: its operator has the time already.
    operators = [event for event in profiler.key_averages() if event.device_type == DeviceType.CPU]
    events = sorted(operators, key=lambda event: getattr(event, own), reverse=True)
    whole = sum(getattr(event, own) for event in events) or 1
    head = f"{'ms per step':>11}  share  calls  operator, by its own time on the {'device' if on_device else 'CPU'}"
    return [
        head,
        *(
            f"{getattr(event, own) / 1000 / STEPS:11.1f}  {100 * getattr(event, own) / whole:4.1f} %  "
            f"{event.count / STEPS:5.0f}  {event.key[:60]}"
            for event in events[:ROWS]
        ),
    ]
