"""The class row alone: of the last blocks only that row is read, so only that row is computed (method.md, M5).

Letters: B sequences, Q query rows, M rows, H heads, C channels.
"""

from __future__ import annotations

from typing import cast

from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn


def class_row(block: nn.Module, rows: Tensor) -> Tensor:
    """Row 0 of `block(rows)`: float (B, M, C) -> (B, C).

    A block of an unusual kind (parallel, post-norm, gated) computes all its rows instead.
    """
    if not is_plain_block(block):
        return block(rows)[:, 0]
    block = cast(Block, block)
    normed = block.norm1(rows)
    query, keys, values = project(attention_of(block), normed[:, :1], normed)
    attended = nn.functional.scaled_dot_product_attention(query, keys, values)
    return finish(block, rows[:, :1], merge_heads(attended))[:, 0]


def is_plain_block(block: nn.Module) -> bool:
    """Whether `project` and `finish` compute what the block does."""
    return (
        type(block) is Block
        and type(block.attn) is Attention
        and getattr(block.attn, "gate", None) is None
        and isinstance(getattr(block.attn, "norm", nn.Identity()), nn.Identity)
        and block.attn.attn_drop.p == 0
    )


def attention_of(block: Block) -> Attention:
    """The block's attention, which timm types as any module."""
    return cast(Attention, block.attn)


def project(attention: Attention, query_rows: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value heads: (B, H, Q, C/H), (B, H, M, C/H) twice; query and keys normed where the block asks."""
    width = attention.attn_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias
    query = nn.functional.linear(query_rows, weight[:width], None if bias is None else bias[:width])
    both = nn.functional.linear(rows, weight[width:], None if bias is None else bias[width:])
    keys, values = both.chunk(2, dim=-1)
    heads = attention.num_heads
    return (
        attention.q_norm(split_heads(query, heads)),
        attention.k_norm(split_heads(keys, heads)),
        split_heads(values, heads),
    )


def finish(block: Block, query_rows: Tensor, attended: Tensor) -> Tensor:
    """The rest of a pre-norm block: output projection, residual, MLP, residual. All float (B, Q, C)."""
    attention = attention_of(block)
    attended = attention.proj_drop(attention.proj(attended))
    rows = query_rows + block.drop_path1(block.ls1(attended))
    return rows + block.drop_path2(block.ls2(block.mlp(block.norm2(rows))))


def split_heads(rows: Tensor, num_heads: int) -> Tensor:
    """(B, M, C) -> (B, H, M, C/H)."""
    return rows.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(heads: Tensor) -> Tensor:
    """(B, H, M, C/H) -> (B, M, C)."""
    return heads.transpose(1, 2).flatten(2)
