"""Backbones with rotary positions compute what timm's own forward pass does; their weights load and come back."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from network_fixtures import TINY, clips
from timm.models.eva import Eva
from torch import nn

from keyreid.model import ModelConfig, build_model, load_model
from keyreid.model.network.backbone import Backbone, create_vit, split_last_block
from keyreid.model.network.part_attention import class_token_row
from keyreid.model.network.weights import save_model
from keyreid.pipeline.errors import SettingsError

NAMES = ["eva02_tiny_patch14_224", "vit_small_patch16_dinov3", "vit_small_patch16_rope_ape_224"]
SIZES = {"patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}


def timms_rows(vit: Eva, frames: torch.Tensor, num_blocks: int) -> torch.Tensor:
    """All tokens after the first blocks, as timm's forward pass has them."""
    rows, angles = vit._pos_embed(vit.patch_embed(frames))
    rows = vit.norm_pre(rows)
    for block in vit.blocks[:num_blocks]:
        rows = block(rows, rope=angles)
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_timms(name: str) -> None:
    torch.manual_seed(0)
    vit = create_vit(ModelConfig(**TINY | {"backbone": name, "camera_scale": 0.0})).double().eval()
    for parameter in vit.parameters():  # the first ones are so small that blocks hardly change their input
        nn.init.normal_(parameter, std=0.3)
    frames = torch.randn(2, 3, 32, 16).double()
    shared, whole = timms_rows(vit, frames, 2), timms_rows(vit, frames, 3)
    num_prefix = vit.num_prefix_tokens
    block, _ = split_last_block(vit)
    backbone = Backbone(vit=vit, num_cameras=1, camera_scale=0.0).double().eval()
    tokens = backbone(frames, torch.zeros(2, dtype=torch.int64))
    assert torch.allclose(tokens, torch.cat([shared[:, :1], shared[:, num_prefix:]], dim=1), atol=1e-12)
    if num_prefix == 1:  # registers stay behind when the branches part
        assert torch.allclose(class_token_row(block.double(), tokens), whole[:, 0], atol=1e-12)
    moved = torch.cat([tokens[:, :1], tokens[:, 1:].flip(1)], dim=1)  # positions matter to the last block too
    assert not torch.allclose(class_token_row(block, moved), class_token_row(block, tokens), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_weights_load_and_come_back(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vit = timm.create_model(name, **SIZES, img_size=24, dynamic_img_size=False, num_classes=7)
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    with caplog.at_level(logging.INFO, "keyreid"):
        model = build_model(ModelConfig(**TINY | {"backbone": name, "pretrained": str(tmp_path / "vit.pth")}))
    assert "left out: head.bias, head.weight; new and random: none" in caplog.text
    wanted, found = vit.blocks[0].state_dict(), model.backbone.vit.blocks[0].block.state_dict()
    assert wanted.keys() == found.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
    save_model(model, tmp_path / "run")
    inputs = [tensor.float() if tensor.is_floating_point() else tensor for tensor in clips(model)]
    assert torch.equal(load_model(tmp_path / "run")(*inputs), model.eval()(*inputs))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone": "vit_small_patch16_rope_mixed_224"}, "learned for each block; expected fixed ones"),
        ({"backbone": "vit_small_patch16_dinov3", "stem": "conv"}, "is no ViT that takes a conv stem"),
        ({"backbone": "vit_base_patch16_sapiens2"}, "cannot make vit_base_patch16_sapiens2 of these sizes"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_model(ModelConfig(**TINY | fields))
