"""What the processes that read training data need to be told."""

from __future__ import annotations

import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def ignore_stop_signals(worker: int) -> None:
    """For DataLoader's worker_init_fn: a cluster signals every process of a job, and the trainer, which will finish its
    step, still needs its workers; they end with it."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
