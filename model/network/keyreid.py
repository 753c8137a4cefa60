"""The network as a whole: composes the parts that `build_model` makes.

Letters: B clips, T frames, N patches, P parts, C channels, D channels of a part feature, K identities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from keyreid.pipeline.errors import KeyReIDError
from keyreid.pipeline.skeleton import NUM_PARTS

from .backbone import Backbone
from .config import ModelConfig
from .heads import GlobalBranch, GlobalHead, PartHeads
from .part_attention import part_visibility


class TrainingOutput(NamedTuple):
    """What the losses read.

    Attributes:
        global_feature: float (B, C), before the neck.
        part_features: float (B, P, D), before the necks.
        global_logits: float (B, K).
        part_logits: float (B, P, K).
        frame_scores: float (B, T), 0 or more, before the softmax.
        part_visibility: float (B, P) in [0, 1]; 1 throughout in the `reference` variant.
    """

    global_feature: Tensor
    part_features: Tensor
    global_logits: Tensor
    part_logits: Tensor
    frame_scores: Tensor
    part_visibility: Tensor


class TrainingFeatures(NamedTuple):
    """What the clips of a batch give before any of them meets another: the heads' BatchNorm and the losses come after.

    Attributes:
        global_feature, part_features, frame_scores, part_visibility: see TrainingOutput.
    """

    global_feature: Tensor
    part_features: Tensor
    frame_scores: Tensor
    part_visibility: Tensor


@dataclass(frozen=True)
class ClipDescriptors:
    """What the network says of n clips (or, pooled, of n tracklets), before branches are weighted.

    Attributes:
        global_feature: float (n, C), after the neck.
        part_features: float (n, P, D), after the necks, parts in the order of skeleton.PARTS.
        visibility: float (n, P) in [0, 1]: 0 where no frame saw the part, so that its feature speaks of the whole body.
    """

    global_feature: Tensor
    part_features: Tensor
    visibility: Tensor


class KeyReID(nn.Module):
    """Clips of a person and the keypoints' patch weights in, a descriptor out (paper, section 3).

    Args:
        config: what the parts were built from.
        backbone, global_branch, local_branch, global_head, part_heads: the parts.
    """

    def __init__(
        self,
        *,
        config: ModelConfig,
        backbone: Backbone,
        global_branch: GlobalBranch,
        local_branch: nn.Module,
        global_head: GlobalHead,
        part_heads: PartHeads,
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.global_branch = global_branch
        self.local_branch = local_branch
        self.global_head = global_head
        self.part_heads = part_heads

    @property
    def patch_grid(self) -> tuple[int, int]:
        """(rows, columns) of patches in a frame; N = rows * columns, numbered row by row."""
        return self.backbone.patch_grid

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of the global feature and of each part's."""
        num_parts, _, part_width = self.part_heads.classifiers.shape
        return (self.global_head.classifier.in_features, *[part_width] * num_parts)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.part_heads.classifiers.device

    def forward(self, frames: Tensor, part_weights: Tensor, cameras: Tensor) -> TrainingOutput | Tensor:
        """Training: what the losses read. Evaluation: the descriptor, float (B, C + P * D).

        Args:
            frames: float (B, T, 3, H, W), normalised with mean 0.5 and standard deviation 0.5.
            part_weights: float (B, T, N, P), in [0, 1] for `aligned`, in [-1, 1] for `reference`.
            cameras: int64 (B,), rows of the camera table.

        Raises:
            KeyReIDError: a shape differs from these.
        """
        if not self.training:
            return concatenate(self.describe(frames, part_weights, cameras), self.config)
        return self.classify(self.training_features(frames, part_weights, cameras))

    def training_features(self, frames: Tensor, part_weights: Tensor, cameras: Tensor) -> TrainingFeatures:
        """The first half of `forward` in training, which treats every clip on its own; arguments as there."""
        global_feature, scores, part_features = self._features(frames, part_weights, cameras)
        return TrainingFeatures(global_feature, part_features, scores, self._visibility(part_weights))

    def classify(self, features: TrainingFeatures) -> TrainingOutput:
        """The second half of `forward` in training: necks, whose statistics are the batch's, and classifiers."""
        return TrainingOutput(
            features.global_feature,
            features.part_features,
            self.global_head(features.global_feature)[1],
            self.part_heads(features.part_features)[1],
            features.frame_scores,
            features.part_visibility,
        )

    def describe(self, frames: Tensor, part_weights: Tensor, cameras: Tensor) -> ClipDescriptors:
        """The branches of the descriptor apart, for pooling over clips; arguments as in `forward`.

        Raises:
            KeyReIDError: the network is in training mode, or a shape is wrong.
        """
        if self.training:
            raise KeyReIDError("descriptors were asked of a network in training mode", "eval mode", "call model.eval()")
        global_feature, _, part_features = self._features(frames, part_weights, cameras)
        return ClipDescriptors(
            self.global_head.neck(global_feature),
            self.part_heads.neck(part_features.flatten(1)).view_as(part_features),
            self._visibility(part_weights),
        )

    def _features(self, frames: Tensor, part_weights: Tensor, cameras: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self._check_shapes(frames, part_weights, cameras)
        batch, num_frames = frames.shape[:2]
        tokens = self.backbone(frames.flatten(0, 1), cameras.repeat_interleave(num_frames))
        tokens = tokens.unflatten(0, (batch, num_frames))
        global_feature, scores = self.global_branch(tokens)
        return global_feature, scores, self.local_branch(tokens, part_weights)

    def _visibility(self, part_weights: Tensor) -> Tensor:
        if self.config.variant == "reference":
            return torch.ones_like(part_weights[:, 0, 0])
        return part_visibility(part_weights, self.config.visible_mass)

    def _check_shapes(self, frames: Tensor, part_weights: Tensor, cameras: Tensor) -> None:
        rows, columns = self.patch_grid
        batch, length = frames.shape[0], self.config.clip_length
        for name, tensor, shape in (
            ("frames", frames, (batch, length, 3, *self.config.frame_size)),
            ("part_weights", part_weights, (batch, length, rows * columns, NUM_PARTS)),
            ("cameras", cameras, (batch,)),
        ):
            if tuple(tensor.shape) != shape:
                raise KeyReIDError(f"{name} of shape {tuple(tensor.shape)}", f"{shape} for {batch} clips")


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
