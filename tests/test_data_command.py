"""The data options of keyreid-train, through the command."""

import pytest
import torch
from click.testing import CliRunner
from prepared_dataset import make_prepared
from safetensors.torch import load_file

from keyreid.cli.train import main

TINY = [
    "model.frame_size=[32, 16]", "model.width=24", "model.depth=2", "model.num_heads=2", "model.score_width=8",
    "training.epochs=2", "training.identities_per_batch=2", "training.clips_per_identity=2",
]  # fmt: skip
OPTIONS = ["--preset", "demo", "--device", "cpu", *(part for item in TINY for part in ("--set", item))]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"))


def run(prepared, out, *options):
    return CliRunner().invoke(main, [str(prepared), "--out", str(out), *OPTIONS, *options])


def test_a_cache_changes_no_weight_and_rendered_heatmaps_do_where_keypoints_differ(prepared, tmp_path):
    weights = {}
    for name, options in {
        "plain": [],
        "cache": ["--cache", "ram", "--cache-gigabytes", "0.0002"],
        "rendered": ["--heatmaps", "rendered"],  # the fixture's keypoints are all unseen, its heatmaps are not
    }.items():
        result = run(prepared, tmp_path / name, *options)
        assert result.exit_code == 0, result.output
        weights[name] = load_file(tmp_path / name / "weights" / "model.safetensors")
    assert all(torch.equal(value, weights["cache"][key]) for key, value in weights["plain"].items())
    assert not all(torch.equal(value, weights["rendered"][key]) for key, value in weights["plain"].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--decode", "device"], "decode device, and training runs on cpu; expected a CUDA device; use --decode host"),
        (["--cache", "ram", "--cache-gigabytes", "0"], "a cache of 0.0 gigabytes; expected more than 0"),
    ],
)
def test_what_cannot_be_is_one_line(prepared, tmp_path, options, message):
    result = run(prepared, tmp_path / "run", *options)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and f"Error: {message}" in result.stderr
    assert not (tmp_path / "run").exists()
