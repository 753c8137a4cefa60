"""The moving average of the weights that is evaluated and exported."""

from __future__ import annotations

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Averaged = TypeVar("Averaged", bound=nn.Module)


class MovingAverage(Generic[Averaged]):
    """An average of parameters and BatchNorm statistics; call .update(n) after the n-th step, from 1.

    The decay rises as min(decay, (n - 1) / (n + 8)): a constant 0.995 would leave a third of the random start in the
    average after 200 steps.

    Args:
        model: what is averaged; its tensors must stay the same objects.
        decay: of the average, in the end.

    Attributes:
        module: the average, in eval mode.
    """

    def __init__(self, model: Averaged, decay: float) -> None:
        self.module = deepcopy(model).eval().requires_grad_(False)
        self._decay = decay
        pairs = list(zip(_values(self.module), _values(model), strict=True))
        self._floats = _columns([(own, new) for own, new in pairs if own.is_floating_point()])
        self._counts = _columns([(own, new) for own, new in pairs if not own.is_floating_point()])

    def decay(self, step: int) -> float:
        """Share of the average that the step leaves."""
        return min(self._decay, (step - 1) / (step + 8))

    @torch.no_grad()
    def update(self, step: int) -> None:
        torch._foreach_lerp_(*self._floats, 1 - self.decay(step))
        if self._counts[0]:
            torch._foreach_copy_(*self._counts)


def _values(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _columns(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [own for own, _ in pairs], [new.detach() for _, new in pairs]
