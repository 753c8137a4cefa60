"""Loss terms of the last steps, read from the device every so often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keyreid.model.distributed import EndedElsewhere, Ranks
from keyreid.pipeline.errors import KeyReIDError

from .losses import LossTerms


class StepLog:
    """Collects loss terms of one epoch on the device; reading them makes the host wait, and checks all of them.

    A loss that is not finite is found at the next reading, which comes before anything is saved.

    Args:
        epoch: named in the message of a loss that is not finite.
        ranks: terms are means over them.
        checkpoint: of the run, named there too.
        remembered: `state` of a log that goes on.
    """

    def __init__(self, epoch: int, ranks: Ranks, checkpoint: Path, remembered: dict[str, Any] | None = None) -> None:
        remembered = remembered or {"sum": [0.0] * len(LossTerms._fields), "count": 0, "unreported": []}
        self._epoch, self._ranks, self._checkpoint = epoch, ranks, checkpoint
        self._sum, self._count = torch.tensor(remembered["sum"]), int(remembered["count"])
        self._read = [torch.tensor(row) for row in remembered["unreported"]]
        self._unread: list[Tensor] = []
        self._places: list[tuple[int, list[int]]] = []

    def add(self, step: int, tracklet_ids: list[int], terms: LossTerms) -> None:
        self._unread.append(torch.stack([term.detach() for term in terms]))
        self._places.append((step, tracklet_ids))

    def flush(self) -> dict[str, float]:
        """Mean terms since the last flush.

        Raises:
            KeyReIDError: a loss was NaN or infinite.
        """
        self.read()
        values = torch.stack(self._read)
        self._sum, self._count, self._read = self._sum + values.sum(0), self._count + len(values), []
        return _named(values.mean(0))

    def read(self) -> None:
        """Fetch the terms that are still on the device; every rank does so at the same step.

        Raises:
            KeyReIDError: a loss was NaN or infinite.
        """
        if not self._unread:
            return
        values = self._ranks.mean(torch.stack(self._unread)).cpu()
        for (step, tracklet_ids), row in zip(self._places, values, strict=True):
            if not row.isfinite().all():
                self._refuse(step, tracklet_ids, row)
        self._read += list(values)
        self._unread, self._places = [], []

    def state(self) -> dict[str, Any]:
        """What `remembered` takes, after `read`: float32 values as numbers that JSON gives back exactly."""
        return {"sum": self._sum.tolist(), "count": self._count, "unreported": [row.tolist() for row in self._read]}

    def epoch_means(self) -> dict[str, float]:
        """Mean terms over everything flushed."""
        return _named(self._sum / max(1, self._count))

    @property
    def pending(self) -> int:
        """Steps since the last flush."""
        return len(self._read) + len(self._unread)

    def _refuse(self, step: int, tracklet_ids: list[int], row: Tensor) -> None:
        everyones = [number for ids in self._ranks.collect(tracklet_ids) for number in ids]
        if not self._ranks.is_first:
            raise EndedElsewhere()
        terms = ", ".join(f"{name} {value:.4g}" for name, value in _named(row).items())
        kept = (
            f"the last checkpoint is from before it: {self._checkpoint}"
            if self._checkpoint.exists()
            else "there is no checkpoint yet"
        )
        raise KeyReIDError(
            f"the loss is not finite in epoch {self._epoch}, step {step} ({terms}), "
            f"tracklets {', '.join(map(str, everyones))}; {kept}",
            "a finite loss",
            "lower training.learning_rate or set training.clip_gradient",
        )


def _named(row: Tensor) -> dict[str, float]:
    return {name: float(value) for name, value in zip(LossTerms._fields, row, strict=True)}
