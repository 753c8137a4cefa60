"""All that training changes, and how it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from keyreid.model.data.sampler import torch_seed
from keyreid.model.distributed import Ranks
from keyreid.model.network.build import build_model
from keyreid.model.network.config import ModelConfig
from keyreid.model.network.keyreid import KeyReID
from keyreid.model.precision import compute_dtype, gradient_scaler
from keyreid.pipeline.skeleton import NUM_PARTS

from .config import TrainingConfig
from .ema import MovingAverage
from .learner import Learner, compile_mode, distribute
from .losses import KeyReIDLoss
from .schedule import build_center_optimizer, build_optimizer


@dataclass(frozen=True)
class TrainingState:
    """All that training changes.

    Attributes:
        model: the network.
        average: its moving average.
        loss: holds the class centres.
        learner: both of them, as training calls them; see learner.distribute.
        optimizer, center_optimizer: of the network and of the centres.
        scaler: of the loss, where the network computes in float16.
    """

    model: KeyReID
    average: MovingAverage[KeyReID]
    loss: KeyReIDLoss
    learner: nn.Module
    optimizer: Optimizer
    center_optimizer: Optimizer
    scaler: GradScaler

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "average": self.average.module, "loss": self.loss}

    def optimizers(self) -> dict[str, Optimizer]:
        return {"optimizer": self.optimizer, "center_optimizer": self.center_optimizer}


def build_state(
    model_config: ModelConfig,
    config: TrainingConfig,
    device: torch.device,
    ranks: Ranks | None = None,
    adopt: Callable[[KeyReID], None] | None = None,
) -> TrainingState:
    """The state before the first step; its random weights are a function of the seed.

    `adopt`, where it is given, fills the new network with weights in place of the backbone's.
    """
    ranks = ranks or Ranks()
    torch.manual_seed(torch_seed("weights", config.seed))
    model = build_model(model_config, load_backbone=adopt is None).train()
    if adopt is not None:
        adopt(model)
    model.backbone.checkpoint_blocks = config.recomputed_blocks
    loss = KeyReIDLoss(
        num_identities=model_config.num_identities,
        global_width=model.global_head.classifier.in_features,
        part_width=model.part_heads.classifiers.shape[2],
        num_parts=NUM_PARTS,
        config=config,
    )
    model.to(device)
    loss.to(device)
    average = MovingAverage(model, config.ema_decay)
    dtype = compute_dtype(device, config.mixed_precision)
    scaler = gradient_scaler(device, dtype)
    gather = ranks if config.gather and ranks.size > 1 else None
    learner = Learner(model, loss, dtype=dtype, gather=gather, compiling=compile_mode(config.compile, device))
    return TrainingState(
        model,
        average,
        loss,
        distribute(learner, ranks),
        build_optimizer(model, config, scaled=scaler.is_enabled()),
        build_center_optimizer(loss, config, scaled=scaler.is_enabled()),
        scaler,
    )
