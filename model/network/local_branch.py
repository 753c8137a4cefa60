"""The local branch: tokens of a clip become rows, and rows become part features (paper, sections 3.2 and 3.3).

Letters: B clips, T frames, N patches, P parts, C channels, D = T * C.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .clip_shift import ClipShift, reference_order
from .part_attention import PartAttention


class AlignedBranch(nn.Module):
    """Row i holds position i of the T frames; the class row holds their T class tokens (method.md, M2).

    Args:
        shift: TCSS.
        attention: KPS.
    """

    def __init__(self, *, shift: ClipShift, attention: PartAttention) -> None:
        super().__init__()
        self.shift = shift
        self.attention = attention

    def forward(self, tokens: Tensor, part_weights: Tensor) -> Tensor:
        """float tokens (B, T, 1 + N, C) and part_weights (B, T, N, P) in [0, 1] -> part features (B, P, D)."""
        patches, part_weights = self.shift(tokens[:, :, 1:], part_weights)
        rows = patches.transpose(1, 2).flatten(2)
        return self.attention(tokens[:, :, 0].flatten(1)[:, None], rows, part_weights.mean(dim=1))


class AverageBranch(nn.Module):
    """No part block: the weighted average of each part's patch tokens over the clip.

    The order of frames plays no part in an average, so TCSS has nothing to change here. Tokens are normed before they
    are averaged, so that a few of great length cannot rule the sum.

    Args:
        width: C.
        weight_floor: added to each weight, as in the attention: a part nobody saw becomes the plain average.
    """

    def __init__(self, *, width: int, weight_floor: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.weight_floor = weight_floor

    def forward(self, tokens: Tensor, part_weights: Tensor) -> Tensor:
        """float tokens (B, T, 1 + N, C) and part_weights (B, T, N, P) in [0, 1] -> part features (B, P, C)."""
        return self.shares(part_weights).transpose(1, 2) @ self.norm(tokens[:, :, 1:]).flatten(1, 2)

    def shares(self, part_weights: Tensor) -> Tensor:
        """Share of each patch in each average: (B, T, N, P) -> (B, T * N, P), sums to 1 over patches."""
        weights = (part_weights + self.weight_floor).flatten(1, 2)
        return weights / weights.sum(dim=1, keepdim=True)


class ReferenceBranch(nn.Module):
    """The rows of the authors' code: its raw reshape, fixed permutation and unpermuted weights (method.md, M1 to M3).

    Args:
        attention: KPS with guidance "multiply".
        num_patches: N, even and over 4.
    """

    order: Tensor

    def __init__(self, *, attention: PartAttention, num_patches: int) -> None:
        super().__init__()
        self.attention = attention
        self.register_buffer("order", reference_order(num_patches), persistent=False)

    def forward(self, tokens: Tensor, part_weights: Tensor) -> Tensor:
        """float tokens (B, T, 1 + N, C) and part_weights (B, T, N, P) in [-1, 1] -> part features (B, P, D)."""
        batch, num_frames, num_tokens, width = tokens.shape
        rows = tokens.reshape(batch, num_tokens, num_frames * width)
        shuffled = torch.index_select(rows, 1, self.order)
        return self.attention(rows[:, :1], shuffled, part_weights.mean(dim=1))
