"""The processes that read frames: how many, and what they need to be told."""

from __future__ import annotations

import os
import signal

import torch

from keyreid.pipeline.errors import KeyReIDError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def default_workers(device: torch.device) -> int:
    """As many as a CUDA device keeps busy, up to the cores there are; none on a CPU, where the network needs them."""
    return min(8, len(os.sched_getaffinity(0))) if device.type == "cuda" else 0


def ignore_stop_signals(worker: int) -> None:
    """For DataLoader's worker_init_fn: a cluster signals every process of a job, and the trainer, which will finish its
    step, still needs its workers; they end with it."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def worker_death(error: RuntimeError) -> KeyReIDError | None:
    """What DataLoader says of a worker process that died, in one line; None for any other error."""
    if "DataLoader worker" not in str(error):
        return None
    return KeyReIDError(
        f"a process that reads frames died ({str(error).splitlines()[0]})",
        "",
        "it may have run out of memory: use fewer --workers, or more shared memory (/dev/shm)",
    )
