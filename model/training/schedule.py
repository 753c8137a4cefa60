"""The two optimisers and the learning rate of an epoch."""

from __future__ import annotations

from typing import Any

import torch
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from .config import TrainingConfig


def build_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """The network's optimiser: two groups, weights and biases, which differ in their learning rate."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in trained if not name.endswith("bias")], "lr": config.learning_rate},
        {
            "params": [p for name, p in trained if name.endswith("bias")],
            "lr": config.learning_rate * config.bias_rate_factor,
        },
    ]
    at_once = _at_once(trained[0][1].device)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay, **at_once)
    return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay, **at_once)


def build_center_optimizer(loss: nn.Module, config: TrainingConfig) -> Optimizer:
    """The centres' optimiser: plain SGD; see `scale_center_gradients`."""
    parameters = list(loss.parameters())
    return torch.optim.SGD(parameters, lr=config.center_rate, **_at_once(parameters[0].device))


def _at_once(device: torch.device) -> dict[str, Any]:
    """On CUDA all parameters in one kernel, which also spares the gradient scaler a wait for the device."""
    return {"fused": True} if device.type == "cuda" else {"foreach": True}


def scale_center_gradients(optimizer: Optimizer, config: TrainingConfig) -> None:
    """Divide the centres' gradient by the centre loss's weight, so that its smallness does not slow them."""
    for group in optimizer.param_groups if config.center_weight else ():
        for centers in group["params"]:
            centers.grad.div_(config.center_weight)


def cosine_schedule(optimizer: Optimizer, config: TrainingConfig) -> CosineLRScheduler:
    """timm's schedule; call .step(epoch) at the start of epoch 0, 1, ...

    From warmup_rate straight to each group's own rate over warmup_epochs, then along the cosine, which has been running
    since epoch 0, to final_rate; both ends are the same for weights and biases, as in timm.
    """
    return CosineLRScheduler(
        optimizer,
        t_initial=config.epochs,
        lr_min=config.final_rate,
        warmup_t=config.warmup_epochs,
        warmup_lr_init=config.warmup_rate,
    )
