"""What the processes that read training data need to be told."""

from __future__ import annotations

import signal

from keyreid.pipeline.errors import KeyReIDError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


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
        f"a process that reads training data died ({str(error).splitlines()[0]})",
        "",
        "it may have run out of memory: use fewer --workers, or more shared memory (/dev/shm)",
    )
