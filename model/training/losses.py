"""The loss: ID + TRI + 0.0005 * CENTER + ATT (paper, section 3.5; method, section 3).

Letters: B clips, Q branches (1 for the global one, P for the parts), C channels, K identities, T frames. Every
function takes all branches of one kind at once.

A part that no frame of a clip saw has visibility 0: its feature is plain attention over the whole clip, which says
nothing of the part. So each part's loss is the mean over the clips weighted by visibility, hard examples are mined
among the clips that saw the part, and a part that no clip of the batch saw is left out of the mean over the parts.
In the reference variant every visibility is 1, and these are the plain means.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from keyreid.model.network.keyreid import TrainingOutput

from .config import TrainingConfig


class LossTerms(NamedTuple):
    """Scalars on the device; `total` is the weighted sum of the others and the only one with a gradient to use."""

    total: Tensor
    identity: Tensor
    triplet: Tensor
    center: Tensor
    attention: Tensor


class KeyReIDLoss(nn.Module):
    """All terms, and the class centres, which an optimiser of their own moves.

    Args:
        num_identities: K.
        global_width, part_width: channels of the global and of a part feature.
        num_parts: P.
        config: weights of the terms.
    """

    def __init__(
        self, *, num_identities: int, global_width: int, part_width: int, num_parts: int, config: TrainingConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.global_centers = nn.Parameter(torch.randn(num_identities, 1, global_width))
        self.part_centers = nn.Parameter(torch.randn(num_identities, num_parts, part_width))

    def forward(self, output: TrainingOutput, identities: Tensor, erased: Tensor) -> LossTerms:
        """The loss of one batch, in float32 whatever the network computed in.

        Args:
            output: of the network in training mode.
            identities: int64 (B,), rows of the identity table.
            erased: float (B, T), 1 where a frame was erased.
        """
        config = self.config
        output = TrainingOutput(*(tensor.float() for tensor in output))
        whole = torch.ones_like(output.part_visibility[:, :1])

        def balanced(global_term: Tensor, part_term: Tensor) -> Tensor:
            return config.global_share * global_term + (1 - config.global_share) * part_term

        features = output.global_feature[:, None], output.part_features
        logits = output.global_logits[:, None], output.part_logits
        centers = self.global_centers, self.part_centers
        weights = whole, output.part_visibility
        branches = list(zip(logits, features, centers, weights, strict=True))
        identity = balanced(*(identity_loss(x, identities, w, config.label_smoothing) for x, _, _, w in branches))
        triplet = balanced(*(triplet_loss(x, identities, w) for _, x, _, w in branches))
        center = balanced(*(center_loss(x, c, identities, w) for _, x, c, w in branches))
        attention = attention_loss(output.frame_scores, erased)
        total = identity + triplet + config.center_weight * center + config.attention_weight * attention
        return LossTerms(total, identity, triplet, center, attention)


def identity_loss(logits: Tensor, identities: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Cross entropy with label smoothing; logits (B, Q, K), identities (B,), weights (B, Q) -> scalar."""
    targets = identities[:, None].expand(logits.shape[:2])
    values = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), label_smoothing=smoothing, reduction="none"
    )
    return _mean(values.view(logits.shape[:2]), weights)


def triplet_loss(features: Tensor, identities: Tensor, weights: Tensor) -> Tensor:
    """Batch-hard triplets with soft margin, Euclidean: softplus(farthest same - nearest other).

    A clip of weight 0 is neither anchor nor example; an anchor without any other identity left is skipped.

    Args:
        features: float (B, Q, C), before the neck.
        identities: int64 (B,).
        weights: float (B, Q).
    """
    branches = features.transpose(0, 1)
    # Not by matrix product: its rounding is largest for the near pairs, which are the ones that are picked.
    distances = torch.cdist(branches, branches, compute_mode="donot_use_mm_for_euclid_dist")
    seen = weights.T > 0
    both = seen[:, :, None] & seen[:, None, :]
    same = identities[:, None] == identities[None, :]
    farthest = distances.masked_fill(~(same & both), -torch.inf).amax(2)
    nearest = distances.masked_fill(same | ~both, torch.inf).amin(2)
    usable = nearest.isfinite()
    values = functional.softplus(farthest - nearest)  # softplus(-inf) is 0 with gradient 0
    return _mean(values.T, weights * usable.T)


def center_loss(features: Tensor, centers: Tensor, identities: Tensor, weights: Tensor) -> Tensor:
    """Squared distance to the identity's centre; features (B, Q, C), centers (K, Q, C), weights (B, Q)."""
    return _mean((features - centers[identities]).square().sum(2), weights)


def attention_loss(frame_scores: Tensor, erased: Tensor) -> Tensor:
    """Mean over clips of sum_t s_t * e_t: erased frames shall score low; both (B, T)."""
    return (frame_scores * erased).sum(1).mean()


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over clips of each branch, then the plain mean over the branches that have any weight."""
    total = weights.sum(0)
    present = (total > 0).to(values.dtype)
    branches = (values * weights).sum(0) / total.clamp_min(torch.finfo(values.dtype).tiny)
    return (branches * present).sum() / present.sum().clamp_min(1)
