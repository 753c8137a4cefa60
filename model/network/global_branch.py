"""The global branch: one feature for the clip, frames weighted by a learned score (paper, section 3.1).

Letters: B clips, T frames, N patches, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .class_row import class_row


class GlobalBranch(nn.Module):
    """The backbone's last block and norm, and the frame scores.

    Args:
        block: the backbone's last block.
        norm: the backbone's final norm.
        width: C.
        score_width: hidden width of the scores.
    """

    def __init__(self, *, block: nn.Module, norm: nn.Module, width: int, score_width: int) -> None:
        super().__init__()
        self.block = block
        self.norm = norm
        self.score_hidden = nn.Linear(width, score_width)
        self.score = nn.Conv1d(score_width, 1, kernel_size=3, padding=1)
        for name, parameter in (*self.score_hidden.named_parameters(), *self.score.named_parameters()):
            nn.init.zeros_(parameter) if name == "bias" else nn.init.kaiming_normal_(parameter)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Clip feature and frame scores.

        Args:
            tokens: float (B, T, 1 + N, C), the backbone's.

        Returns:
            float (B, C), the frames' class tokens weighted with the softmax of their scores; and float (B, T), the
            scores, 0 or more, which the attention loss lowers where a frame was erased.
        """
        batch, num_frames = tokens.shape[:2]
        frames = self.norm(class_row(self.block, tokens.flatten(0, 1))).unflatten(0, (batch, num_frames))
        hidden = torch.relu(self.score_hidden(frames))
        scores = torch.relu(self.score(hidden.transpose(1, 2))).squeeze(1)
        return (scores.softmax(dim=1)[..., None] * frames).sum(dim=1), scores
