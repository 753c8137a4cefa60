"""All that training changes, and how it begins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from keyreid.model.data.seeds import torch_seed
from keyreid.model.network.build import build_model
from keyreid.model.network.config import ModelConfig
from keyreid.model.network.keyreid import KeyReID
from keyreid.pipeline.skeleton import NUM_PARTS

from .config import TrainingConfig
from .ema import moving_average
from .losses import KeyReIDLoss
from .schedule import build_center_optimizer, build_optimizer


@dataclass(frozen=True)
class TrainingState:
    """All that training changes.

    Attributes:
        model: the network.
        average: its moving average.
        loss: holds the class centres.
        optimizer, center_optimizer: of the network and of the centres.
    """

    model: KeyReID
    average: ModelEmaV3
    loss: KeyReIDLoss
    optimizer: Optimizer
    center_optimizer: Optimizer

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "average": self.average.module, "loss": self.loss}

    def optimizers(self) -> dict[str, Optimizer]:
        return {"optimizer": self.optimizer, "center_optimizer": self.center_optimizer}


def build_state(model_config: ModelConfig, config: TrainingConfig, device: torch.device) -> TrainingState:
    """The state before the first step; its random weights are a function of the seed."""
    torch.manual_seed(torch_seed("weights", config.seed))
    model = build_model(model_config).train()
    loss = KeyReIDLoss(
        num_identities=model_config.num_identities,
        global_width=model.global_head.classifier.in_features,
        part_width=model.part_heads.classifiers.shape[2],
        num_parts=NUM_PARTS,
        config=config,
    )
    model.to(device)
    loss.to(device)
    average = moving_average(model, config.ema_decay)
    return TrainingState(model, average, loss, build_optimizer(model, config), build_center_optimizer(loss, config))
