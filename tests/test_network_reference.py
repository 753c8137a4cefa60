"""What the `reference` variant inherits (M1, M3), and the authors' checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from network_fixtures import TINY, clips, tiny_model

from keyreid.model import KeyReID, ModelConfig, build_model, load_authors_checkpoint
from keyreid.model.network import authors
from keyreid.model.network.local_branch import reference_order
from keyreid.pipeline.errors import CheckpointError, SettingsError


def close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-10) -> bool:
    return bool((found - wanted).norm() <= tolerance * wanted.norm())


def test_every_part_counts_as_seen() -> None:
    model = tiny_model(variant="reference")
    frames, weights, cameras = clips(model)
    output = model(frames, torch.full_like(weights, -1.0), cameras)
    assert torch.equal(output.part_visibility, torch.ones(3, 6, dtype=torch.float64))


def test_weights_act_by_their_sign_alone() -> None:
    """M1: a norm right after the product divides the size of a weight out."""
    model = tiny_model(variant="reference").eval()
    frames, weights, cameras = clips(model)
    weights = weights[:, :1].expand_as(weights)  # so that the mean over frames keeps its size
    weights = weights.sign() * (0.2 + 0.8 * weights.abs())
    with torch.no_grad():
        parts, signs, ones = (
            model.describe(frames, w, cameras).part_features for w in (weights, weights.sign(), weights.abs())
        )
    assert (parts - signs).norm() < 1e-4 * parts.norm()
    assert (parts - ones).norm() > 0.05 * parts.norm()


def test_order_of_rows_matters_only_through_unpermuted_weights() -> None:
    """M3: rotating and interleaving rows is seen by nobody unless rows carry different weights."""
    model = tiny_model(variant="reference").eval()
    frames, weights, cameras = clips(model)
    mixed = tiny_model(variant="reference").eval()
    mixed.local_branch.order = torch.arange(1, weights.shape[2] + 1)
    same = torch.full_like(weights, -1.0)
    with torch.no_grad():
        assert close(model(frames, same, cameras), mixed(frames, same, cameras), 1e-12)
        assert not close(model(frames, weights, cameras), mixed(frames, weights, cameras), 1e-3)


def test_reference_order_by_hand() -> None:
    # Rows 1 to 8, rotated so that row 5 leads, then 5 6 7 8 between 1 2 3 4.
    assert reference_order(8).tolist() == [5, 1, 6, 2, 7, 3, 8, 4]


def authors_state(model: KeyReID) -> dict[str, torch.Tensor]:
    """A state dict with the authors' names, by hand: what `model` holds, and what their code holds besides."""
    renamed = {
        "backbone.vit.": "base.", "global_branch.block.": "b1.0.", "global_branch.norm.": "b1.1.",
        "global_branch.score_hidden.": "attention_conv.", "global_branch.score.": "attention_tconv.",
        "local_branch.attention.block.": "b2.0.", "local_branch.attention.norm.": "b2.1.",
        "global_head.neck.": "bottleneck.", "global_head.classifier.": "classifier.",
    }  # fmt: skip
    state = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in renamed.items():
            if name.startswith(ours):
                state[theirs + name.removeprefix(ours)] = tensor
    state["base.Cam"] = model.backbone.camera_embedding.weight.detach()[:, None]
    state["attention_conv.weight"] = state["attention_conv.weight"][:, :, None, None]
    width = model.part_heads.classifiers.shape[2]
    for part in range(6):
        state[f"classifier_{part + 1}.weight"] = model.part_heads.classifiers.detach()[part]
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensor = getattr(model.part_heads.neck, name).detach()
            state[f"bottleneck_{part + 1}.{name}"] = tensor[part * width : (part + 1) * width]
        state[f"bottleneck_{part + 1}.num_batches_tracked"] = model.part_heads.neck.num_batches_tracked
    block = model.global_branch.block.state_dict()
    state |= {f"base.blocks.2.{name}": torch.zeros_like(tensor) for name, tensor in block.items()}
    state |= {"base.norm.weight": torch.zeros(24), "base.norm.bias": torch.zeros(24)}
    state |= {"base.fc.weight": torch.zeros(1000, 24), "base.fc.bias": torch.zeros(1000)}
    local = model.local_branch.attention.block.state_dict()
    return state | {f"block1.{name}": tensor for name, tensor in local.items()}


