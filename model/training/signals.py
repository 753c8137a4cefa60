"""SIGTERM and SIGUSR1, with which clusters ask a job to leave: the step is finished, the state saved, the run ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from keyreid.model.data.reading import STOP_SIGNALS
from keyreid.model.distributed import EndedTogether

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: come back later


class TrainingStopped(EndedTogether):
    """A signal ended a run that can go on."""


class StopRequest:
    """Whether a signal has come.

    Attributes:
        signal_name: such as "SIGTERM"; "" before one came.
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self._saved: Path | None = None

    @property
    def requested(self) -> bool:
        return bool(self.signal_name)

    @contextmanager
    def at_once(self, checkpoint: Path) -> Iterator[None]:
        """Within, a signal raises TrainingStopped where it strikes: for long work that may be lost, after a save."""
        self._saved = checkpoint
        try:
            if self.requested:
                raise self.stopped(checkpoint)
            yield
        finally:
            self._saved = None

    def stopped(self, checkpoint: Path) -> TrainingStopped:
        """What ends the run once `checkpoint` holds its state."""
        return TrainingStopped(
            f"stopped by {self.signal_name or 'a signal to another process of the run'}; "
            f"everything up to here is saved in {checkpoint}",
            "",
            "the same command with --resume goes on",
        )

    def remember(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.signal_name = signal.Signals(number).name
        if self._saved is not None:
            raise self.stopped(self._saved)


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Within, SIGTERM and SIGUSR1 are remembered instead of ending the process. Only a main thread can do that."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.remember) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
