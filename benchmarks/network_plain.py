"""The plain way: the same network on the same parameters, with every row of the last blocks and a loop over the parts.

What the authors' code does, in timm's modules: the last blocks compute all 129 rows although one is read, the part
block runs six times, and necks and classifiers are called part by part. Attention is timm's, fused kernels included.
`benchmarks/network.py` times it and a test holds it against the network.

Letters: B clips, T frames, N patches, P parts, D channels of a row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from keyreid.model import KeyReID
from keyreid.model.network.keyreid import ClipDescriptors, TrainingOutput, concatenate
from keyreid.model.network.local_branch import AlignedBranch, AverageBranch
from keyreid.model.network.part_attention import PartAttention, log_bias, part_visibility
from keyreid.pipeline.skeleton import NUM_PARTS


class PlainKeyReID(nn.Module):
    """Same arguments and results as KeyReID.forward.

    Args:
        model: whose parameters, backbone and temporal shift are used; with `guidance` "bias" or, in the `reference`
            variant, the authors' product.
    """

    def __init__(self, model: KeyReID) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, part_weights: Tensor, cameras: Tensor) -> TrainingOutput | Tensor:
        """Float (B, T, 3, H, W), float (B, T, N, P), int64 (B,) -> as KeyReID.forward."""
        model, length = self.model, frames.shape[1]
        tokens = model.backbone(frames.flatten(0, 1), cameras.repeat_interleave(length)).unflatten(0, (-1, length))
        global_feature, scores = self._global_feature(tokens)
        part_features = self._part_features(tokens, part_weights)
        if model.config.variant == "reference":
            visibility = torch.ones_like(part_weights[:, 0, 0])
        else:
            visibility = part_visibility(part_weights, model.config.visible_mass)
        global_neck = model.global_head.neck(global_feature)
        part_necks = [self._neck(feature, part) for part, feature in enumerate(part_features)]
        if not self.training:
            described = ClipDescriptors(global_neck, torch.stack(part_necks, dim=1), visibility)
            return concatenate(described, model.config)
        classifiers = model.part_heads.classifiers
        logits = [functional.linear(neck, classifiers[part]) for part, neck in enumerate(part_necks)]
        return TrainingOutput(
            global_feature,
            torch.stack(part_features, dim=1),
            model.global_head.classifier(global_neck),
            torch.stack(logits, dim=1),
            scores,
            visibility,
        )

    def _global_feature(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        branch = self.model.global_branch
        rows = branch.norm(branch.block(tokens.flatten(0, 1)))
        frames = rows[:, 0].unflatten(0, tokens.shape[:2])
        hidden = torch.relu(branch.score_hidden(frames))
        scores = torch.relu(branch.score(hidden.transpose(1, 2))).squeeze(1)
        return (scores.softmax(dim=1)[..., None] * frames).sum(dim=1), scores

    def _part_features(self, tokens: Tensor, part_weights: Tensor) -> list[Tensor]:
        branch = self.model.local_branch
        weights = part_weights
        if isinstance(branch, AverageBranch):
            patches = branch.norm(tokens[:, :, 1:])
            return [averaged(patches, weights[..., part] + branch.weight_floor) for part in range(NUM_PARTS)]
        if isinstance(branch, AlignedBranch):
            patches, weights = branch.shift(tokens[:, :, 1:], part_weights)
            rows = torch.cat([tokens[:, :, :1], patches], dim=2).transpose(1, 2).flatten(2)
            read: Callable[..., Tensor] = biased_pass
        else:
            rows = tokens.reshape(tokens.shape[0], tokens.shape[2], -1)
            rows = torch.cat([rows[:, :1], rows[:, branch.order]], dim=1)
            read = multiplied_pass
        weights = weights.mean(dim=1)
        return [read(branch.attention, rows, weights[:, :, part]) for part in range(NUM_PARTS)]

    def _neck(self, feature: Tensor, part: int) -> Tensor:
        """One part's neck: batch statistics in training mode, the running ones otherwise. (B, D) -> (B, D)."""
        neck = self.model.part_heads.neck
        channels = slice(part * feature.shape[1], (part + 1) * feature.shape[1])
        running = (None, None) if self.training else (neck.running_mean[channels], neck.running_var[channels])
        weight, bias = neck.weight[channels], neck.bias[channels]
        return functional.batch_norm(feature, *running, weight, bias, training=self.training, eps=neck.eps)


def averaged(patches: Tensor, weights: Tensor) -> Tensor:
    """One part without a part block: patches (B, T, N, C) and weights (B, T, N) -> (B, C)."""
    return (weights[..., None] * patches).sum(dim=(1, 2)) / weights.sum(dim=(1, 2))[:, None]


def multiplied_pass(attention: PartAttention, rows: Tensor, weights: Tensor) -> Tensor:
    """One part as the authors' code has it: rows (B, 1 + N, D) times weights (B, N), all rows out, the first read."""
    weighted = torch.cat([rows[:, :1], rows[:, 1:] * weights[..., None]], dim=1)
    return attention.norm(attention.block(weighted))[:, 0]


def biased_pass(attention: PartAttention, rows: Tensor, weights: Tensor) -> Tensor:
    """One part of the aligned variant: its bias on the logits of every row, all rows out, the first read."""
    bias = log_bias(weights[:, None], attention.weight_floor)
    mask = functional.pad(bias, (1, 0))[:, None].expand(-1, 1, rows.shape[1], -1)
    return attention.norm(attention.block(rows, attn_mask=mask.to(rows.dtype)))[:, 0]
