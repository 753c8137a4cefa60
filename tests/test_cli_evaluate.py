"""keyreid-eval: what it prints where, and one clear line for each mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from evaluation_dataset import ROWS, make_prepared, save_tiny_model

from keyreid.cli.evaluate import main
from keyreid.pipeline.commit import read_json
from keyreid.pipeline.manifest import IdentitySplit


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A finished training run: its weights lie in weights/."""
    folder = tmp_path_factory.mktemp("run")
    save_tiny_model(folder / "weights")
    return folder


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu"])


def refuse(message: str, *arguments: object) -> None:
    """The command fails with status 1 and one line that holds the message."""
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ") and message in line and "not foreseen" not in line, line


def test_the_table_goes_to_standard_output_and_the_bars_to_standard_error(prepared, run_folder):
    result = call(run_folder, prepared)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    headline, header, _, row, intervals = lines[:5]
    place = next(place for place, line in enumerate(lines) if "TMR" in line.split())
    thresholds, _, shares = lines[place : place + 3]
    assert headline == (
        "striped (identity split: the only one), protocol standard: 4 queries against 5 gallery tracklets"
    )
    assert header.split()[:5] == ["method", "protocol", "distance", "re-ranking", "Rank-1"]
    assert row.split()[:4] == ["trained", "standard", "euclidean", "none"] and row.endswith("3 of 4")
    assert re.fullmatch(r"( +\d+\.\d–\d+\.\d)+", intervals)  # below their figures
    assert "Percent, with 95 % intervals: bootstrap over 2 persons." in lines
    assert "Only 2 persons: the intervals themselves are rough." in lines
    assert any("false: 0" in line for line in lines)
    assert thresholds.split()[:3] == ["method", "protocol", "distance"] and "TMR @ 0.01 %" in thresholds
    assert shares.split()[:4] == ["trained", "standard", "euclidean", "none"]
    assert "embed (trained)" in result.stderr


@pytest.mark.parametrize("name", ["weights", "weights/model.safetensors"], ids=["folder", "file"])
def test_weights_are_taken_wherever_they_lie(name, prepared, run_folder):
    assert call(run_folder / name, prepared).stdout == call(run_folder, prepared).stdout


def test_baselines_json_and_report_hold_the_same_numbers(prepared, run_folder, tmp_path):
    result = call(run_folder, prepared, "--baselines", "--json", "--report", tmp_path / "report")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == read_json(tmp_path / "report" / "metrics.json")
    assert [one["method"] for one in printed["results"]] == [
        "trained",
        "untrained",
        "colour histogram",
        "part histogram",
    ]
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000


def test_the_report_is_named_and_the_protocol_can_be_chosen(prepared, run_folder, tmp_path):
    result = call(run_folder, prepared, "--protocol", "mars-official", "--report", tmp_path, "--batch-size", 3)
    assert "protocol mars-official: 4 queries against 9 gallery tracklets" in result.stdout
    assert result.stdout.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"


def test_kept_descriptors_give_the_same_table_without_the_network(prepared, run_folder, tmp_path):
    first = call(run_folder, prepared, "--descriptors", tmp_path / "d.h5")
    again = call(run_folder, prepared, "--descriptors", tmp_path / "d.h5")
    assert first.exit_code == 0 and first.stdout == again.stdout
    assert "embed:" in first.stderr and "embed:" not in again.stderr


def test_a_missing_checkpoint_is_refused(prepared, tmp_path):
    refuse(
        f"{tmp_path / 'none'} does not exist; expected a run of keyreid-train, or a folder", tmp_path / "none", prepared
    )
    (tmp_path / "empty").mkdir()
    refuse(f"{tmp_path / 'empty'} holds no model.safetensors, nor does", tmp_path / "empty", prepared)


def test_a_missing_config_is_refused(prepared, tmp_path):
    (save_tiny_model(tmp_path / "weights") / "config.json").unlink()
    refuse(f"there is no {tmp_path / 'weights' / 'config.json'}", tmp_path, prepared)


