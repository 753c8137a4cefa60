"""The moving average of the weights that is evaluated and exported."""

from __future__ import annotations

from timm.utils import ModelEmaV3
from torch import nn


def moving_average(model: nn.Module, decay: float) -> ModelEmaV3:
    """An average of parameters and BatchNorm statistics; call .update(model, step=n) after the n-th step, from 1.

    The decay rises as min(decay, (n - 1) / (n + 8)): a constant 0.995 would leave a third of the random start in the
    average after 200 steps.
    """
    return ModelEmaV3(model, decay=decay, use_warmup=True, warmup_gamma=9, warmup_power=1)
