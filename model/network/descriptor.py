"""From clips to tracklets to the one vector that distances are measured on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from keyreid.pipeline.errors import KeyReIDError

from .config import ModelConfig


@dataclass(frozen=True)
class ClipDescriptors:
    """What the network says of n clips (or, pooled, of n tracklets), before branches are weighted.

    Attributes:
        global_feature: float (n, C), after the neck.
        part_features: float (n, P, D), after the necks, parts in the order of skeleton.PARTS.
        visibility: float (n, P) in [0, 1]: 0 where nobody saw the part, so that its feature speaks of the whole body.
    """

    global_feature: Tensor
    part_features: Tensor
    visibility: Tensor


def pool_clips(clips: ClipDescriptors, tracklet_of_clip: Tensor, num_tracklets: int) -> ClipDescriptors:
    """The mean over the clips of each tracklet, parts weighted with their visibility.

    The `reference` variant gives every part visibility 1, which makes it the plain mean of the authors' code.

    Args:
        clips: n clips.
        tracklet_of_clip: int64 (n,), from 0 to num_tracklets - 1, in any order.
        num_tracklets: how many tracklets there are.

    Returns:
        num_tracklets rows; a part seen in no clip of a tracklet is the plain mean, with visibility 0.

    Raises:
        KeyReIDError: a tracklet has no clip.
    """
    num_clips = torch.bincount(tracklet_of_clip, minlength=num_tracklets)
    if bool((num_clips == 0).any()) or len(num_clips) > num_tracklets:
        empty = torch.nonzero(num_clips == 0).flatten().tolist()
        raise KeyReIDError(
            f"tracklets without a clip: {empty}" if empty else f"clips name tracklet {len(num_clips) - 1}",
            f"clips of each tracklet from 0 to {num_tracklets - 1}",
        )

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(num_tracklets, *values.shape[1:]).index_add_(0, tracklet_of_clip, values)

    count = num_clips.to(clips.visibility.dtype)[:, None]
    seen = total(clips.visibility)
    weights = torch.where(seen[tracklet_of_clip] > 0, clips.visibility, 1.0)
    parts = total(clips.part_features * weights[..., None]) / total(weights)[..., None]
    return ClipDescriptors(total(clips.global_feature) / count, parts, seen / count)


def concatenate(descriptors: ClipDescriptors, config: ModelConfig) -> Tensor:
    """The descriptor, float (n, C + P * D); compare by squared Euclidean distance (paper, section 3.4).

    reference: [global, part_1 / P, ..., part_P / P], as the authors' code has it.
    aligned: each feature at length 1 (`normalise_descriptor`) times the root of its weight, so that the squared
    distance is global_weight * d_global + part_weight * (d_1 + ... + d_P).
    """
    global_feature, parts = descriptors.global_feature, descriptors.part_features
    if config.variant == "reference":
        parts = parts / parts.shape[1]
    else:
        if config.normalise_descriptor:
            global_feature = nn.functional.normalize(global_feature, dim=-1)
            parts = nn.functional.normalize(parts, dim=-1)
        global_feature = global_feature * config.global_weight**0.5
        parts = parts * config.part_weight**0.5
    return torch.cat([global_feature, parts.flatten(1)], dim=1)
