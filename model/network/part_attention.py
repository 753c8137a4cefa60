"""One-row attention: only the class-token row of the last blocks is read, so only that row is computed (method.md, M5).

Nor are keys and values of the other rows: with one query, q . (K x) is (K^T q) . x, and a weighted sum of V x is V
times the weighted sum of x. So both projections move from the M rows to the single vectors before and after them.
Heads are then C wide, which no fused kernel takes: two matrix products and a softmax.

Letters: B sequences or clips, T frames, N patches, M = 1 + N rows, P parts, H heads, C or D channels of a row.
"""

from __future__ import annotations

from typing import cast

import torch
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn


def class_token_row(block: nn.Module, rows: Tensor) -> Tensor:
    """Row 0 of `block(rows)`: float (B, M, C) -> (B, C).

    A block of an unusual kind (parallel, post-norm, gated, with norms of queries and keys) computes all its rows.
    """
    if not is_plain_block(block):
        return block(rows)[:, 0]
    block = cast(Block, block)
    normed = block.norm1(rows)
    shares = (key_queries(block, normed[:, 0]) @ normed.transpose(1, 2)).softmax(dim=-1)
    return finish(block, rows[:, :1], value_heads(block, (shares @ normed)[:, None]))[:, 0]


def is_plain_block(block: nn.Module) -> bool:
    """Whether `key_queries`, `value_heads` and `finish` compute what the block does."""
    return (
        type(block) is Block
        and type(block.attn) is Attention
        and getattr(block.attn, "gate", None) is None
        and all(
            isinstance(getattr(block.attn, name, nn.Identity()), nn.Identity) for name in ("q_norm", "k_norm", "norm")
        )
        and block.attn.attn_drop.p == 0
    )


def key_queries(block: Block, query_row: Tensor) -> Tensor:
    """Scaled K^T q of each head: normed float (B, C) -> (B, H, C); its product with a normed row is the row's logit.

    The bias of the keys adds the same to each row's logit and falls out of the softmax.
    """
    attention = cast(Attention, block.attn)
    query_weight, key_weight, _ = attention.qkv.weight.chunk(3)
    query_bias = None if attention.qkv.bias is None else attention.qkv.bias.chunk(3)[0]
    query = nn.functional.linear(query_row, query_weight, query_bias).unflatten(1, (attention.num_heads, -1))
    return torch.einsum("bhd,hdc->bhc", query * attention.scale, key_weight.unflatten(0, (attention.num_heads, -1)))


def value_heads(block: Block, gathered: Tensor) -> Tensor:
    """V times what each head gathered of the normed rows: float (B, P, H, C) -> (B, P, C)."""
    attention = cast(Attention, block.attn)
    weight = attention.qkv.weight.chunk(3)[2].unflatten(0, (attention.num_heads, -1))
    values = torch.einsum("bphc,hdc->bphd", gathered, weight).flatten(2)
    return values if attention.qkv.bias is None else values + attention.qkv.bias.chunk(3)[2]


def finish(block: Block, query_rows: Tensor, attended: Tensor) -> Tensor:
    """The rest of a pre-norm block: output projection, residual, MLP, residual. All float (B, P, C)."""
    attention = cast(Attention, block.attn)
    rows = query_rows + block.drop_path1(block.ls1(attention.proj_drop(attention.proj(attended))))
    return rows + block.drop_path2(block.ls2(block.mlp(block.norm2(rows))))


class PartAttention(nn.Module):
    """KPS: one pre-norm block and norm read a clip's rows for each part, guided by its keypoints (paper, section 3.2).

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
        """Part features: the class-token row of each part.

        Args:
            class_row: float (B, 1, D).
            rows: float (B, N, D).
            weights: float (B, N, P), of each row for each part; at least 0 for "bias".

        Returns:
            float (B, P, D).
        """
        beta = cast(nn.LayerNorm, self.block.norm1).bias
        shares, factors, normed = self._read(class_row, rows, weights)
        gathered = factors.flatten(1, 2) @ normed + beta
        attended = value_heads(self.block, gathered.unflatten(1, shares.shape[1:3]))
        return self.norm(finish(self.block, class_row, attended))

    def shares(self, class_row: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """Share of the class-token row and of each other row in what every head gathers for a part.

        Returns:
            float (B, P, H, M), sums to 1 over M.
        """
        return self._read(class_row, rows, weights)[0]

    def _read(self, class_row: Tensor, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shares and the factors of the sum, both (B, P, H, M), and its rows (B, M, D): normed, without norm1's beta.

        Beta's part of a logit is the same for every row and falls out of the softmax; its part of a sum is beta.
        """
        norm, weights = cast(nn.LayerNorm, self.block.norm1), weights.transpose(1, 2)
        both = torch.cat([class_row, rows], dim=1)
        normed = nn.functional.layer_norm(both, norm.normalized_shape, norm.weight, None, norm.eps)
        logits = (key_queries(self.block, normed[:, 0] + norm.bias) @ normed.transpose(1, 2))[:, None]  # (B, 1, H, M)
        if self.guidance == "multiply":
            # norm(w x) - beta = s (norm(x) - beta): a scalar s for each part and row, times what all parts share (M5).
            weights = nn.functional.pad(weights, (1, 0), value=1.0)  # the class-token row is not weighted
            variance = both.var(dim=-1, correction=0)[:, None]
            scale = (weights * ((variance + norm.eps) / (weights.square() * variance + norm.eps)).sqrt())[:, :, None]
            shares = (logits * scale).softmax(dim=-1)
            return shares, shares * scale, normed
        bias = log_bias(weights, self.weight_floor) if self.guidance == "bias" else torch.zeros_like(weights)
        shares = (logits + nn.functional.pad(bias, (1, 0))[:, :, None]).softmax(dim=-1)
        return shares, shares, normed


def log_bias(weights: Tensor, floor: float) -> Tensor:
    """log(weight + floor), shifted so that a part's largest is 0: (B, P, N) -> (B, P, N), at most 0.

    A row's share of the attention becomes proportional to (weight + floor) * exp(q.k), and the best seen row stays on
    a par with the class-token row. Equal weights, all 0 among them (no one saw the part), give plain attention.
    """
    logarithm = torch.log(weights + floor)
    return logarithm - logarithm.amax(dim=-1, keepdim=True)


def part_visibility(part_weights: Tensor, visible_mass: float) -> Tensor:
    """How much of a clip saw each part: (B, T, N, P) in [0, 1] -> (B, P) in [0, 1], 0 where no frame did.

    The mean over frames of min(1, mean patch weight / visible_mass). A sum over patches stays the same wherever a
    joint lies and whatever the patch size; a maximum falls to a quarter where it sits on the corner of four patches.
    """
    return (part_weights.mean(dim=2) / visible_mass).clamp(0.0, 1.0).mean(dim=1)
