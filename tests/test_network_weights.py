"""Networks from disk: what comes back, and each way in which it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from mutations import mutate
from network_fixtures import TINY, clips, tiny_model
from safetensors.torch import load_file

from keyreid.model import ModelConfig, build_model, load_model
from keyreid.model.network.state_dict import save_tensors
from keyreid.model.network.weights import read_config, save_model
from keyreid.pipeline.commit import read_json, write_json
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
    save_tensors(tmp_path / "model.safetensors", change(load_file(tmp_path / "model.safetensors")))
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


def rewrite(path: Path, **model_fields: Any) -> None:
    content = read_json(path)
    content["model"] |= model_fields
    write_json(path, content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"there is no .*config\.json"),
        (lambda f: (f / "model.safetensors").unlink(), r"there is no file .*model\.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"oops"), r"model\.safetensors holds no hash of itself"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json is not readable as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), r"a list at its top"),
        (lambda f: rewrite(f / "config.json", variant="fast"), r"config\.json: model\.variant is 'fast'; expected"),
        (lambda f: rewrite(f / "config.json", widht=24), r"unknown key model\.widht.*did you mean width"),
    ],
    ids=["no config", "no weights", "broken weights", "broken config", "no version", "variant", "unknown field"],
)
def test_files_that_are_missing_or_broken(tmp_path: Path, spoil: Any, message: str) -> None:
    save_model(tiny_model(), tmp_path)
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_file_is_refused_or_changes_nothing(tmp_path: Path, name: str) -> None:
    model, path, generator = tiny_model().float(), tmp_path / name, np.random.default_rng(0)
    save_model(model, tmp_path, {"dataset": {"name": "mars"}})
    content, expected, refused = path.read_bytes(), read_config(tmp_path), 0
    for damaged in {mutate(content, generator) for _ in range(150)} - {content}:
        path.write_bytes(damaged)
        try:
            loaded = load_model(tmp_path)
        except CheckpointError:
            refused += 1
            continue
        assert read_config(tmp_path) == expected
        assert all(torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in model.state_dict().items())
    assert refused > 140  # blanks of JSON do not matter
