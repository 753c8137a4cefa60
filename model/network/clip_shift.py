"""TCSS, temporal clip shift and shuffle: which frame of a clip a patch comes from (paper, section 3.3).

Letters: B clips, T frames, N patches, P parts, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

REFERENCE_SHIFT = 5  # rows that the authors' code rotates by, the class row among them


class ClipShift(nn.Module):
    """In training, mix the frame order of random positions; at test time, change nothing.

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


def reference_order(num_patches: int) -> Tensor:
    """int64 (N,): rows 1 to N in the order of the authors' code: rotated, then two halves interleaved (method.md, M3).

    Args:
        num_patches: N, even and over 4.
    """
    rows = torch.arange(1, num_patches + 1).roll(1 - REFERENCE_SHIFT)
    return rows.unflatten(0, (2, -1)).T.flatten()
