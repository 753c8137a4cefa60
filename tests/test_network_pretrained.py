"""Weights of backbones, in each form that others publish: what is loaded, what is left out, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from network_fixtures import TINY
from safetensors.torch import save_file
from torch import Tensor, nn

from keyreid.model import ModelConfig, build_model
from keyreid.pipeline.errors import CheckpointError

VIT = {"img_size": 24, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_backbone_weights_from_a_file(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of another frame size, with a classifier: positions are resized, the classifier is left out and named."""
    vit = timm.create_model("vit_tiny_patch16_224", **VIT, num_classes=7)
    path = tmp_path / f"vit{suffix}"
    torch.save({"model": vit.state_dict()}, path) if suffix == ".pth" else save_file(vit.state_dict(), path)
    with caplog.at_level(logging.INFO, "keyreid"):
        model = build_model(ModelConfig(**TINY, pretrained=str(path)))
    assert "left out: head.bias, head.weight" in caplog.text
    assert torch.equal(model.backbone.vit.blocks[1].attn.qkv.weight, vit.blocks[1].attn.qkv.weight)
    assert torch.equal(model.global_branch.block.mlp.fc1.weight, vit.blocks[2].mlp.fc1.weight)
    assert model.backbone.vit.pos_embed.shape == (1, 33, 24)
    assert torch.equal(model.backbone.vit.pos_embed[:, 0], vit.pos_embed[:, 0])


def google_arrays(vit: torch.nn.Module) -> dict[str, np.ndarray]:
    """The arrays of Google's published files: kernels are (in, out), heads are an axis of their own."""
    arrays: dict[str, torch.Tensor] = {
        "cls": vit.cls_token,
        "Transformer/posembed_input/pos_embedding": vit.pos_embed,
        "embedding/kernel": vit.patch_embed.proj.weight.permute(2, 3, 1, 0),
        "embedding/bias": vit.patch_embed.proj.bias,
        "Transformer/encoder_norm/scale": vit.norm.weight,
        "Transformer/encoder_norm/bias": vit.norm.bias,
        "head/kernel": torch.zeros(24, 7),
        "head/bias": torch.zeros(7),
    }
    for index, block in enumerate(vit.blocks):
        name = f"Transformer/encoderblock_{index}/"
        for norm, module in (("LayerNorm_0", block.norm1), ("LayerNorm_2", block.norm2)):
            arrays |= {f"{name}{norm}/scale": module.weight, f"{name}{norm}/bias": module.bias}
        attention = name + "MultiHeadDotProductAttention_1/"
        qkv = zip(("query", "key", "value"), block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3), strict=True)
        for which, weight, bias in qkv:
            arrays |= {f"{attention}{which}/kernel": weight.T.unflatten(1, (3, 8))}
            arrays |= {f"{attention}{which}/bias": bias.unflatten(0, (3, 8))}
        arrays |= {f"{attention}out/kernel": block.attn.proj.weight.T.unflatten(0, (3, 8))}
        arrays |= {f"{attention}out/bias": block.attn.proj.bias}
        for index, layer in enumerate((block.mlp.fc1, block.mlp.fc2)):
            arrays |= {f"{name}MlpBlock_3/Dense_{index}/kernel": layer.weight.T}
            arrays |= {f"{name}MlpBlock_3/Dense_{index}/bias": layer.bias}
    return {name: tensor.detach().numpy() for name, tensor in arrays.items()}


