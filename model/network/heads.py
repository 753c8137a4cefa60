"""BatchNorm necks with frozen biases, and classifiers without bias.

Letters: B clips, P parts, C or D channels, K identities.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSIFIER_STD = 0.001  # of the initial weights: identities start almost equally likely


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
