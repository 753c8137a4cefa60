"""Loss terms of the last steps, read from the device every so often."""

from __future__ import annotations

import torch
from torch import Tensor

from keyreid.pipeline.errors import KeyReIDError

from .losses import LossTerms


class StepLog:
    """Collects loss terms on the device; `flush` waits for it once and checks all of them.

    A loss that is not finite is found at the next flush, before anything is saved.
    """

    def __init__(self) -> None:
        self._terms: list[Tensor] = []
        self._places: list[tuple[int, int, list[int]]] = []
        self._sum, self._count = torch.zeros(len(LossTerms._fields)), 0

    def add(self, epoch: int, step: int, tracklet_ids: list[int], terms: LossTerms) -> None:
        self._terms.append(torch.stack([term.detach() for term in terms]))
        self._places.append((epoch, step, tracklet_ids))

    def flush(self) -> dict[str, float]:
        """Mean terms since the last flush.

        Raises:
            KeyReIDError: a loss was NaN or infinite.
        """
        values = torch.stack(self._terms).cpu()
        for (epoch, step, tracklet_ids), row in zip(self._places, values, strict=True):
            if not row.isfinite().all():
                terms = ", ".join(f"{name} {value:.4g}" for name, value in _named(row).items())
                raise KeyReIDError(
                    f"the loss is not finite in epoch {epoch}, step {step} ({terms}), "
                    f"tracklets {', '.join(map(str, tracklet_ids))}",
                    "a finite loss",
                    "lower training.learning_rate or set training.clip_gradient; the last checkpoint is from before it",
                )
        self._sum, self._count = self._sum + values.sum(0), self._count + len(values)
        self._terms, self._places = [], []
        return _named(values.mean(0))

    def epoch_means(self) -> dict[str, float]:
        """Mean terms over everything flushed."""
        return _named(self._sum / max(1, self._count))

    @property
    def pending(self) -> int:
        return len(self._terms)


def _named(row: Tensor) -> dict[str, float]:
    return {name: float(value) for name, value in zip(LossTerms._fields, row, strict=True)}
