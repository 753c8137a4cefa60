"""From clips to tracklets to one vector."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from keyreid.model.network.config import ModelConfig
from keyreid.model.network.keyreid import ClipDescriptors, concatenate, pool_clips
from keyreid.pipeline.errors import KeyReIDError


def described(num: int, seed: int = 0) -> ClipDescriptors:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((num, 5), (num, 6, 4), (num, 6))
    return ClipDescriptors(*(torch.rand(*size, generator=generator).double() for size in sizes))


def config(**fields: Any) -> ModelConfig:
    return ModelConfig(num_identities=2, num_cameras=1, **fields)


def test_pooling_is_a_mean_that_weighs_parts_by_visibility() -> None:
    clips = described(5)
    tracklets = torch.tensor([1, 0, 1, 1, 0])
    pooled = pool_clips(clips, tracklets, 2)
    for tracklet, rows in ((0, [1, 4]), (1, [0, 2, 3])):
        assert torch.allclose(pooled.global_feature[tracklet], clips.global_feature[rows].mean(0))
        assert torch.allclose(pooled.visibility[tracklet], clips.visibility[rows].mean(0))
        for part in range(6):
            weights = clips.visibility[rows, part]
            wanted = (
                sum(w * clips.part_features[row, part] for w, row in zip(weights, rows, strict=True)) / weights.sum()
            )
            assert torch.allclose(pooled.part_features[tracklet, part], wanted)


def test_a_clip_that_did_not_see_a_part_has_no_say_in_it_unless_nobody_did() -> None:
    clips = described(2)
    clips.visibility[0, 3] = 0.0
    clips.visibility[:, 4] = 0.0
    pooled = pool_clips(clips, torch.tensor([0, 0]), 1)
    assert torch.allclose(pooled.part_features[0, 3], clips.part_features[1, 3])
    assert torch.allclose(pooled.part_features[0, 4], clips.part_features[:, 4].mean(0))
    assert pooled.visibility[0, 4] == 0


@pytest.mark.parametrize(
    ("tracklets", "message"),
    [
        ([0, 0, 2], r"tracklets without a clip: \[1\]"),
        ([0, 1, 3], r"without a clip: \[2\]"),
        ([0, 1, 2], "name tracklet 2"),
    ],
)
def test_pooling_needs_clips_of_each_tracklet(tracklets: list[int], message: str) -> None:
    with pytest.raises(KeyReIDError, match=message):
        pool_clips(described(3), torch.tensor(tracklets), 3 if 2 in tracklets and 1 not in tracklets else 2)


def test_reference_divides_parts_by_their_number() -> None:
    clips = described(2)
    wanted = torch.cat([clips.global_feature, *(clips.part_features[:, part] / 6 for part in range(6))], dim=1)
    assert torch.equal(concatenate(clips, config(variant="reference")), wanted)


@pytest.mark.parametrize(("global_weight", "part_weight"), [(1.0, 1 / 6), (0.5, 0.25), (0.0, 1.0)])
@pytest.mark.parametrize("normalise", [True, False])
def test_aligned_squared_distance_is_the_weighted_sum(
    global_weight: float, part_weight: float, normalise: bool
) -> None:
    clips = described(2)
    settings = config(global_weight=global_weight, part_weight=part_weight, normalise_descriptor=normalise)
    first, second = concatenate(clips, settings)

    def distance(features: torch.Tensor) -> torch.Tensor:
        unit = features / features.norm(dim=-1, keepdim=True) if normalise else features
        return (unit[0] - unit[1]).square().sum()

    parts = sum(distance(clips.part_features[:, part]) for part in range(6))
    wanted = global_weight * distance(clips.global_feature) + part_weight * parts
    assert torch.allclose((first - second).square().sum(), wanted)
