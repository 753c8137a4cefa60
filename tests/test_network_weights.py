"""Networks and backbones from disk: what comes back, and each way in which it cannot."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from network_fixtures import TINY, clips, tiny_model
from safetensors.torch import load_file, save_file

from keyreid.model import ModelConfig, build_model, load_model
from keyreid.model.network.weights import read_config, save_model
from keyreid.pipeline.errors import CheckpointError

VIT = {"img_size": 24, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}


@pytest.mark.parametrize("fields", [{}, {"variant": "reference"}, {"part_pooling": "average"}])
def test_round_trip_is_bit_equal(tmp_path: Path, fields: dict[str, Any]) -> None:
    model = tiny_model(**fields).float()
    save_model(model, tmp_path / "run", extra={"step": 7})
    for path in (tmp_path / "run", str(tmp_path / "run" / "model.safetensors")):
        loaded = load_model(path)
        assert not loaded.training and loaded.config == model.config
        saved = model.state_dict()
        assert all(torch.equal(tensor, saved[name]) for name, tensor in loaded.state_dict().items())
        inputs = [t.float() if t.is_floating_point() else t for t in clips(model)]
        assert torch.equal(loaded(*inputs), model.eval()(*inputs))
    assert read_config(tmp_path / "run") == (model.config, {"step": 7})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json", "model.safetensors"]


def test_a_loaded_network_does_not_ask_for_the_backbones_weights_again(tmp_path: Path) -> None:
    torch.save(timm.create_model("vit_tiny_patch16_224", **VIT).state_dict(), tmp_path / "vit.pth")
    model = build_model(ModelConfig(**TINY, pretrained=str(tmp_path / "vit.pth")))
    save_model(model, tmp_path)
    (tmp_path / "vit.pth").unlink()
    assert load_model(tmp_path).config.pretrained.endswith("vit.pth")


def without(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: without(t, "global_head.neck.weight"), r"missing: global_head\.neck\.weight"),
        (lambda t: t | {"extra.weight": torch.zeros(1)}, r"unexpected: extra\.weight"),
        (
            lambda t: t | {"global_head.classifier.weight": torch.zeros(9, 24)},
            r"of another shape: global_head\.classifier\.weight \(9, 24\) instead of \(5, 24\)",
        ),
        (lambda t: {f"x{i:02d}": torch.zeros(1) for i in range(20)}, r"unexpected: x00, .*x11 and 8 more"),
    ],
    ids=["missing", "unexpected", "shape", "something else"],
)
def test_tensors_that_do_not_fit(tmp_path: Path, change: Any, message: str) -> None:
    save_model(tiny_model(), tmp_path)
    save_file(change(load_file(tmp_path / "model.safetensors")), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


def rewrite(path: Path, **model_fields: Any) -> None:
    content = json.loads(path.read_text())
    content["model"] |= model_fields
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"there is no .*config\.json"),
        (lambda f: (f / "model.safetensors").unlink(), r"there is no file .*model\.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"oops"), r"model\.safetensors cannot be read"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json is not readable as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), r"format version None; expected 1"),
        (lambda f: rewrite(f / "config.json", variant="fast"), r"config\.json: variant is 'fast'; expected one of"),
        (lambda f: rewrite(f / "config.json", widht=24), r"unknown model field 'widht'.*did you mean width"),
    ],
    ids=["no config", "no weights", "broken weights", "broken config", "no version", "variant", "unknown field"],
)
def test_files_that_are_missing_or_broken(tmp_path: Path, spoil: Any, message: str) -> None:
    save_model(tiny_model(), tmp_path)
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


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


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        CheckpointError, match=r"could not load weights for vit_tiny.*no route to host.*set pretrained to"
    ):
        build_model(ModelConfig(**TINY, pretrained="hub"))
