"""The two optimisers and the learning rate of an epoch."""

from __future__ import annotations

from typing import Any

import torch
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from .config import TrainingConfig


def build_optimizer(model: nn.Module, config: TrainingConfig, *, scaled: bool = False) -> Optimizer:
    """The network's optimiser: two groups, weights and biases, which differ in their learning rate.

    Args:
        model: what is trained.
        config: the recipe.
        scaled: whether a gradient scaler may skip steps.
    """
    rate = config.learning_rate * config.batch_scale
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in trained if not name.endswith("bias")], "lr": rate},
        {"params": [p for name, p in trained if name.endswith("bias")], "lr": rate * config.bias_rate_factor},
    ]
    kernels = optimizer_kernels(trained[0][1].device, scaled)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay, **kernels)
    return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay, **kernels)


def build_center_optimizer(loss: nn.Module, config: TrainingConfig, *, scaled: bool = False) -> Optimizer:
    """The centres' optimiser: plain SGD; see `scale_center_gradients`."""
    parameters = list(loss.parameters())
    rate = config.center_rate * config.batch_scale
    return torch.optim.SGD(parameters, lr=rate, **optimizer_kernels(parameters[0].device, scaled))


def optimizer_kernels(device: torch.device, scaled: bool) -> dict[str, Any]:
    """How an optimiser updates all parameters at once: on CUDA in one kernel, unless a gradient scaler is at work.

    torch's fused SGD takes memory for its momentum as it finds it, and fills it in the first step. Where that step is
    skipped, since its gradients overflowed, the second one adds whatever lay there to the weights.
    """
    return {"fused": True} if device.type == "cuda" and not scaled else {"foreach": True}


def scale_center_gradients(optimizer: Optimizer, config: TrainingConfig) -> None:
    """Divide the centres' gradient by the centre loss's weight, so that its smallness does not slow them."""
    for group in optimizer.param_groups if config.center_weight else ():
        for centers in group["params"]:
            centers.grad.div_(config.center_weight)


def cosine_schedule(optimizer: Optimizer, config: TrainingConfig) -> CosineLRScheduler:
    """timm's schedule; call .step(epoch) at the start of epoch 0, 1, ...

    From warmup_rate straight to each group's own rate over warmup_epochs, then along the cosine, which has been running
    since epoch 0, to final_rate; both ends are the same for weights and biases, as in timm. batch_scale multiplies all
    but warmup_rate.
    """
    return CosineLRScheduler(
        optimizer,
        t_initial=config.epochs,
        lr_min=config.final_rate * config.batch_scale,
        warmup_t=config.warmup_epochs,
        warmup_lr_init=config.warmup_rate,
    )