def test_backbone_weights_in_googles_format(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", **VIT)
    np.savez(tmp_path / "vit.npz", **google_arrays(vit))
    with caplog.at_level(logging.INFO, "keyreid"):
        model = build_model(ModelConfig(**TINY, pretrained=str(tmp_path / "vit.npz")))
    assert "left out: head/bias, head/kernel" in caplog.text
    saved = vit.state_dict()
    for name, tensor in model.backbone.vit.state_dict().items():
        assert name == "pos_embed" or torch.equal(tensor, saved[name]), name
    for name, tensor in model.global_branch.block.state_dict().items():
        assert torch.equal(tensor, saved[f"blocks.2.{name}"]), name


def test_backbone_weights_in_googles_format_of_a_deeper_network(tmp_path: Path) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", **(VIT | {"depth": 4}))
    np.savez(tmp_path / "vit.npz", **google_arrays(vit))
    with pytest.raises(CheckpointError, match=r"vit\.npz has 4 blocks; expected 3, as the backbone has"):
        build_model(ModelConfig(**TINY, pretrained=str(tmp_path / "vit.npz")))


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("gone.pth", lambda p: None, r"there is no file .*gone\.pth"),
        ("gone.npz", lambda p: None, r"there is no file .*gone\.npz"),
        ("junk.npz", lambda p: p.write_bytes(b"junk"), r"junk\.npz does not fit the backbone"),
        ("junk.pth", lambda p: p.write_bytes(b"junk"), r"junk\.pth cannot be read"),
        ("list.pth", lambda p: torch.save([1], p), r"list\.pth holds a list; expected a state dict"),
        ("object.pth", lambda p: torch.save({"model": Path("x")}, p), r"object\.pth cannot be read .*tensors only"),
        (
            "deep.pth",
            lambda p: torch.save(timm.create_model("vit_tiny_patch16_224", **(VIT | {"depth": 4})).state_dict(), p),
            r"unexpected: blocks\.3\.attn\.proj\.bias, .*; weights of vit_tiny_patch16_224 are needed",
        ),
        (
            "wide.pth",
            lambda p: torch.save(
                timm.create_model("vit_tiny_patch16_224", **(VIT | {"embed_dim": 48})).state_dict(), p
            ),
            r"of another shape: blocks\.0\.attn\.proj\.bias \(48,\) instead of \(24,\)",
        ),
    ],
)
def test_backbone_weights_that_do_not_fit(tmp_path: Path, name: str, make: Any, message: str) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(CheckpointError, match=message):
        build_model(ModelConfig(**TINY, pretrained=str(path)))


def build(path: Path | str, caplog: pytest.LogCaptureFixture, **fields: Any) -> nn.Module:
    """The backbone, whole again, of a network that starts from `path`; what was logged is in `caplog`."""
    with caplog.at_level(logging.INFO, "keyreid"):
        model = build_model(ModelConfig(**(TINY | {"pretrained": str(path)} | fields)))
    vit = model.backbone.vit
    vit.blocks.append(model.global_branch.block)
    vit.norm = model.global_branch.norm
    return vit


