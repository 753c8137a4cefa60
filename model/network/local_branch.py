"""The local branch: tokens of a clip become rows, and rows become part features (paper, sections 3.2 and 3.3).

Letters: B clips, T frames, N patches, P parts, C channels, D = T * C.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .part_attention import PartAttention

REFERENCE_SHIFT = 5  # rows that the authors' code rotates by, the class-token row among them


class ClipShift(nn.Module):
    """TCSS, temporal clip shift and shuffle: in training, mix the frame order of random positions.

    Of the positions a share `shift_share` has its frames rolled by one random step a clip, a share `shuffle_share`
    has them in one random order a clip; the others keep theirs. So a part feature cannot count on the order of frames.

    Args:
        shift_share, shuffle_share: shares of positions, together at most 1.
    """

    def __init__(self, *, shift_share: float, shuffle_share: float) -> None:
        super().__init__()
        self.shift_share = shift_share
        self.shuffle_share = shuffle_share

    def forward(self, patches: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """`patches` (B, T, N, C) and `weights` (B, T, N, P), permuted over T alike at each position.

        The draws come from torch's global generator, as those of drop path do.
        """
        if not self.training or patches.shape[1] == 1 or self.shift_share + self.shuffle_share == 0:
            return patches, weights
        order = self.draw(patches)[..., None]
        return (
            patches.gather(1, order.expand(-1, -1, -1, patches.shape[-1])),
            weights.gather(1, order.expand(-1, -1, -1, weights.shape[-1])),
        )

    def draw(self, patches: Tensor) -> Tensor:
        """int64 (B, T, N): the frame that each place takes its patch from, a permutation for each (B, N)."""
        num_clips, num_frames, num_patches = patches.shape[:3]
        device = patches.device
        frames = torch.arange(num_frames, device=device).expand(num_clips, -1)
        step = torch.randint(1, num_frames, (num_clips, 1), device=device)
        rolled = (frames + step) % num_frames
        shuffled = torch.rand(num_clips, num_frames, device=device).argsort(dim=1)
        draw = torch.rand(num_clips, 1, num_patches, device=device)
        others = torch.where(draw < self.shift_share + self.shuffle_share, shuffled[..., None], frames[..., None])
        return torch.where(draw < self.shift_share, rolled[..., None], others)


class AlignedBranch(nn.Module):
    """Row i holds position i of the T frames; the class-token row holds their T class tokens (method.md, M2).

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
        weight_floor: added to each weight, as in the attention: a part that no frame saw becomes the plain average.
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


def reference_order(num_patches: int) -> Tensor:
    """int64 (N,): rows 1 to N in the order of the authors' code: rotated, then two halves interleaved (method.md, M3).

    Args:
        num_patches: N, even and over 4.
    """
    rows = torch.arange(1, num_patches + 1).roll(1 - REFERENCE_SHIFT)
    return rows.unflatten(0, (2, -1)).T.flatten()
