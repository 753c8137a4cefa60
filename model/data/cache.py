"""Decoded frames and heatmaps that are kept, up to a limit: in memory of the host or of the device."""

from __future__ import annotations

import logging
import os

import numpy as np
import torch
from torch import Tensor

from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.shards import HEATMAP_HEIGHT, HEATMAP_WIDTH
from keyreid.pipeline.skeleton import NUM_PARTS

log = logging.getLogger(__name__)

_HEATMAP = (NUM_PARTS, HEATMAP_HEIGHT, HEATMAP_WIDTH)
GIGABYTE = 10**9


class FrameCache:
    """The first `capacity` training frames, filled as they are first read; a capacity of 0 keeps none.

    It lives in the process that trains: workers are only asked for what is not there, so it is never multiplied by
    their number, and nothing about it depends on how they are started. All memory is set aside at the beginning.

    Args:
        num_rows: training frames.
        frame_size: H, W.
        limit: bytes that it may take.
        device: where it keeps them.
    """

    def __init__(self, num_rows: int, frame_size: tuple[int, int], limit: int, device: torch.device) -> None:
        frame = (3, *frame_size)
        each = int(np.prod(frame) + np.prod(_HEATMAP))
        self.device, self.capacity = device, min(num_rows, limit // each)
        self._claimed, self._filled = np.zeros(num_rows, bool), np.zeros(num_rows, bool)
        size = self.capacity * each
        try:
            if device.type == "cpu" and size > _physical_memory():
                raise RuntimeError(f"this machine has {_physical_memory() / GIGABYTE:.1f} GB")
            self._frames = torch.empty((self.capacity, *frame), dtype=torch.uint8, device=device)
            self._heatmaps = torch.empty((self.capacity, *_HEATMAP), dtype=torch.uint8, device=device)
        except RuntimeError as error:
            raise SettingsError(
                f"a cache of {size / GIGABYTE:.1f} GB does not fit on {device} ({str(error).splitlines()[0]})",
                "less than the memory there",
                "lower --cache-gigabytes",
            ) from error

    def report(self) -> None:
        """Log how much there is room for; as a warning where that is not everything."""
        rows, size = len(self._filled), (self._frames.nbytes + self._heatmaps.nbytes) / GIGABYTE
        level = logging.WARNING if self.capacity < rows else logging.INFO
        log.log(level, "cache on %s: %.2f GB for %d of %d training frames", self.device, size, self.capacity, rows)

    def claim(self, rows: np.ndarray) -> np.ndarray:
        """Which of some different rows have to be read, bool; they count as read from here on."""
        wanted = ~self._claimed[rows]
        self._claimed[rows] = rows < self.capacity
        return wanted

    def drop_claims(self) -> None:
        """Forget what was claimed and never put: an epoch may be left early."""
        self._claimed[:] = self._filled

    def holds(self, rows: np.ndarray) -> np.ndarray:
        """Which rows are here, bool."""
        return self._filled[rows]

    def put(self, rows: np.ndarray, frames: Tensor, heatmaps: Tensor) -> None:
        """Keep those of some rows that have a place here; uint8 (n, 3, H, W) and (n, P, 64, 32) on any device."""
        places = np.flatnonzero(rows < self.capacity)
        if not len(places):
            return
        here = torch.from_numpy(places).to(frames.device, non_blocking=True)
        target = torch.from_numpy(rows[places]).to(self.device, non_blocking=True)
        self._frames.index_copy_(0, target, frames[here].to(self.device))
        self._heatmaps.index_copy_(0, target, heatmaps[here].to(self.device))
        self._filled[rows[places]] = True

    def get(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Frames and heatmaps of rows that are here, in their order, on `device`."""
        index = torch.from_numpy(rows).to(self.device, non_blocking=True)
        return _gather(self._frames, index, device), _gather(self._heatmaps, index, device)


def _gather(kept: Tensor, index: Tensor, device: torch.device) -> Tensor:
    if kept.device.type == device.type:
        return kept[index]
    gathered = torch.empty((len(index), *kept.shape[1:]), dtype=kept.dtype, pin_memory=True)
    torch.index_select(kept, 0, index, out=gathered)
    return gathered.to(device, non_blocking=True)


def _physical_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
