"""How a run ends before its time: signals, and errors of libraries as messages that say what to do; and its memory."""

from __future__ import annotations

import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from keyreid.model.data.reading import STOP_SIGNALS, worker_death
from keyreid.model.distributed import EndedTogether
from keyreid.pipeline.commit import FULL
from keyreid.pipeline.errors import KeyReIDError, NotEnoughMemoryError

from .config import RunConfig

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


@contextmanager
def explained(config: RunConfig, device: torch.device) -> Iterator[None]:
    """Within, running out of memory or of disk raises a KeyReIDError, and so does the death of a worker process."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # DataLoader raises it in a signal handler, wherever the trainer is at that moment.
        death = worker_death(error) if isinstance(error, RuntimeError) else None
        if death is not None:
            raise death from error
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in _NO_MEMORY):
            raise
        raise _out_of_memory(config, device, error) from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise KeyReIDError(
            f"there is no room to write the run ({error})",
            "",
            "free some space; run the same command with --resume",
        ) from error


def _out_of_memory(config: RunConfig, device: torch.device, error: BaseException) -> NotEnoughMemoryError:
    training = config.training
    height, width = config.model.frame_size
    size = f"{training.clips_per_batch} clips of {config.model.clip_length} frames of {height}x{width}"
    recompute = "training.checkpoint_blocks=true recomputes the blocks in the backward pass, with the same result; or "
    smaller = "smaller batches: training.batch_scale, training.identities_per_batch, training.clips_per_identity"
    return NotEnoughMemoryError(
        f"the {device.type} has no memory left for batches of {size} "
        f"({str(error).splitlines()[0] if str(error) else type(error).__name__})",
        "",
        f"--set {'' if training.checkpoint_blocks else recompute}{smaller}",
    )


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
            "run the same command with --resume",
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


_MIB = 1 << 20


def peak_memory(device: torch.device) -> dict[str, int]:
    """MiB of this process's host memory, without its worker processes, and of the CUDA device's, where there is one."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = {"host_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // _MIB}
    if device.type == "cuda":
        peaks["device_peak_mib"] = torch.cuda.max_memory_allocated(device) // _MIB
    return peaks
