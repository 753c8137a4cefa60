"""The processes that read frames: how many, and what they need to be told."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress

import torch

from keyreid.pipeline.errors import KeyReIDError

DEATHS = (RuntimeError, ConnectionError, EOFError)  # what waiting for a batch raises where a worker died
SIGNAL_SECONDS = 2.0  # the signal of a death is later than the broken connection by far less
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def default_workers(device: torch.device) -> int:
    """As many as a CUDA device keeps busy, up to the cores there are; none on a CPU, where the network needs them."""
    return min(8, len(os.sched_getaffinity(0))) if device.type == "cuda" else 0


def ignore_stop_signals(worker: int) -> None:
    """For DataLoader's worker_init_fn: a cluster signals every process of a job, and the trainer, which will finish its
    step, still needs its workers; they end with it, at once where the system can do that."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with suppress(AttributeError, OSError):  # Linux alone; else DataLoader ends an orphan within five seconds
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


def worker_death(error: Exception) -> KeyReIDError | None:
    """A worker process that died, in one line; None for any other error.

    Args:
        error: one of DEATHS, raised while waiting for a batch.
    """
    if isinstance(error, (ConnectionError, EOFError)):  # it died while it handed a batch over
        error = _signalled() or error
    elif "DataLoader worker" not in str(error):
        return None
    return KeyReIDError(
        f"a process that reads frames died ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
        "",
        "it may have run out of memory: use fewer --workers, or more shared memory (/dev/shm)",
    )


def _signalled() -> RuntimeError | None:
    """What DataLoader's handler of SIGCHLD raises, wherever this process is when the signal comes; so it comes here."""
    try:
        time.sleep(SIGNAL_SECONDS)
    except RuntimeError as error:
        return error
    return None