def test_an_unprepared_folder_and_missing_shards_are_refused(run_folder, tmp_path):
    refuse("is not a prepared dataset", run_folder, tmp_path / "nothing")
    unfinished = make_prepared(tmp_path / "unfinished", shards=False)
    refuse("unfinished has no shards yet; run the stages in order", run_folder, unfinished)


@pytest.mark.parametrize("side", ["query", "gallery"])
def test_a_dataset_without_queries_or_gallery_is_refused(side, run_folder, tmp_path):
    rows = tuple(row for row in ROWS if row[0] != side)
    refuse(f"the dataset has no {side} tracklets", run_folder, make_prepared(tmp_path, rows))


def test_queries_that_nobody_matches_are_refused(run_folder, tmp_path):
    refuse(
        "none of the 1 queries has a match in the gallery in another camera",
        run_folder,
        make_prepared(tmp_path, (("query", 1, 1, 2), ("gallery", 2, 2, 2))),
    )


def test_a_camera_unknown_to_the_network_is_refused(run_folder, tmp_path):
    rows = (("query", 1, 1, 2), ("gallery", 1, 7, 2))
    refuse("camera 7 is not in the network's camera table", run_folder, make_prepared(tmp_path, rows))


def test_an_unknown_protocol_is_refused(prepared, run_folder):
    refuse("unknown protocol 'standart'", run_folder, prepared, "--protocol", "standart")


def test_a_batch_of_nothing_is_refused(prepared, run_folder):
    refuse("a batch of 0 clips; expected at least 1", run_folder, prepared, "--batch-size", 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_a_device_is_refused(prepared, run_folder):
    result = CliRunner().invoke(main, [str(run_folder), str(prepared), "--device", "cuda"])
    assert result.exit_code == 1 and "CUDA is not available" in result.stderr


SPLITS = (IdentitySplit((1, 2), (5, 6), 1), IdentitySplit((5, 6), (1, 2), 2))


@pytest.fixture(scope="module")
def with_splits(tmp_path_factory) -> Path:
    rows = tuple(("train", identity, camera, 3) for identity in (1, 2, 5, 6) for camera in (1, 2))
    return make_prepared(tmp_path_factory.mktemp("splits"), rows, name="two", identity_splits=SPLITS)


def trained_on(folder: Path, split: int) -> Path:
    return save_tiny_model(folder, {"dataset": {"name": "two", "identity_split": split}})


def test_the_split_is_the_one_the_network_was_trained_on(with_splits, tmp_path):
    result = call(trained_on(tmp_path, 1), with_splits)
    assert result.stdout.startswith("two (identity split: 1 of 2), protocol standard: 2 queries against 2"), (
        result.output
    )
    assert call(tmp_path, with_splits, "--identity-split", 1).stdout == result.stdout


def test_a_split_whose_test_people_were_trained_on_is_refused(with_splits, tmp_path):
    message = "identity split 0 for a network trained on split 1 of two; expected split 1: it has seen test people"
    refuse(message, trained_on(tmp_path, 1), with_splits, "--identity-split", 0)


def test_a_network_of_another_dataset_takes_any_split(with_splits, run_folder):
    assert "identity split: 0 of 2" in call(run_folder, with_splits).stdout
    assert "identity split: 1 of 2" in call(run_folder, with_splits, "--identity-split", 1).stdout


def test_a_split_that_is_not_there_is_refused(with_splits, prepared, run_folder):
    refuse("identity split 2 of two, which has 2; expected 0 to 1", run_folder, with_splits, "--identity-split", 2)
    refuse(
        "identity split 1 of striped, which has 0; expected no --identity-split",
        run_folder,
        prepared,
        "--identity-split",
        1,
    )


def test_help_teaches():
    result = CliRunner().invoke(main, ["--help"])
    for word in ("CHECKPOINT", "--baselines", "mars-official", "Examples:"):
        assert word in result.stdout
