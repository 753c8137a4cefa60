"""A few real steps on real batches, of which nothing is kept: what --dry-run and --profile measure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count

import torch

from keyreid.model.data.batch import ClipBatch
from keyreid.pipeline.errors import SettingsError

from .config import RunConfig
from .inputs import TrainingInputs
from .phases import Phases, watched
from .schedule import cosine_schedule
from .state import build_state
from .step import train_step

WAITING, AUGMENTATION, AVERAGE = "waiting for data", "copy and augmentation", "moving average"


class Rehearsal:
    """Network, loss and optimisers as a run begins with them, and the batches of its first epochs.

    Args:
        inputs: the opened dataset.
        config: of the run.
        device: where to train.

    Raises:
        SettingsError: torchrun started this process beside others.
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
