"""Several processes that share one run, as torchrun starts them; one process is the case without others.

torchrun tells each process its place in the environment (RANK, WORLD_SIZE, LOCAL_RANK). Gradients travel by NCCL
between CUDA devices and by gloo between CPUs. A second, gloo group carries what only the hosts have to agree on, so
that no device waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from keyreid.pipeline.errors import KeyReIDError, SettingsError

PATIENCE = timedelta(hours=6)  # how long the others wait while the first one measures or saves

Result = TypeVar("Result")


class EndedElsewhere(KeyReIDError):
    """This process ends because another one of the run did, and that one says why."""

    def __init__(self, *_: str) -> None:
        super().__init__("another process of this run ended", "", "its message says why")


class EndedTogether(KeyReIDError):
    """Every rank raises it at the same point, so that none waits for another."""


def is_first_process() -> bool:
    """Whether this process speaks for the run, before and after the ranks have joined, too."""
    return int(os.environ.get("RANK", "0")) == 0


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run.

    Attributes:
        rank: from 0.
        size: how many there are.
        local_rank: rank among those on this machine; the number of its CUDA device.
        hosts: the group in which the hosts talk; None where this process is alone.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    hosts: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the ranks, on its device."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.size

    def collect(self, value: Any) -> list[Any]:
        """A small value of every rank, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.hosts)
        return values

    def together(self, work: Callable[[], Result]) -> Result:
        """Do the same on every rank; if it fails on some, the first of them raises its error and the others end too."""
        error: Exception | None = None
        try:
            result = work()
        except Exception as caught:
            error = caught
        failed = self.collect(error is not None)
        if error is not None and failed.index(True) == self.rank:
            raise error
        if any(failed):
            raise EndedElsewhere()
        return result

    def first_alone(self, work: Callable[[], Any]) -> None:
        """Let the first rank do something while the others wait; see `together` for errors."""
        self.together(lambda: work() if self.is_first else None)


class StopVote:
    """Makes the ranks stop after the same step, whichever of them a signal reached.

    What a rank says after one step is heard by all after the next: the exchange travels while that step computes.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._under_way: tuple[dist.Work, Tensor] | None = None

    def cast(self, wants_to_stop: bool) -> bool:
        """Called by every rank after every step; whether all stop now."""
        if self._ranks.size == 1:
            return wants_to_stop
        decided = self._decided()
        vote = torch.tensor(int(wants_to_stop))
        work = dist.all_reduce(vote, dist.ReduceOp.MAX, group=self._ranks.hosts, async_op=True)
        self._under_way = (work, vote)
        return decided

    def close(self) -> None:
        """Wait for the last exchange."""
        self._decided()
        self._under_way = None

    def _decided(self) -> bool:
        if self._under_way is None:
            return False
        work, vote = self._under_way
        work.wait()
        return bool(vote)


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes that torchrun started; yields this one's place and device. A group that is there is used.

    Raises:
        SettingsError: the environment names other processes and not how to reach them, or too few CUDA devices.
        EndedElsewhere: another process ended while this one was waiting for it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(), device
        return
    place, started_here = _place(), not dist.is_initialized()
    if device.type == "cuda":
        device = _local_device(place.local_rank)
    if started_here and device.type == "cuda":
        dist.init_process_group("nccl", device_id=device)
    elif started_here:
        dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield replace(place, hosts=dist.new_group(backend="gloo", timeout=PATIENCE)), device
    except EndedTogether:
        _leave(started_here)
        raise
    except RuntimeError as error:
        if _is_lost_connection(error):
            raise EndedElsewhere() from error
        raise
    _leave(started_here)


def _leave(started_here: bool) -> None:
    """After other errors than EndedTogether nobody calls this: NCCL might wait for the ranks that failed."""
    if started_here:
        dist.destroy_process_group()


def _place() -> Ranks:
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise SettingsError(
            f"the environment has WORLD_SIZE={os.environ['WORLD_SIZE']} and no {', '.join(missing)}",
            "what torchrun sets",
            "start the command with torchrun, or unset WORLD_SIZE to run one process",
        )
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return Ranks(rank, size, local_rank)


def _local_device(local_rank: int) -> torch.device:
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise SettingsError(
            f"process {local_rank} of this machine has no CUDA device of its own: torch sees {count}",
            "a device for each process",
            f"start torchrun with --nproc-per-node {count}",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether a collective failed because its other end is gone; gloo and NCCL say so in words only."""
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "gloo", "Gloo")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)