@pytest.mark.parametrize("wrapped", ["plain", "DataParallel", "file"])
def test_authors_checkpoint_gives_the_same_descriptor(wrapped: str, tmp_path: Path) -> None:
    model = tiny_model(variant="reference").eval()
    state = authors_state(model)
    source = state
    if wrapped == "DataParallel":
        source = {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    if wrapped == "file":
        source = tmp_path / "Marsbest.pth"
        torch.save({"model": state}, source)
    loaded = load_authors_checkpoint(source, model.config).double()
    inputs = clips(model)
    assert not loaded.training
    with torch.no_grad():
        # The network is float32 until it is told otherwise, so tensors were rounded on their way in.
        assert close(loaded(*inputs), model(*inputs), 1e-5)
    for name, tensor in model.state_dict().items():  # classifiers are no part of the descriptor
        assert torch.allclose(loaded.state_dict()[name], tensor, atol=1e-6), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("classifier_3.weight"), r"missing: classifier_3\.weight"),
        (lambda s: s.update({"b3.0.weight": torch.zeros(1)}), r"unexpected: b3\.0\.weight"),
        (lambda s: s.update({"b2.1.bias": torch.zeros(7)}), r"shape: b2\.1\.bias \(7,\) instead of \(96,\)"),
        (
            lambda s: s.update({"classifier_3.weight": torch.zeros(7, 96), "bottleneck_2.bias": torch.zeros(9)}),
            r"shape: bottleneck_2\.bias \(9,\) instead of \(96,\), classifier_3\.weight \(7, 96\) instead of \(5, 96\)",
        ),
        (
            lambda s: s.update({"x": s.pop("b1.1.bias"), "b1.1.weight": torch.zeros(7)}),
            r"missing: b1\.1\.bias; unexpected: x; of another shape: b1\.1\.weight \(7,\) instead of \(24,\)",
        ),
        (lambda s: s.update({"block1.norm1.bias": torch.zeros(96)}), r"block1\.norm1\.bias and b2\.0\.norm1\.bias"),
        (lambda s: s.update({"base.Cam": torch.zeros(5, 1, 24)}), r"has 5 cameras; expected 3.*camera_scale to 0"),
        (
            lambda s: s.update({"base.blocks.3.norm1.bias": torch.zeros(24)}),
            r"unexpected: base\.blocks\.3\.norm1\.bias",
        ),
    ],
    ids=["missing", "unknown", "shape", "shapes of single parts", "all at once", "two names", "cameras", "deeper"],
)
def test_authors_checkpoint_that_does_not_fit(change, message: str) -> None:
    model = tiny_model(variant="reference")
    state = authors_state(model)
    change(state)
    with pytest.raises(CheckpointError, match=message):
        load_authors_checkpoint(state, model.config)


def test_authors_checkpoint_is_never_unpickled_beyond_tensors(tmp_path: Path) -> None:
    torch.save({"model": authors_state(tiny_model(variant="reference")), "epoch": Path("x")}, tmp_path / "Marsbest.pth")
    with pytest.raises(CheckpointError, match=r"Marsbest\.pth cannot be read .*tensors only"):
        load_authors_checkpoint(tmp_path / "Marsbest.pth")


def test_without_a_config_sizes_and_cameras_are_the_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def build_tiny(config: ModelConfig, *, load_backbone: bool) -> KeyReID:
        asked.append((config, load_backbone))
        return build_model(ModelConfig(**TINY, variant="reference", camera_numbers=config.camera_numbers))

    monkeypatch.setattr(authors, "build_model", build_tiny)  # the paper's size would take seconds and a gigabyte
    loaded = load_authors_checkpoint(authors_state(tiny_model(variant="reference")))
    expected = ModelConfig(variant="reference", num_identities=5, num_cameras=3, camera_numbers=(1, 2, 3))
    assert asked == [(expected, False)]
    assert loaded.config.camera_table == (1, 2, 3)


def test_authors_checkpoint_without_cameras() -> None:
    state = authors_state(tiny_model(variant="reference"))
    loaded = load_authors_checkpoint(state, ModelConfig(**TINY, variant="reference", camera_scale=0.0))
    assert loaded.backbone.camera_embedding is None


def test_authors_checkpoint_needs_the_reference_variant() -> None:
    with pytest.raises(SettingsError, match="variant is 'aligned'; expected 'reference'"):
        load_authors_checkpoint(authors_state(tiny_model(variant="reference")), ModelConfig(**TINY))


def test_authors_checkpoint_of_something_else() -> None:
    with pytest.raises(
        CheckpointError, match=r"lacks base\.Cam, classifier\.weight; expected a state dict of the auth"
    ):
        load_authors_checkpoint({"fc.weight": torch.zeros(2)})


def test_reference_needs_an_even_number_of_patches() -> None:
    with pytest.raises(SettingsError, match="'reference' with 15 patches"):
        tiny_model(variant="reference", frame_size=(20, 12))
