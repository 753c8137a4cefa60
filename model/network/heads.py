"""The global branch, and the heads of all features: BatchNorm necks with frozen biases, classifiers without bias.

Letters: B clips, T frames, N patches, P parts, C or D channels, K identities.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .part_attention import class_token_row

CLASSIFIER_STD = 0.001  # of the initial weights: identities start almost equally likely


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
        frames = self.norm(class_token_row(self.block, tokens.flatten(0, 1))).unflatten(0, (batch, num_frames))
        hidden = torch.relu(self.score_hidden(frames))
        scores = torch.relu(self.score(hidden.transpose(1, 2))).squeeze(1)
        return (scores.softmax(dim=1)[..., None] * frames).sum(dim=1), scores


class GlobalHead(nn.Module):
    """Neck and classifier of the global feature."""

    def __init__(self, *, width: int, num_identities: int) -> None:
        super().__init__()
        self.neck = _neck(width)
        self.classifier = nn.Linear(width, num_identities, bias=False)
        nn.init.normal_(self.classifier.weight, std=CLASSIFIER_STD)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """float (B, C) -> the feature after the neck (B, C) and the logits (B, K)."""
        normed = self.neck(features)
        return normed, self.classifier(normed)


class PartHeads(nn.Module):
    """A neck and a classifier for each part, in one tensor each: batch statistics are per channel, so a neck over
    P * D channels is P necks."""

    def __init__(self, *, num_parts: int, width: int, num_identities: int) -> None:
        super().__init__()
        self.neck = _neck(num_parts * width)
        self.classifiers = nn.Parameter(torch.empty(num_parts, num_identities, width))
        nn.init.normal_(self.classifiers, std=CLASSIFIER_STD)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """float (B, P, D) -> the features after the necks (B, P, D) and the logits (B, P, K)."""
        normed = self.neck(features.flatten(1)).view_as(features)
        return normed, torch.einsum("bpd,pkd->bpk", normed, self.classifiers)


def _neck(width: int) -> nn.BatchNorm1d:
    neck = nn.BatchNorm1d(width)
    neck.bias.requires_grad_(False)
    return neck
