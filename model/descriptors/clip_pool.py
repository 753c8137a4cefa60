"""Clips -> tracklets while they come, so that memory holds few clips."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..network.config import ModelConfig
from ..network.keyreid import ClipDescriptors, concatenate, pool_clips


class ClipPool:
    """Collects clips in order of their tracklets and pools a tracklet as soon as its last clip is there.

    Attributes:
        values: float32 (K, D), the descriptors; rows of tracklets that are not pooled yet are 0.
        visibility: float32 (K, P); (K, 0) in the `reference` variant, which knows none.
        widths: int64 (1 + P,), columns of `values` that are the global feature's and each part's.
    """

    def __init__(self, num_tracklets: int, config: ModelConfig) -> None:
        self.values = np.zeros((num_tracklets, 0), np.float32)
        self.visibility = np.zeros((num_tracklets, 0), np.float32)
        self.widths: np.ndarray = np.zeros(0, np.int64)
        self._config = config
        self._rows = torch.zeros(0, dtype=torch.int64)
        self._clips: ClipDescriptors | None = None

    @property
    def num_waiting(self) -> int:
        """Clips in memory whose tracklet may get more."""
        return len(self._rows)

    def add(self, rows: Tensor, clips: ClipDescriptors) -> None:
        """Take n clips.

        Args:
            rows: int64 (n,), the tracklet of each clip, in any order; never smaller than the largest that was added
                before.
            clips: on any device.
        """
        clips = each_tensor(lambda values: values.float().cpu(), clips)
        waiting = self._clips
        self._clips = clips if waiting is None else each_tensor(lambda *values: torch.cat(values), waiting, clips)
        self._rows = torch.cat([self._rows, rows])
        self._store(self._rows < rows.max())

    def finish(self) -> None:
        """Say that no clip follows."""
        self._store(torch.ones_like(self._rows, dtype=torch.bool))

    def _store(self, complete: Tensor) -> None:
        if self._clips is None or not complete.any():
            return
        rows, place = torch.unique(self._rows[complete], return_inverse=True)
        pooled = pool_clips(each_tensor(lambda values: values[complete], self._clips), place, len(rows))
        values = concatenate(pooled, self._config).numpy()
        if not self.values.shape[1]:
            self.values = np.zeros((len(self.values), values.shape[1]), np.float32)
            num_parts, part_width = pooled.part_features.shape[1:]
            self.widths = np.array([pooled.global_feature.shape[1]] + [part_width] * num_parts, np.int64)
            seen = num_parts if self._config.variant == "aligned" else 0
            self.visibility = np.zeros((len(self.values), seen), np.float32)
        self.values[rows.numpy()] = values
        if self.visibility.shape[1]:
            self.visibility[rows.numpy()] = pooled.visibility.numpy()
        self._clips = each_tensor(lambda values: values[~complete], self._clips)
        self._rows = self._rows[~complete]


def each_tensor(change: Callable[..., Tensor], *clips: ClipDescriptors) -> ClipDescriptors:
    """Change each of the tensors, or bring those of several together."""
    return ClipDescriptors(
        change(*(one.global_feature for one in clips)),
        change(*(one.part_features for one in clips)),
        change(*(one.visibility for one in clips)),
    )
