"""A tiny network whose every tensor matters, and clips for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from keyreid.model import KeyReID, ModelConfig, build_model

TINY: dict[str, Any] = {
    "backbone": "vit_tiny_patch16_224", "frame_size": (32, 16), "clip_length": 4, "num_identities": 5,
    "num_cameras": 3, "patch_size": 4, "width": 24, "depth": 3, "num_heads": 3, "score_width": 8, "drop_path": 0.0,
    "part_pooling": "attention", "global_weight": 1.0,
}  # fmt: skip


def tiny_model(seed: int = 0, **fields: Any) -> KeyReID:
    """In float64 and training mode, every parameter and running statistic random, so that none can be left out."""
    torch.manual_seed(seed)
    model = build_model(ModelConfig(**(TINY | fields))).double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.LayerNorm, nn.BatchNorm1d)):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.2)
            elif isinstance(module, (nn.Linear, nn.Conv1d)) and module.bias is not None:
                module.bias.normal_(std=0.2)
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2.0)
        if model.backbone.vit.pos_embed is not None:  # rotary positions are no parameters
            model.backbone.vit.pos_embed.normal_(std=0.5)
        model.backbone.vit.cls_token.normal_(std=0.5)
        model.global_branch.score.bias.fill_(3.0)  # scores stay positive: their gradient passes the ReLU
    return model


def clips(model: KeyReID, num_clips: int = 3, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, part weights in the variant's range, and cameras."""
    generator = torch.Generator().manual_seed(seed)
    config, (rows, columns) = model.config, model.patch_grid
    frames = torch.randn(num_clips, config.clip_length, 3, *config.frame_size, generator=generator).double()
    weights = torch.rand(num_clips, config.clip_length, rows * columns, 6, generator=generator).double()
    if config.variant == "reference":
        weights = 2 * weights - 1
    return frames, weights, torch.randint(0, config.num_cameras, (num_clips,), generator=generator)
