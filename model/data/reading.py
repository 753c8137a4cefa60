"""Clips of a prepared dataset, read and decoded in worker processes: for training, evaluation and embedding alike.

Letters: n clips, T frames, P parts, H x W a frame.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from keyreid.pipeline.errors import KeyReIDError
from keyreid.pipeline.store import TrackletStore

from .decode import decode_frame

SIGNAL_SECONDS = 2.0  # the signal of a death is later than the broken connection by far less
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class ClipPlan:
    """Which frames make n clips.

    Attributes:
        tracklet_ids: of each clip, n numbers.
        frames: int64 (n, T), which of its tracklet's readable frames each place of a clip shows.
    """

    tracklet_ids: list[int]
    frames: np.ndarray


Plan = TypeVar("Plan", bound=ClipPlan)


@dataclass(frozen=True)
class HostClips(Generic[Plan]):
    """Clips in host memory.

    Attributes:
        plan: what was asked for.
        frames: uint8 (n, T, 3, H, W), RGB; channels last in memory.
        heatmaps: uint8 (n, T, P, 64, 32), 255 for 1.0.
    """

    plan: Plan
    frames: Tensor
    heatmaps: Tensor

    def pin_memory(self) -> HostClips[Plan]:
        """In pinned memory, from which copies to a device overlap with the host; DataLoader calls it."""
        return replace(self, frames=self.frames.pin_memory(), heatmaps=self.heatmaps.pin_memory())


def read_clips(store: TrackletStore, plan: Plan, frame_size: tuple[int, int]) -> HostClips[Plan]:
    """Read the clips of a plan, its frames resized to `frame_size` (H, W).

    Raises:
        FormatError: a shard was changed, or a frame cannot be read or decoded.
    """
    frames, heatmaps = [], []
    for tracklet_id, clip in zip(plan.tracklet_ids, plan.frames.tolist(), strict=True):
        images, of_clip = store.read(tracklet_id, clip)
        heatmaps.append(of_clip)
        with store.reading(tracklet_id):
            frames += [decode_frame(image, frame_size) for image in images]
    # Decoders leave the channels last in memory; a copy that keeps them there is several times faster.
    stacked = torch.stack([frame.permute(1, 2, 0) for frame in frames]).permute(0, 3, 1, 2)
    return HostClips(plan, stacked.unflatten(0, plan.frames.shape), torch.from_numpy(np.stack(heatmaps)))


class ClipLoader(Generic[Plan]):
    """The clips of some plans, in order; the same whatever the number of workers and the way they start.

    Args:
        store: where the frames are.
        plans: iterated once per pass.
        frame_size: H, W.
        num_workers: processes that read and decode; 0 does it in this one.
        pin_memory: see HostClips.pin_memory.
        keep_workers: between passes.
        start_method: of the workers: "fork", "spawn" or "forkserver"; None: the system's.
    """

    def __init__(
        self,
        store: TrackletStore,
        plans: Iterable[Plan],
        frame_size: tuple[int, int],
        *,
        num_workers: int,
        pin_memory: bool,
        keep_workers: bool = False,
        start_method: str | None = None,
    ) -> None:
        self._loader: DataLoader = DataLoader(
            _Reader(store, frame_size),
            sampler=plans,
            batch_size=None,  # a plan is a whole batch
            num_workers=num_workers,
            worker_init_fn=ignore_stop_signals,
            persistent_workers=keep_workers and num_workers > 0,
            multiprocessing_context=start_method if num_workers else None,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # leaves the global generator alone
        )
        # Workers ignore SIGTERM, with which Python would end them when it exits, and then wait for them for ever.
        weakref.finalize(self, _end_workers, self._loader)

    def __iter__(self) -> Iterator[HostClips[Plan]]:
        """One pass.

        Raises:
            KeyReIDError: what a worker raised, or that one died.
        """
        try:
            for read in self._loader:
                if isinstance(read, KeyReIDError):
                    raise read
                yield read
        except (RuntimeError, ConnectionError, EOFError) as error:  # what waiting for a batch raises where one died
            death = worker_death(error)
            if death is None:
                raise
            raise death from error


class _Reader(Dataset):
    """Plan -> its clips. An error comes back as a value: DataLoader would bury it in a worker's traceback."""

    def __init__(self, store: TrackletStore, frame_size: tuple[int, int]) -> None:
        self._store, self._frame_size = store, frame_size

    def __getitem__(self, plan: ClipPlan) -> HostClips[ClipPlan] | KeyReIDError:
        try:
            return read_clips(self._store, plan, self._frame_size)
        except KeyReIDError as error:
            return error


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
    """A worker process that died, in one line; None for any other error that waiting for its clips raised."""
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


def _end_workers(loader: DataLoader) -> None:
    iterator: Any = loader._iterator
    if iterator is not None:
        iterator._shutdown_workers()
