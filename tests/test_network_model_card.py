"""The README.md beside weights: what it says, and that figures of other weights do not get into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from evaluation_dataset import make_prepared, save_tiny_model, tiny_config

from keyreid.cli.evaluate import main as evaluate
from keyreid.cli.keyreid import main
from keyreid.model import load_model
from keyreid.model.network.model_card import model_card

EXTRA = {"dataset": {"name": "striped", "identity_split": 3, "shards": "abc"}, "epochs": 7, "steps": 90}


def test_a_card_without_figures_says_what_is_known() -> None:
    card = model_card(tiny_config(pretrained="/home/someone/vit.pth"), EXTRA)
    assert card.startswith("---\nlibrary_name: keyreid\n")
    assert "# KeyRe-ID, variant aligned, trained on striped" in card
    assert "| trained on | striped: 2 identities, 3 cameras in training, identity split 3 |" in card
    assert "| training | 7 epochs, 90 steps |" in card and "fingerprint of the shards abc" in card
    assert "started from vit.pth" in card and "someone" not in card
    assert "It knows the cameras 1, 2, 3 and refuses others." in card
    assert "Not measured." in card and "Rank-1" not in card


@pytest.mark.parametrize(
    ("fields", "said", "unsaid"),
    [
        ({"variant": "reference"}, "variant reference", "| parts |"),
        ({"part_pooling": "average"}, "| parts | pooled by average, guided by bias |", "of variant reference"),
        ({"camera_scale": 0.0}, "It does not look at which camera", "It knows the cameras"),
        ({"pretrained": "hub"}, "started from timm's pretrained weights", "random weights"),
        ({}, "started from random weights", "timm's"),
    ],
)
def test_what_the_config_says(fields: dict[str, Any], said: str, unsaid: str) -> None:
    card = model_card(tiny_config(**fields), {})
    assert said in card and unsaid not in card
    assert "trained on a dataset that was not recorded" in card


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["card", *map(str, arguments)])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and a folder with two reports about it."""
    folder = tmp_path_factory.mktemp("measured")
    prepared, run = make_prepared(folder / "prepared"), folder / "run"
    save_tiny_model(run / "weights", {"dataset": {"name": "striped", "identity_split": 0}})
    for name, options in (
        ("a", ["--baselines"]),
        ("b", ["--protocol", "mars-official", "--distance", "visible-parts"]),
    ):
        arguments = [run, prepared, "--report", folder / name, "--device", "cpu", *options]
        result = CliRunner().invoke(evaluate, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
    return run, folder


def test_figures_stand_with_their_protocol_and_distance(measured: tuple[Path, Path]) -> None:
    run, reports = measured
    result = call(run, "--metrics", reports / "a" / "metrics.json", "--metrics", reports / "b")
    assert result.exit_code == 0 and result.stdout.strip() == str(run / "weights" / "README.md")
    card = (run / "weights" / "README.md").read_text()
    first = json.loads((reports / "a" / "metrics.json").read_text())["results"][0]
    shares = " | ".join(f"{100 * first[name]:.1f}" for name in ("rank1", "rank5", "mAP", "mINP"))
    assert f"| striped | the only one | standard | euclidean | none | {shares} | 3 of 4 | 5 |" in card
    assert "| striped | the only one | mars-official | visible-parts | " in card
    assert "Not measured" not in card and "colour histogram" not in card
    assert load_model(run / "weights").config == tiny_config()


def test_figures_of_other_weights_are_refused(measured: tuple[Path, Path], tmp_path: Path) -> None:
    _, reports = measured
    other = save_tiny_model(tmp_path / "other", part_weight=0.5)
    result = call(other, "--metrics", reports / "a")
    assert result.exit_code == 1 and "was measured with other weights or another configuration" in result.stderr
    assert not (other / "README.md").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected metrics.json of keyreid-eval --report"),
        ("[]", "is not readable as JSON (a list at its top)"),
        ('{"format_version": 2}', "is not a metrics.json of version 2"),
        ("{", "is not readable as JSON"),
    ],
    ids=["none", "a list", "no results", "broken"],
)
def test_other_files_are_refused(content: str | None, message: str, tmp_path: Path) -> None:
    weights = save_tiny_model(tmp_path / "weights")
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    result = call(weights, "--metrics", tmp_path / "metrics.json")
    assert result.exit_code == 1 and message in result.stderr and "not foreseen" not in result.stderr
