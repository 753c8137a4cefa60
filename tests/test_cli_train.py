import json
import re
import time

import pytest
import timm
import torch
import yaml
from click.testing import CliRunner
from prepared_dataset import make_prepared

from keyreid.cli.train import main
from keyreid.model.data.labels import LabelTables
from keyreid.model.network.build import build_model
from keyreid.model.presets import preset_summaries
from keyreid.model.training.config import resolve_config
from keyreid.model.training.inputs import open_inputs
from keyreid.model.training.rehearsal import dry_run

CPU = torch.device("cpu")
TINY = [
    "model.frame_size=[32, 16]", "model.width=24", "model.depth=2", "model.num_heads=2", "model.score_width=8",
    "training.epochs=1", "training.identities_per_batch=2", "training.clips_per_identity=2",
]  # fmt: skip
OPTIONS = ["--preset", "demo", "--device", "cpu", *(part for item in TINY for part in ("--set", item))]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"))


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_one_line_at_the_end_and_json_on_request(prepared, tmp_path):
    result = run(prepared, "--out", tmp_path / "run", *OPTIONS, "--seed", 5)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("trained on 8 tracklets of 4 identities: 1 epochs, 2 steps, loss ")
    assert result.stdout.count("\n") == 1 and str(tmp_path / "run" / "weights") in result.stdout
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["training"]["seed"] == 5
    assert "| training | 1 epochs, 2 steps |" in (tmp_path / "run" / "weights" / "README.md").read_text()
    again = run(prepared, "--out", tmp_path / "run", *OPTIONS, "--seed", 5, "--resume", "--json")
    assert json.loads(again.stdout)["steps"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--preset", "vit-huge"],
            "preset is 'vit-huge'; expected one of authors, demo, vit-base, vit-base-8gpu, vit-small",
        ),
        (["--set", "training.epoch=1"], "unknown key training.epoch; .*did you mean epochs"),
        (["--set", "training.identities_per_batch=9"], "4 training identities; .*lower it with --set"),
        (["--resume"], "no run to resume"),
    ],
)
def test_errors_are_one_line(prepared, tmp_path, options, message):
    result = run(prepared, "--out", tmp_path / "run", *OPTIONS, *options)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    assert re.search(message, result.stderr)


def test_a_folder_that_is_not_prepared(tmp_path):
    result = run(tmp_path, "--out", tmp_path / "run", *OPTIONS)
    assert result.exit_code == 1 and "is not a prepared dataset" in result.stderr


def test_help_teaches():
    shown = run("--help").stdout
    assert "RUN/weights" in shown
    assert all(f"  {name}" in shown and summary in shown for name, summary in preset_summaries().items())


def test_the_config_is_printed_without_a_dataset_and_reads_back(prepared, tmp_path):
    result = run(*OPTIONS, "--seed", 7, "--print-config")
    assert result.exit_code == 0 and yaml.safe_load(result.stdout)["training"]["seed"] == 7
    file = tmp_path / "mine.yaml"
    file.write_text(result.stdout)
    assert run("--config", file, "--print-config").stdout == result.stdout


def test_a_dry_run_tells_what_to_expect_and_writes_nothing(prepared, tmp_path, monkeypatch):
    def files():
        return sorted((path, path.stat().st_mtime_ns) for folder in (prepared, tmp_path) for path in folder.rglob("*"))

    before = files()
    monkeypatch.chdir(tmp_path)
    shown = run(prepared, *OPTIONS, "--dry-run")
    assert shown.exit_code == 0, shown.output
    for words in ("8 tracklets of 4 identities", "about 2 batches of 4 clips", "clips/s on cpu", "1 epochs:"):
        assert words in shown.stdout
    found = json.loads(run(prepared, "--out", tmp_path / "run", *OPTIONS, "--dry-run", "--json").stdout)
    assert files() == before
    assert found["hours"] == pytest.approx(2 * found["seconds_per_step"] / 3600) and found["seconds_per_step"] > 0
    assert set(found["phases"]) == {
        "waiting for data", "copy and augmentation", "forward pass and losses", "backward pass", "optimisers",
        "moving average",
    }  # fmt: skip
    assert 10 < found["memory"]["host_peak_mib"] < 100_000
    assert found["parameters"] == sum(p.numel() for p in tiny_network().parameters() if p.requires_grad)


class QueueThenSlow:
    """The batches of a loader with a worker: what it made ahead at once, and then each after a while."""

    def __init__(self, loader, ahead):
        self.loader, self.sampler, self.steps, self.ahead = loader, loader.sampler, loader.steps, ahead

    def epoch(self, epoch):
        for batch in self.loader.epoch(epoch):
            self.ahead -= 1
            time.sleep(0.5 if self.ahead < 0 else 0)
            yield batch


def test_a_dry_run_sees_a_slow_loader_behind_what_was_made_ahead(prepared):
    config = resolve_config("demo", assignments=TINY)
    inputs = open_inputs(prepared, config, device=CPU, num_workers=0, identity_split=0)
    workers = 4
    slow = inputs._replace(loader=QueueThenSlow(inputs.loader, ahead=1 + 2 * workers), num_workers=workers)
    found = dry_run(slow, config, CPU)
    assert found.seconds_per_step > 0.5 and found.phases["waiting for data"] > 0.5


@pytest.mark.parametrize("option", ["--dry-run", "--profile"])
def test_a_rehearsal_that_does_not_fit_says_what_to_lower(prepared, tmp_path, monkeypatch, option):
    def full(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr("keyreid.model.training.rehearsal.train_step", full)
    result = run(prepared, "--out", tmp_path / "run", *OPTIONS, option)
    assert result.exit_code == 1 and "--set training.checkpoint_blocks=true recomputes the blocks" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_rehearsal_is_of_one_process(prepared, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = run(prepared, *OPTIONS, "--dry-run")
    assert result.exit_code == 1 and "in 2 processes; expected one" in result.stderr


def tiny_network():
    return build_model(resolve_config("demo", assignments=TINY).model_config(LabelTables((1, 2, 3, 4), (1, 2))))


def test_a_profile_is_a_trace_and_a_table_and_the_folder_can_still_be_trained_in(prepared, tmp_path):
    shown = run(prepared, "--out", tmp_path / "run", *OPTIONS, "--profile")
    assert shown.exit_code == 0, shown.output
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()] == ["trace.json"]
    trace = json.loads((tmp_path / "run" / "profile" / "trace.json").read_text())
    assert any(event.get("name") == "aten::addmm" for event in trace["traceEvents"])
    assert "backward pass" in shown.stdout and "aten::" in shown.stdout and "trace.json" in shown.stderr
    assert run(prepared, "--out", tmp_path / "run", *OPTIONS).exit_code == 0
    assert "Missing option '--out'" in run(prepared, *OPTIONS, "--profile").stderr


def test_what_is_missing_is_named(prepared):
    assert "Missing argument 'PREPARED'" in run("--out", "run").stderr
    assert "Missing option '--out'" in run(prepared).stderr


def test_what_was_loaded_of_a_backbone_and_what_was_not_is_told(prepared, tmp_path, caplog):
    sizes = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 7}
    torch.save(timm.create_model("vit_tiny_patch16_224", **sizes).state_dict(), tmp_path / "vit.pth")
    start = ["--set", "model.stem=patch", "--set", f"model.pretrained={tmp_path / 'vit.pth'}"]
    result = run(prepared, "--out", tmp_path / "run", *OPTIONS, *start)
    assert result.exit_code == 0, result.output
    assert "resized: pos_embed (1, 785, 24) to (1, 9, 24); left out: head.bias, head.weight" in caplog.text
