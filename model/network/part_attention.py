"""KPS: six parts read the patches of a clip, each guided by the keypoints of its own (paper, section 3.2).

Letters: B clips, T frames, N patches (rows), P parts, H heads, D channels of a row.
"""

from __future__ import annotations

from typing import cast

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from .class_row import attend, attention_of, finish, key_queries, value_heads


class PartAttention(nn.Module):
    """One pre-norm block and norm shared by the parts; the class row of each part is its feature.

    Args:
        width: D.
        num_heads: H.
        guidance: "bias", "multiply" or "none", as in ModelConfig.
        weight_floor: added to weights before the logarithm ("bias").
    """

    def __init__(self, *, width: int, num_heads: int, guidance: str, weight_floor: float) -> None:
        super().__init__()
        self.block = Block(width, num_heads, qkv_bias=True)
        self.norm = nn.LayerNorm(width, eps=1e-5)  # the authors' local norm; every other norm has 1e-6
        self.guidance = guidance
        self.weight_floor = weight_floor

    def forward(self, class_row: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """Part features.

        Args:
            class_row: float (B, 1, D).
            rows: float (B, N, D).
            weights: float (B, N, P), of each row for each part; at least 0 for "bias".

        Returns:
            float (B, P, D).
        """
        weights = weights.transpose(1, 2)
        if self.guidance == "multiply":
            attended = scaled_attention(self.block, class_row, rows, weights)
        else:
            bias = torch.zeros_like(weights) if self.guidance == "none" else log_bias(weights, self.weight_floor)
            attended = biased_attention(self.block, class_row, rows, bias)
        return self.norm(finish(self.block, class_row, attended))


def log_bias(weights: Tensor, floor: float) -> Tensor:
    """log(weight + floor), shifted so that a part's largest is 0: (B, P, N) -> (B, P, N), at most 0.

    A row's share of the attention becomes proportional to (weight + floor) * exp(q.k), and the best seen row stays on
    a par with the class row. Equal weights, all 0 among them (nobody saw the part), give plain attention.
    """
    logarithm = torch.log(weights + floor)
    return logarithm - logarithm.amax(dim=-1, keepdim=True)


def biased_attention(block: Block, class_row: Tensor, rows: Tensor, bias: Tensor) -> Tensor:
    """What the class row gathers for each part, with `bias` (B, P, N) on the logits of the rows: (B, P, D).

    A part is a reading of the same rows by the same query, with its own bias.
    """
    normed = block.norm1(torch.cat([class_row, rows], dim=1))
    return attend(attention_of(block), normed[:, :1], normed, nn.functional.pad(bias, (1, 0)))


def scaled_attention(block: Block, class_row: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """What the class row gathers for each part when rows are multiplied with `weights` (B, P, N) before the block.

    Norm(w x) = w (x - mean) / sqrt(w^2 var + eps) * gamma + beta: for each part and row a scalar, times what all parts
    share (method.md, M5). The part of a logit that comes from beta is the same for every row and falls out of the
    softmax. Rows of weight 1 give plain attention. Returns float (B, P, D).

    Not scaled_dot_product_attention: the scalar multiplies the shares after their softmax, too.
    """
    norm, attention = cast(nn.LayerNorm, block.norm1), attention_of(block)
    both = torch.cat([class_row, rows], dim=1)
    weights = nn.functional.pad(weights, (1, 0), value=1.0)  # the class row is not weighted
    variance, mean = torch.var_mean(both, dim=-1, correction=0, keepdim=True)
    scale = (weights * torch.rsqrt(weights.square() * variance.transpose(1, 2) + norm.eps))[:, :, None]  # (B, P, 1, M)
    shared = (both - mean) * norm.weight

    queries = key_queries(attention, norm(class_row)) * attention.scale
    logits = queries @ shared.transpose(1, 2)  # (B, H, M)
    shares = (logits[:, None] * scale).softmax(dim=-1)  # (B, P, H, M)
    gathered = (shares * scale).flatten(1, 2) @ shared
    values = value_heads(attention, gathered.unflatten(1, (-1, attention.num_heads)))
    weight, bias = attention.qkv.weight.chunk(3)[2], attention.qkv.bias.chunk(3)[2]
    return values + nn.functional.linear(norm.bias, weight, bias)


def part_visibility(part_weights: Tensor, visible_mass: float) -> Tensor:
    """How much of a clip saw each part: (B, T, N, P) in [0, 1] -> (B, P) in [0, 1], 0 where nobody did.

    The mean over frames of min(1, mean patch weight / visible_mass). A sum over patches stays the same wherever a
    joint lies and whatever the patch size; a maximum falls to a quarter where it sits on the corner of four patches.
    """
    return (part_weights.mean(dim=2) / visible_mass).clamp(0.0, 1.0).mean(dim=1)
