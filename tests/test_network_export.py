"""Exported networks: the files, read by others' means, compute what the network does; what differs is not kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from network_fixtures import clips, tiny_model
from torch import Tensor

from keyreid.cli.keyreid import main
from keyreid.model import KeyReID
from keyreid.model.network import export
from keyreid.model.network.export import export_model
from keyreid.model.network.weights import save_model
from keyreid.pipeline.errors import CheckpointError, SettingsError


def run_pt2(path: Path, *inputs: Tensor) -> list[Tensor]:
    return list(torch.export.load(path).module()(*inputs))


def run_onnx(path: Path, *inputs: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = ["frames", "part_weights", "cameras"][: len(inputs)]
    assert [entry.name for entry in session.get_inputs()] == names
    outputs = ["descriptor", "global_feature", "part_features", "visibility"]
    fed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return [torch.from_numpy(values) for values in session.run(outputs, fed)]


def inputs_of(model: KeyReID, num_clips: int) -> list[Tensor]:
    tensors = [t.float() if t.is_floating_point() else t for t in clips(model, num_clips, seed=7)]
    return tensors if model.config.camera_scale else tensors[:2]


def config_in(path: Path) -> Any:
    entries = {"config.json": ""}
    if path.suffix == ".pt2":
        torch.export.load(path, extra_files=entries)
    else:
        entries |= {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return json.loads(entries["config.json"])


@pytest.mark.parametrize(
    ("name", "run", "fields"),
    [
        ("out.pt2", run_pt2, {"part_pooling": "average", "backbone": "deit_tiny_distilled_patch16_224"}),
        ("out.onnx", run_onnx, {}),
        ("out.onnx", run_onnx, {"variant": "reference", "camera_scale": 0.0}),
    ],
    ids=["pt2, average, distilled", "onnx", "onnx, reference without cameras"],
)
def test_a_file_computes_what_the_network_does(
    name: str, run: Callable[..., list[Tensor]], fields: dict[str, Any], tmp_path: Path
) -> None:
    model = tiny_model(depth=2, **fields)
    written = export_model(model, tmp_path / name)
    assert model.training and next(model.parameters()).dtype == torch.float64  # left as it was
    assert list(tmp_path.iterdir()) == [tmp_path / name]
    assert written.num_bytes == (tmp_path / name).stat().st_size and written.difference < 1e-5
    assert len(written.inputs) == (3 if model.config.camera_scale else 2)
    assert config_in(tmp_path / name) == model.config.to_dict()
    model = model.float().eval()
    for num_clips in (1, 3):  # 3: neither traced nor checked
        inputs = inputs_of(model, num_clips)
        full = [*inputs, torch.zeros(num_clips, dtype=torch.int64)][:3]
        descriptor, *parts = run(tmp_path / name, *inputs)
        wanted = model.describe(*full)
        assert torch.allclose(descriptor, model(*full), atol=1e-5)
        for found, field in zip(parts, ("global_feature", "part_features", "visibility"), strict=True):
            assert torch.allclose(found, getattr(wanted, field), atol=1e-4, rtol=1e-4), field


def fake_format(monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor] = lambda t: t) -> None:
    """Files that hold nothing and compute what the network does but for the last output: without seconds of tracing."""
    networks: list[Any] = []
    monkeypatch.setattr(export, "_trace", networks.append)
    monkeypatch.setattr(export, "_write_pt2", lambda program, path, inputs, config: path.write_text(config))

    def load(path: Path) -> Callable[..., tuple[Tensor, ...]]:
        return lambda *inputs: (*networks[0](*inputs)[:3], change(networks[0](*inputs)[3]))

    monkeypatch.setattr(export, "_load_pt2", load)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t + 1e-3,
            r"visibility of the network as written to .*out\.pt2 differs by 1\.0e-03 \(relative\) for 1",
        ),
        (lambda t: t * torch.nan, "differs by nan"),
        (lambda t: t if len(t) == 1 else t + 1e-3, r"\(relative\) for 5 clips"),
        (lambda t: t.view(-1, 7), r"what was written not run \(RuntimeError: shape '\[-1, 7\]' is invalid"),
        (lambda t: t[:, :5], r"in shape \(1, 5\); expected at most 1e-04, in shape \(1, 6\); nothing was kept"),
    ],
    ids=["value", "not a number", "batch of 5 alone", "does not run", "shape"],
)
def test_what_differs_is_not_kept(
    change: Callable[[Tensor], Tensor], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.pt2").write_text("older")
    fake_format(monkeypatch, change)
    with pytest.raises(CheckpointError, match=message):
        export_model(tiny_model(depth=2), tmp_path / "out.pt2")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(depth=2)
    with pytest.raises(SettingsError, match=r"out\.pth ends in \.pth; expected \.pt2 \(torch\.export\) or \.onnx"):
        export_model(model, tmp_path / "out.pth")
    monkeypatch.setattr(export, "ONNX_LIMIT", 1000)
    with pytest.raises(SettingsError, match=r"0\.0 GB; expected at most 2 GB in one ONNX file; export to \.pt2"):
        export_model(model, tmp_path / "out.onnx")
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(SettingsError, match=r'needs onnxscript, not installed here; pip install "keyreid\[export\]"'):
        export_model(model, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def call(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_format(monkeypatch)
    save_model(tiny_model(depth=2), tmp_path / "run" / "weights")
    result = call(tmp_path / "run", tmp_path / "out.pt2")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{tmp_path / 'out.pt2'}: 0.0 MB, ") and result.stdout.count("\n") == 1
    assert "inputs frames, part_weights, cameras; differs from the network by at most" in result.stdout
    as_json = json.loads(call(tmp_path / "run" / "weights", tmp_path / "b.pt2", "--json").stdout)
    assert as_json["path"] == str(tmp_path / "b.pt2") and as_json["difference"] == 0


@pytest.mark.parametrize(
    ("model", "out", "message"),
    [
        ("run", "out.txt", "out.txt ends in .txt; expected .pt2 (torch.export) or .onnx"),
        ("none", "out.pt2", "does not exist; expected a run of keyreid-train"),
    ],
    ids=["ending", "no model"],
)
def test_mistakes_are_one_line(model: str, out: str, message: str, tmp_path: Path) -> None:
    save_model(tiny_model(depth=2), tmp_path / "run" / "weights")
    result = call(tmp_path / model, tmp_path / out)
    assert result.exit_code == 1 and result.stdout == ""
    assert message in result.stderr and result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
