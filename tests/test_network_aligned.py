"""Properties of the `aligned` variant: what guides a part, what must not, and what training mixes."""

from __future__ import annotations

import pytest
import torch
from network_fixtures import clips, tiny_model

from keyreid.model.network.local_branch import ClipShift
from keyreid.model.network.part_attention import part_visibility

BOTH_POOLINGS = pytest.mark.parametrize("pooling", ["attention", "average"])


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


@torch.no_grad()
def parts_of(model, frames, weights, cameras) -> torch.Tensor:
    return model.describe(frames, weights, cameras).part_features


@BOTH_POOLINGS
def test_a_patch_of_weight_zero_has_no_influence(pooling: str) -> None:
    """On the branch itself: in the backbone every patch speaks to every other."""
    torch.manual_seed(3)
    weights = torch.rand(2, 4, 32, 6).double()
    weights[:, :, 10:20] = 0.0
    tokens = torch.randn(2, 4, 33, 24).double()
    changed = tokens.clone()
    changed[:, :, 11:21] = torch.randn(2, 4, 10, 24).double()
    effect = {}
    for floor in (1e-3, 1e-12):
        branch = tiny_model(part_pooling=pooling, weight_floor=floor).eval().local_branch
        effect[floor] = relative(branch(changed, weights), branch(tokens, weights))
        unguided = relative(branch(changed, torch.ones_like(weights)), branch(tokens, torch.ones_like(weights)))
    assert effect[1e-12] < 1e-9
    assert effect[1e-3] < 0.05 * unguided
    assert unguided > 0.02


@BOTH_POOLINGS
def test_equal_weights_are_plain_attention_whatever_their_size(pooling: str) -> None:
    model = tiny_model(part_pooling=pooling).eval()
    frames, weights, cameras = clips(model)
    plain = parts_of(model, frames, torch.ones_like(weights), cameras)
    if pooling == "attention":
        plain = parts_of(tiny_model(guidance="none").eval(), frames, weights, cameras)
    assert relative(parts_of(model, frames, torch.full_like(weights, 0.3), cameras), plain) < 1e-12
    assert relative(parts_of(model, frames, weights, cameras), plain) > 1e-3


@BOTH_POOLINGS
def test_a_part_nobody_saw_gets_plain_attention_and_visibility_zero(pooling: str) -> None:
    model = tiny_model(part_pooling=pooling).eval()
    frames, weights, cameras = clips(model)
    weights[0, ..., 2] = 0.0
    with torch.no_grad():
        described = model.describe(frames, weights, cameras)
        plain = parts_of(model, frames, torch.ones_like(weights), cameras)
    assert relative(described.part_features[0, 2], plain[0, 2]) < 1e-12
    assert relative(described.part_features[0, 3], plain[0, 3]) > 1e-3
    assert described.visibility[0].tolist() == [1, 1, 0, 1, 1, 1]


@BOTH_POOLINGS
def test_a_parts_weights_change_its_piece_of_the_descriptor_alone(pooling: str) -> None:
    model = tiny_model(part_pooling=pooling).eval()
    frames, weights, cameras = clips(model)
    changed = weights.clone()
    changed[..., 2] = weights[..., 2].flip(2)
    width = 24 if pooling == "average" else 96
    with torch.no_grad():
        found, plain = (model(frames, w, cameras).split([24, *[width] * 6], dim=1) for w in (changed, weights))
    for piece, (mine, theirs) in enumerate(zip(found, plain, strict=True)):
        assert relative(mine, theirs) > 1e-3 if piece == 3 else relative(mine, theirs) < 1e-12


@BOTH_POOLINGS
def test_the_descriptor_follows_frames_their_order_and_the_camera(pooling: str) -> None:
    model = tiny_model(part_pooling=pooling).eval()
    frames, weights, cameras = clips(model)
    other = frames.clone()
    other[:, 1] = frames[:, 0]
    with torch.no_grad():
        plain = model(frames, weights, cameras)
        assert relative(model(other, weights, cameras), plain) > 1e-3
        # Scores are a convolution over frames, so the global feature knows their order whatever the pooling.
        assert relative(model(frames.flip(1), weights.flip(1), cameras), plain) > 1e-6
        assert relative(model(frames, weights, (cameras + 1) % 3), plain) > 1e-3


