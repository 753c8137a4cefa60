"""Where the time of a training step goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .state import TrainingState

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
