"""A run stopped at any step resumes as if it had not been: by exceptions and signals here, and as a command."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from prepared_dataset import make_prepared
from safetensors.torch import load_file
from training_fixtures import CPU, TINY, assignments, records, same_results

from keyreid.model.training import loop
from keyreid.model.training.config import resolve_config
from keyreid.model.training.failures import EXIT_CODE, TrainingStopped
from keyreid.model.training.trainer import train

COMMAND = Path(sys.executable).with_name("keyreid-train")
VALIDATED = ("training.validate_on=holdout", "training.holdout_share=0.3", "training.evaluate_every=1")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"), identities=8)


class Killed(BaseException):
    """As if the process ended here: nothing of ours catches it."""


def at_step(monkeypatch, number, act):
    """Act after the number-th step of this process."""
    real, done = loop.train_step, 0

    def step(*arguments):
        nonlocal done
        terms = real(*arguments)
        done += 1
        if done == number:
            act()
        return terms

    monkeypatch.setattr(loop, "train_step", step)


def kill():
    raise Killed


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def ask_to_leave():
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize("preset", ["demo", "vit-small"], ids=["adamw", "sgd"])
def test_any_stop_leaves_the_same_bits(prepared, tmp_path, monkeypatch, preset):
    """Six epochs of three steps, evaluated each, with a checkpoint at every second step; log lines span stops."""
    config = resolve_config(
        preset, assignments=[*TINY, *VALIDATED, "training.epochs=6", "training.log_every=2",
                             "training.checkpoint_every=4", "training.checkpoint_every_steps=2"],
    )  # fmt: skip
    train(prepared, tmp_path / "straight", config, device=CPU)
    draw = random.Random(preset)
    ways = [(kill, Killed), (terminate, TrainingStopped), (ask_to_leave, TrainingStopped), (kill, Killed)]
    for stops, (act, expected) in enumerate(ways):
        with monkeypatch.context() as patch:
            at_step(patch, draw.randint(1, 4), act)
            with pytest.raises(expected):
                train(prepared, tmp_path / "stopped", config, device=CPU, resume=stops > 0)
    summary = train(prepared, tmp_path / "stopped", config, device=CPU, resume=True)
    assert summary.steps == 18 and set(summary.best) == {"mAP", "rank1"}
    same_results(tmp_path / "straight", tmp_path / "stopped")


def test_a_signal_while_measuring_ends_the_run_at_once(prepared, tmp_path, monkeypatch):
    config = resolve_config("demo", assignments=[*TINY, *VALIDATED, "training.epochs=2"])
    train(prepared, tmp_path / "straight", config, device=CPU)
    with monkeypatch.context() as patch:
        patch.setattr(
            "keyreid.model.training.inputs.embed_tracklets",
            lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM) or pytest.fail("went on"),
        )
        with pytest.raises(TrainingStopped, match=r"stopped by SIGTERM; everything .*last.safetensors; .*--resume"):
            train(prepared, tmp_path / "stopped", config, device=CPU)
    assert [line["kind"] for line in records(tmp_path / "stopped")] == ["step", "epoch"]
    train(prepared, tmp_path / "stopped", config, device=CPU, resume=True)
    same_results(tmp_path / "straight", tmp_path / "stopped")


def start(prepared, run, options, *more):
    """keyreid-train as a process group of its own."""
    line = [COMMAND, prepared, "--out", run, "--preset", "demo", "--device", "cpu", *options, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(word) for word in line], env=environment, text=True, stderr=subprocess.PIPE, start_new_session=True
    )


def signal_after(process, run, number_of_records, which):
    """Signal all processes of a run once it has logged so many lines; returns what it wrote on standard error."""
    metrics = run / "metrics.jsonl"
    while process.poll() is None:
        if metrics.exists() and len(metrics.read_bytes().splitlines()) >= number_of_records:
            os.killpg(process.pid, which)
            break
        time.sleep(0.01)
    return process.communicate()[1]


def test_the_command_survives_signals(prepared, tmp_path):
    """SIGKILL, and SIGTERM to the trainer and its workers alike, as clusters send it."""
    run, draw = tmp_path / "stopped", random.Random(7)
    values = [
        *TINY, "training.epochs=24", "training.log_every=1", "training.checkpoint_every=40",
        "training.checkpoint_every_steps=2",
    ]  # fmt: skip
    options = assignments(values)
    process = start(prepared, run, options)
    errors = signal_after(process, run, draw.randint(5, 20), signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, errors
    process = start(prepared, run, options, "--resume", "--workers", 1)
    errors = signal_after(process, run, len(records(run)) + draw.randint(3, 15), signal.SIGTERM)
    assert process.returncode == EXIT_CODE, errors
    assert f"Stopped: stopped by SIGTERM; everything up to here is saved in {run}" in errors
    assert "Traceback" not in errors
    config = resolve_config("demo", assignments=values)
    train(prepared, run, config, device=CPU, resume=True)
    train(prepared, tmp_path / "straight", config, device=CPU)
    same_results(tmp_path / "straight", run)


def test_the_checkpoint_of_a_scaler_and_another_device_fits(prepared, tmp_path):
    """The gradient scaler's factor comes back; the ways of the optimiser are the device's, not the file's."""
    from keyreid.model.data.labels import LabelTables
    from keyreid.model.training.checkpoint import Progress, load_checkpoint, save_checkpoint
    from keyreid.model.training.state import build_state

    config = resolve_config("demo", assignments=TINY)
    labels = LabelTables((1, 2), (1, 2))
    saved, loaded = (build_state(config.model_config(labels), config.training, CPU) for _ in range(2))
    for state in (saved, loaded):
        object.__setattr__(state, "scaler", torch.amp.GradScaler("cpu", init_scale=1024.0))
        state.scaler.scale(torch.zeros(()))  # makes its tensors, as the first step does
    saved.scaler.load_state_dict({**saved.scaler.state_dict(), "scale": 8.0})
    for group in saved.optimizer.param_groups:
        group.update(fused=True, foreach=None)
    save_checkpoint(tmp_path / "file", saved, Progress(epoch=3, steps=7))
    assert load_checkpoint(tmp_path / "file", loaded) == Progress(epoch=3, steps=7)
    assert loaded.scaler.get_scale() == 8.0
    assert all(group["foreach"] and not group["fused"] for group in loaded.optimizer.param_groups)


def test_a_checkpoint_file_is_tensors_and_numbers_alone(prepared, tmp_path):
    train(prepared, tmp_path / "run", resolve_config("demo", assignments=[*TINY, "training.epochs=1"]), device=CPU)
    names = load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert {name.split("/")[0] for name in names} == {"model", "average", "loss", "optimizer"}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["training"]["validate_on"] == "none"
