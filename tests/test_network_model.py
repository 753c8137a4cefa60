"""The network as a whole: shapes, gradients, cameras, backbones, and the class-token row alone."""

from __future__ import annotations

import pytest
import torch
from network_fixtures import TINY, clips, tiny_model
from timm.models.vision_transformer import Block, ParallelScalingBlock

from keyreid.model import ModelConfig, build_model
from keyreid.model.network.part_attention import class_token_row, is_plain_block
from keyreid.model.presets import read_preset
from keyreid.pipeline.errors import KeyReIDError, SettingsError

EACH_KIND = pytest.mark.parametrize(
    "fields",
    [{}, {"variant": "reference"}, {"part_pooling": "average"}, {"guidance": "multiply"}, {"guidance": "none"}],
    ids=["aligned", "reference", "average", "multiply", "none"],
)


@EACH_KIND
def test_shapes(fields: dict[str, str]) -> None:
    model = tiny_model(**fields)
    inputs = clips(model)
    width = 24 if fields.get("part_pooling") else 96
    assert model.patch_grid == (8, 4)
    expected = [(3, 24), (3, 6, width), (3, 5), (3, 6, 5), (3, 4), (3, 6)]
    assert [tuple(tensor.shape) for tensor in model(*inputs)] == expected
    assert model.eval()(*inputs).shape == (3, 24 + 6 * width)


@EACH_KIND
def test_gradients_reach_every_parameter(fields: dict[str, str]) -> None:
    model = tiny_model(**fields)
    output = model(*clips(model))
    sum(tensor.square().sum() for tensor in output[:5]).backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None or not (p.grad.abs() > 0).any()] == []
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"global_head.neck.bias", "part_heads.neck.bias"}


def test_the_camera_reaches_the_descriptor_unless_its_scale_is_zero() -> None:
    for scale, reaches in ((3.0, True), (0.0, False)):
        model = tiny_model(camera_scale=scale).eval()
        frames, weights, _ = clips(model)
        first, second = (model(frames, weights, torch.full((3,), camera)) for camera in (0, 2))
        assert torch.equal(first, second) is not reaches


def test_describe_refuses_training_mode() -> None:
    model = tiny_model()
    with pytest.raises(KeyReIDError, match=r"in training mode; expected eval mode; call model\.eval\(\)"):
        model.describe(*clips(model))


@pytest.mark.parametrize(
    ("index", "cut", "message"),
    [
        (0, (slice(None), slice(3)), r"frames of shape \(3, 3, 3, 32, 16\); expected \(3, 4, 3, 32, 16\)"),
        (1, (..., slice(5)), r"part_weights of shape \(3, 4, 32, 5\); expected \(3, 4, 32, 6\)"),
        (2, (slice(2),), r"cameras of shape \(2,\); expected \(3,\)"),
    ],
    ids=["clip too short", "five parts", "a camera missing"],
)
def test_wrong_shapes(index: int, cut: tuple[slice, ...], message: str) -> None:
    model = tiny_model()
    inputs = list(clips(model))
    inputs[index] = inputs[index][cut]
    with pytest.raises(KeyReIDError, match=message):
        model(*inputs)


@pytest.mark.parametrize(
    ("block", "plain"),
    [
        (Block(24, 3, qkv_bias=True), True),
        (Block(24, 3, qkv_bias=False, init_values=0.5), True),
        (Block(24, 3, qkv_bias=True, qk_norm=True), False),
        (Block(24, 3, qkv_bias=True, scale_attn_norm=True), False),
        (ParallelScalingBlock(24, 3), False),
    ],
    ids=["plain", "layer scale, no biases", "norms of queries and keys", "norm in the attention", "parallel"],
)
def test_class_row_is_the_blocks_first_row(block: torch.nn.Module, plain: bool) -> None:
    rows = torch.randn(2, 9, 24).double()
    block = block.double().eval()
    assert is_plain_block(block) is plain
    assert torch.allclose(class_token_row(block, rows), block(rows)[:, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vit_base_patch16_224", {}),
        ("deit_tiny_distilled_patch16_224", {}),
        ("vit_small_patch14_reg4_dinov2", {"patch_size": 7, "frame_size": (35, 21)}),  # registers and layer scale
        ("vit_base_patch16_clip_224", {}),  # a norm before the blocks
        ("vit_base_patch16_siglip_224", {}),  # no class token
        ("vit_small_patch16_dinov3", {}),  # rotary positions and registers
        ("eva02_tiny_patch14_224", {"patch_size": 7, "frame_size": (35, 21)}),  # rotary and absolute positions
        ("vit_base_patch16_rope_reg1_gap_256", {}),  # rotary positions, no class token
        ("vit_base_patch16_18x2_224", {}),  # two blocks side by side
        ("vit_base_patch16_xp_224", {}),  # attention next to the MLP
        ("vit_base_patch16_224", {"stem": "conv", "patch_size": 8}),
    ],
)
def test_backbones(name: str, fields: dict[str, object]) -> None:
    model = tiny_model(**({"backbone": name} | fields)).eval()
    frames, weights, cameras = clips(model)
    assert tuple(side * fields.get("patch_size", 4) for side in model.patch_grid) == model.config.frame_size
    assert model(frames, weights, cameras).shape == (3, 24 + 6 * 96)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone": "vit_bas_patch16_224"}, "has no model 'vit_bas_patch16_224'; expected the name of a ViT"),
        (
            {"backbone": "resnet18"} | dict.fromkeys(("patch_size", "width", "depth", "num_heads"), 0),
            "resnet18 is no V",
        ),
        ({"depth": 1}, r"1 block\(s\); expected 2 or more"),
        ({"stem": "conv", "patch_size": 6}, "'conv' with patch_size 6 and width 24; expected a patch_size of 4, 8"),
        ({"local_heads": 7}, "a part block of width 96 with 7 heads"),
        ({"frame_size": (32, 18)}, r"frame_size \(32, 18\) with patches of 4; .* 32x16 would do"),
    ],
)
def test_backbones_that_do_not_fit(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_model(ModelConfig(**(TINY | fields)))


def test_demo_preset_is_light() -> None:
    model = build_model(ModelConfig(num_identities=24, num_cameras=4, **read_preset("demo")["model"]))
    assert model.patch_grid == (16, 8)
    assert sum(parameter.numel() for parameter in model.parameters()) < 3_000_000
