"""Attention maps: they sum to 1, and what they say gives the features again when a plain block is read with them."""

from __future__ import annotations

import pytest
import torch
from network_fixtures import clips, tiny_model
from torch import Tensor

from keyreid.model.network.attention_maps import _kept, _reference_patches, attention_maps
from keyreid.model.network.keyreid import KeyReID
from keyreid.model.network.part_attention import finish

VARIANTS = [
    {"variant": "aligned", "guidance": "bias"},
    {"variant": "aligned", "guidance": "multiply"},
    {"variant": "aligned", "guidance": "none"},
    {"variant": "aligned", "part_pooling": "average"},
    {"variant": "reference"},
]
WITH_BLOCK = [fields for fields in VARIANTS if "part_pooling" not in fields]


def ids(fields: dict[str, str]) -> str:
    return "-".join(fields.values())


def trained(fields: dict[str, str]) -> KeyReID:
    """In eval mode, with attention that is far from even."""
    model = tiny_model(**fields).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "qkv" in name:
                values.mul_(8)
    return model


def read_with(shares: Tensor, part, class_row: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """The part block read row by row with given shares, part by part: (B, P, D). The slow, plain way."""
    attention, features = part.block.attn, []
    value_weight, value_bias = attention.qkv.weight.chunk(3)[2], attention.qkv.bias.chunk(3)[2]
    for place in range(weights.shape[2]):
        scaled = rows * weights[:, :, place, None] if part.guidance == "multiply" else rows
        everything = part.block.norm1(torch.cat([class_row, scaled], dim=1))
        values = torch.nn.functional.linear(everything, value_weight, value_bias)
        heads = values.unflatten(2, (attention.num_heads, -1))
        gathered = torch.einsum("bhm,bmhd->bhd", shares[:, place], heads).flatten(1)[:, None]
        features.append(finish(part.block, class_row, gathered))
    return part.norm(torch.cat(features, dim=1))


@pytest.mark.parametrize("fields", WITH_BLOCK, ids=ids)
def test_a_block_read_with_the_shares_gives_its_features(fields):
    model = trained(fields)
    part = model.local_branch.attention
    with torch.no_grad(), _kept(part, lambda inputs, output: (*inputs, output)) as calls:
        model.describe(*clips(model))
        *inputs, features = calls[0]
        shares = part.shares(*inputs)
        assert torch.allclose(shares.sum(dim=-1), torch.ones((), dtype=torch.float64))
        assert shares.std() > 1e-3  # even shares would pass by themselves
        torch.testing.assert_close(read_with(shares, part, *inputs), features, atol=1e-9, rtol=1e-9)


def test_an_average_with_the_shares_gives_the_part_features():
    model = trained({"part_pooling": "average"})
    frames, weights, cameras = clips(model)
    maps = attention_maps(model, frames, weights, cameras)
    with torch.no_grad(), _kept(model.local_branch, lambda inputs, output: (inputs[0], output)) as calls:
        model.describe(frames, weights, cameras)
    tokens, features = calls[0]
    normed = model.local_branch.norm(tokens[:, :, 1:])
    assert torch.allclose(torch.einsum("bptn,btnd->bpd", maps.patches, normed), features)
    assert not maps.class_tokens.abs().gt(1e-6).any()


@pytest.mark.parametrize("fields", VARIANTS, ids=ids)
def test_shares_of_a_clip_sum_to_one(fields):
    model = trained(fields)
    frames, weights, cameras = clips(model)
    maps = attention_maps(model, frames, weights, cameras)
    num_clips, num_frames, num_patches, num_parts = weights.shape
    assert maps.frames.shape == (num_clips, num_frames)
    assert maps.patches.shape == (num_clips, num_parts, num_frames, num_patches)
    assert torch.allclose(maps.frames.sum(dim=1), torch.ones((), dtype=torch.float64))
    assert torch.allclose(maps.patches.sum(dim=(2, 3)) + maps.class_tokens, torch.ones((), dtype=torch.float64))
    assert maps.patches.min() >= 0 and maps.class_tokens.min() > -1e-6


@pytest.mark.parametrize("fields", VARIANTS, ids=ids)
def test_frame_shares_give_the_global_feature(fields):
    model = trained(fields)
    frames, weights, cameras = clips(model)
    shares = attention_maps(model, frames, weights, cameras).frames
    with torch.no_grad(), _kept(model.global_branch.norm, lambda _, output: output) as rows:
        feature = model.describe(frames, weights, cameras).global_feature
    class_tokens = rows[0].unflatten(0, shares.shape)
    expected = model.global_head.neck((shares[..., None] * class_tokens).sum(dim=1))
    torch.testing.assert_close(feature, expected, atol=1e-9, rtol=1e-9)


def test_patches_of_the_reference_are_those_that_its_rows_hold():
    """Attention that sees one token alone: in the raw reshape, and in the map, at the same place."""
    model = trained({"variant": "reference"})
    weights = clips(model, 1)[1]
    num_frames, num_patches = weights.shape[1:3]
    marked = torch.zeros(1, num_frames, 1 + num_patches, 1)
    marked[0, 2, 1 + 5] = 1  # patch 5 of frame 2
    rows = marked.reshape(1, 1 + num_patches, num_frames)
    shuffled = rows[:, model.local_branch.order].sum(dim=-1)

    shares = torch.cat([rows[:, :1].sum(dim=-1), shuffled], dim=1)[:, None]
    found = _reference_patches(shares, model.local_branch.order, num_frames)[0, 0]
    assert found[2, 5] == 1 / num_frames
    row = (2 * (1 + num_patches) + 1 + 5) // num_frames
    held = [divmod(row * num_frames + place, 1 + num_patches) for place in range(num_frames)]
    expected = torch.zeros_like(found)
    for frame, token in held:
        if token:
            expected[frame, token - 1] = 1 / num_frames
    assert torch.equal(found, expected)