def test_guidance_multiply_is_nearly_without_effect() -> None:
    """M1, and why "bias" is the default: weights that are all positive hardly reach the attention by multiplication."""
    effect = {}
    for guidance in ("multiply", "bias"):
        model = tiny_model(guidance=guidance).eval()
        frames, weights, cameras = clips(model)
        weights = 0.1 + 0.9 * weights
        plain = parts_of(model, frames, torch.ones_like(weights), cameras)
        effect[guidance] = relative(parts_of(model, frames, weights, cameras), plain)
    assert effect["multiply"] < 1e-4 < 1e-2 < effect["bias"]


def test_shift_changes_nothing_at_test_time() -> None:
    shift = ClipShift(shift_share=0.5, shuffle_share=0.5).eval()
    patches, weights = torch.randn(2, 4, 8, 3), torch.rand(2, 4, 8, 6)
    found = shift(patches, weights)
    assert found[0] is patches and found[1] is weights


def test_shift_moves_tokens_and_weights_together_within_a_position() -> None:
    torch.manual_seed(0)
    shift = ClipShift(shift_share=0.4, shuffle_share=0.4)
    label = torch.arange(2 * 4 * 50).view(2, 4, 50, 1).float()
    patches, weights = shift(label.expand(-1, -1, -1, 3), label.expand(-1, -1, -1, 6))
    assert torch.equal(patches[..., :1], weights[..., :1])
    assert torch.equal(patches.sort(dim=1).values, label.expand(-1, -1, -1, 3))  # a permutation over T, no other axis
    moved = (patches[..., 0] != label[..., 0]).any(dim=1).float().mean(dim=1)
    assert ((moved > 0.3) & (moved < 0.95)).all()


@pytest.mark.parametrize(("shift_share", "shuffle_share", "rolls"), [(1.0, 0.0, True), (0.0, 1.0, False)])
def test_shift_rolls_and_shuffle_reorders(shift_share: float, shuffle_share: float, rolls: bool) -> None:
    torch.manual_seed(0)
    label = torch.arange(4).view(1, 4, 1, 1).float().expand(64, 4, 8, 1)
    found, _ = ClipShift(shift_share=shift_share, shuffle_share=shuffle_share)(label, label)
    assert torch.equal(found, found[:, :, :1].expand_as(found))  # one draw for a clip's group of positions
    steps = (found[:, 1:, 0, 0] - found[:, :-1, 0, 0]) % 4
    assert bool((steps == 1).all()) is rolls
    orders = {tuple(clip.tolist()) for clip in found[:, :, 0, 0]}
    assert len(orders) == 3 if rolls else len(orders) > 10


@pytest.mark.parametrize("place", [(0.25, 0.25), (0.5, 0.5), (0.31, 0.77)])
@pytest.mark.parametrize("patch", [4, 16])
def test_visibility_of_one_joint_depends_on_neither_place_nor_patch_size(
    place: tuple[float, float], patch: int
) -> None:
    """The heatmap of one joint: sigma (2 * int(w / 11) + 1) / 4 on a 128x64 frame."""
    y, x = torch.meshgrid(torch.arange(128), torch.arange(64), indexing="ij")
    heatmap = torch.exp(-((y - place[0] * 128) ** 2 + (x - place[1] * 64) ** 2) / (2 * 2.75**2))
    weights = torch.nn.functional.avg_pool2d(heatmap[None, None], patch).flatten(2).transpose(1, 2)
    seen_once = torch.stack([weights, torch.zeros_like(weights)], dim=1)
    assert part_visibility(weights[:, None], 0.003).item() == 1.0
    assert part_visibility(seen_once, 0.003).item() == 0.5
    assert part_visibility(0.1 * weights[:, None], 0.003).item() == pytest.approx(0.0058 * 0.1 / 0.003, rel=0.05)
