"""The class row alone: of the last blocks only that row is read, so only that row is computed (method.md, M5).

Nor are keys and values of the other rows: with one query, q . (K x) is (K^T q) . x, and a weighted sum of V x is V
times the weighted sum of x. So both projections move from the M rows to the single vectors before and after them.

Letters: B sequences, Q readings of a sequence (parts), M rows, H heads, C channels.
"""

from __future__ import annotations

from typing import cast

import torch
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn


def class_row(block: nn.Module, rows: Tensor) -> Tensor:
    """Row 0 of `block(rows)`: float (B, M, C) -> (B, C).

    A block of an unusual kind (parallel, post-norm, gated, with norms of queries and keys) computes all its rows.
    """
    if not is_plain_block(block):
        return block(rows)[:, 0]
    block = cast(Block, block)
    normed = block.norm1(rows)
    return finish(block, rows[:, :1], attend(attention_of(block), normed[:, :1], normed, None))[:, 0]


def is_plain_block(block: nn.Module) -> bool:
    """Whether `attend` and `finish` compute what the block does."""
    return (
        type(block) is Block
        and type(block.attn) is Attention
        and getattr(block.attn, "gate", None) is None
        and all(
            isinstance(getattr(block.attn, name, nn.Identity()), nn.Identity) for name in ("q_norm", "k_norm", "norm")
        )
        and block.attn.attn_drop.p == 0
    )


def attention_of(block: Block) -> Attention:
    """The block's attention, which timm types as any module."""
    return cast(Attention, block.attn)


def attend(attention: Attention, query_row: Tensor, rows: Tensor, bias: Tensor | None) -> Tensor:
    """What one row gathers from all rows, before the output projection.

    Args:
        attention: plain, as `is_plain_block` has it.
        query_row: float (B, 1, C), normed.
        rows: float (B, M, C), normed; read as keys and as values.
        bias: float (B, Q, M), added to the logits of each of Q readings; None for one reading without.

    Returns:
        float (B, Q, C).
    """
    queries = key_queries(attention, query_row)
    mask = None
    if bias is not None:
        queries = queries.repeat(1, bias.shape[1], 1)  # (B, Q * H, C)
        mask = bias.to(queries.dtype).repeat_interleave(attention.num_heads, dim=1)[:, None]
    gathered = nn.functional.scaled_dot_product_attention(
        queries[:, None], rows[:, None], rows[:, None], attn_mask=mask, scale=attention.scale
    )
    values = value_heads(attention, gathered[:, 0].unflatten(1, (-1, attention.num_heads)))
    return values if attention.qkv.bias is None else values + attention.qkv.bias.chunk(3)[2]


def key_queries(attention: Attention, query_row: Tensor) -> Tensor:
    """K^T q of each head: float (B, 1, C) -> (B, H, C); its product with a row is that row's logit, unscaled.

    The bias of the keys adds the same to each row's logit and falls out of the softmax.
    """
    query_weight, key_weight, _ = attention.qkv.weight.chunk(3)
    query_bias = None if attention.qkv.bias is None else attention.qkv.bias.chunk(3)[0]
    query = nn.functional.linear(query_row[:, 0], query_weight, query_bias).unflatten(1, (attention.num_heads, -1))
    return torch.einsum("bhd,hdc->bhc", query, key_weight.unflatten(0, (attention.num_heads, -1)))


def value_heads(attention: Attention, gathered: Tensor) -> Tensor:
    """V times what each head gathered, without the bias of the values: float (B, Q, H, C) -> (B, Q, C)."""
    weight = attention.qkv.weight.chunk(3)[2].unflatten(0, (attention.num_heads, -1))
    return torch.einsum("bqhc,hdc->bqhd", gathered, weight).flatten(2)


def finish(block: Block, query_rows: Tensor, attended: Tensor) -> Tensor:
    """The rest of a pre-norm block: output projection, residual, MLP, residual. All float (B, Q, C)."""
    attention = attention_of(block)
    attended = attention.proj_drop(attention.proj(attended))
    rows = query_rows + block.drop_path1(block.ls1(attended))
    return rows + block.drop_path2(block.ls2(block.mlp(block.norm2(rows))))