def resized(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """(1, N, C) of one grid on another, as pictures are resized."""
    picture = positions.unflatten(1, old).permute(0, 3, 1, 2)
    picture = nn.functional.interpolate(picture, new, mode="bicubic", antialias=True)
    return picture.permute(0, 2, 3, 1).flatten(1, 2)


def test_the_authors_backbone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The form of jx_vit_base_p16_224: 14 x 14 positions of a square picture, on the 16 x 8 patches of a person."""
    vit = timm.create_model("vit_base_patch16_224", embed_dim=24, depth=3, num_heads=3, num_classes=7)
    tensors = vit.state_dict() | {"pre_logits.fc.weight": torch.zeros(24, 24), "pre_logits.fc.bias": torch.zeros(24)}
    torch.save(tensors, tmp_path / "jx.pth")
    loaded = build(tmp_path / "jx.pth", caplog, backbone="vit_base_patch16_224", patch_size=0, frame_size=(256, 128))
    assert "resized: pos_embed (1, 197, 24) to (1, 129, 24)" in caplog.text
    assert "left out: head.bias, head.weight, pre_logits.fc.bias, pre_logits.fc.weight" in caplog.text
    assert f"loaded {len(vit.state_dict()) - 2} tensors" in caplog.text
    wanted = torch.cat([vit.pos_embed[:, :1], resized(vit.pos_embed[:, 1:], (14, 14), (16, 8))], dim=1)
    assert torch.allclose(loaded.pos_embed, wanted, atol=1e-6)
    for name, tensor in loaded.state_dict().items():
        assert name == "pos_embed" or torch.equal(tensor, tensors[name]), name


def test_a_distilled_network(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = "deit_tiny_distilled_patch16_224"
    vit = timm.create_model(name, **VIT, num_classes=7)
    save_file(vit.state_dict(), tmp_path / "deit.safetensors")
    loaded = build(tmp_path / "deit.safetensors", caplog, backbone=name)
    assert "left out: head.bias, head.weight, head_dist.bias, head_dist.weight" in caplog.text
    assert torch.equal(loaded.dist_token, vit.dist_token) and loaded.pos_embed.shape == (1, 2 + 32, 24)
    assert torch.equal(loaded.pos_embed[:, :2], vit.pos_embed[:, :2])


def test_registers_in_dinov2s_own_form(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its positions have a place for the class token, which timm adds to the token itself."""
    name, sizes = "vit_small_patch14_reg4_dinov2", VIT | {"img_size": 42, "patch_size": 14}
    vit = timm.create_model(name, **sizes)
    tensors = {("register_tokens" if n == "reg_token" else n): t for n, t in vit.state_dict().items()}
    place = torch.randn(1, 1, 24)
    tensors |= {"mask_token": torch.zeros(1, 24), "pos_embed": torch.cat([place, tensors["pos_embed"]], dim=1)}
    torch.save(tensors, tmp_path / "dinov2.pth")
    loaded = build(tmp_path / "dinov2.pth", caplog, backbone=name, patch_size=0, frame_size=(56, 28))
    assert "left out: mask_token" in caplog.text
    assert torch.equal(loaded.reg_token, vit.reg_token) and torch.equal(loaded.cls_token, vit.cls_token + place)
    assert torch.allclose(loaded.pos_embed, resized(vit.pos_embed, (3, 3), (4, 2)), atol=1e-6)
    assert torch.equal(loaded.blocks[1].ls1.gamma, vit.blocks[1].ls1.gamma)


def test_a_network_without_a_class_token_learns_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = "vit_base_patch16_siglip_gap_224"
    vit = timm.create_model(name, **VIT)
    torch.save(vit.state_dict(), tmp_path / "siglip.pth")
    loaded = build(tmp_path / "siglip.pth", caplog, backbone=name)
    assert f"{name} has no class token: a new one is learned" in caplog.text
    assert f"loaded {len(vit.state_dict())} tensors" in caplog.text and "new and random: cls_token" in caplog.text
    assert loaded.cls_token.shape == (1, 1, 24) and loaded.cls_token.requires_grad
    assert torch.allclose(loaded.pos_embed, resized(vit.pos_embed, (6, 6), (8, 4)), atol=1e-6)


def test_a_class_token_that_should_be_there_is_missed(tmp_path: Path) -> None:
    tensors = timm.create_model("vit_tiny_patch16_224", **VIT).state_dict()
    del tensors["cls_token"]
    torch.save(tensors, tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match="missing: cls_token"):
        build_model(ModelConfig(**TINY, pretrained=str(tmp_path / "vit.pth")))


def test_patches_of_another_size_are_resized(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A picture that is the same everywhere looks the same to patches of 4 and of 6."""
    vit = timm.create_model("vit_tiny_patch16_224", **VIT)
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    loaded = build(tmp_path / "vit.pth", caplog, patch_size=6, frame_size=(24, 12))
    assert "patch_embed.proj.weight (24, 3, 4, 4) to (24, 3, 6, 6)" in caplog.text
    before, after = (network.patch_embed.proj.weight.sum((2, 3)) for network in (vit, loaded))
    assert torch.allclose(after, before, rtol=1e-3, atol=1e-4)


def hub_with(monkeypatch: pytest.MonkeyPatch, **sizes: Any) -> None:
    """A hub whose every network has these sizes, and a classifier; without sizes, one that is out of reach."""
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained and not sizes:
            raise OSError("no route to host")
        return create(name, **(sizes | {"num_classes": 7} if pretrained else options))

    monkeypatch.setattr(timm, "create_model", offline)


def test_hub_weights(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    hub_with(monkeypatch, **VIT)
    torch.manual_seed(0)
    build("hub", caplog)
    assert "tensors from timm's hub; resized: pos_embed (1, 37, 24) to (1, 33, 24)" in caplog.text
    assert "left out: head.bias, head.weight" in caplog.text


def test_hub_weights_of_other_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm itself would load the three blocks that there are and say nothing of the fourth."""
    hub_with(monkeypatch, **VIT)
    with pytest.raises(CheckpointError, match=r"timm's hub does not fit the network; missing: blocks\.3\."):
        build_model(ModelConfig(**(TINY | {"pretrained": "hub", "depth": 4})))


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_with(monkeypatch)
    message = r"could not load weights for vit_tiny.*no route to host.*set pretrained to"
    with pytest.raises(CheckpointError, match=message):
        build_model(ModelConfig(**TINY, pretrained="hub"))
