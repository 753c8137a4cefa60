"""Two processes that torchrun starts, against one process with the same batches."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prepared_dataset import make_prepared
from training_fixtures import CPU, TINY, assignments, records, same_results

from keyreid.model.training.config import resolve_config
from keyreid.model.training.trainer import train

SCRIPT = Path(__file__).with_name("train_in_ranks.py")
# What is drawn or counted for each rank's clips apart is left out: random depth, shifts in time, BatchNorm in the stem.
SAME = [
    *TINY, "model.stem=patch", "model.drop_path=0", "model.shift_share=0", "model.shuffle_share=0", "training.epochs=3",
    "training.log_every=1", "training.identities_per_batch=4",
    # AdamW would hide gradients that are wrong by a factor.
    "training.optimizer=sgd", "training.learning_rate=0.02", "training.warmup_rate=0.01", "training.clip_gradient=0",
]  # fmt: skip
PLAN = {
    "gathered": [*SAME, "training.validate_on=holdout", "training.holdout_share=0.25", "training.evaluate_every=2"],
    "shared": [*SAME, "training.gather=false"],
    "checkpointed": [*SAME, "training.checkpoint_blocks=1"],
    "exploding": [*SAME, "training.warmup_rate=1e30"],
}
TERMS = ("total", "identity", "triplet", "center", "attention")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"), identities=8)


@pytest.fixture(scope="module")
def runs(prepared, tmp_path_factory):
    """What two processes left; the last of their runs was ended by a signal to torchrun."""
    folder = tmp_path_factory.mktemp("runs")
    values = [*TINY, "training.epochs=500", "training.log_every=1", "training.checkpoint_every=500"]
    command = [prepared, "--out", folder / "signalled", "--preset", "demo", "--device", "cpu", *assignments(values)]
    given = {"prepared": str(prepared), "runs": str(folder), "plan": PLAN, "command": [str(word) for word in command]}
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]
    with open(folder / "errors.txt", "w") as errors:
        process = subprocess.Popen(
            [*line, json.dumps(given)], env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=errors, stdout=errors
        )
        while process.poll() is None and not (folder / "signalled" / "metrics.jsonl").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.wait()
    return folder


def losses(run):
    return [[record[name] for name in TERMS] for record in records(run, "step")]


def differences(first, second):
    """Largest relative difference of each step's terms."""
    return [
        max(abs(one - other) / max(abs(other), 1e-3) for one, other in zip(a, b, strict=True))
        for a, b in zip(losses(first), losses(second), strict=True)
    ]


@pytest.mark.parametrize(("name", "tolerance"), [("gathered", 1e-5), ("checkpointed", 1e-5)])
def test_two_processes_have_the_loss_curve_of_one(prepared, runs, tmp_path, name, tolerance):
    train(prepared, tmp_path / "one", resolve_config("demo", assignments=PLAN[name]), device=CPU)
    assert max(differences(runs / name, tmp_path / "one")) < tolerance
    for kind in ("epoch", "evaluation"):
        found, expected = records(runs / name, kind), records(tmp_path / "one", kind)
        assert len(found) == len(expected)
    assert [record["mAP"] for record in records(runs / name, "evaluation")] == pytest.approx(
        [record["mAP"] for record in records(tmp_path / "one", "evaluation")], abs=1e-3
    )


def test_losses_of_shares_alone_differ(runs):
    """Hard examples of half a batch are others, so that equality above says something."""
    assert max(differences(runs / "shared", runs / "checkpointed")) > 1e-2


def test_a_signal_to_one_process_stops_both_at_one_step(runs):
    same_results(runs / "gathered", runs / "stopped")


def test_a_loss_that_explodes_is_told_once_with_everyones_tracklets(runs):
    first, second = ((runs / f"error-{rank}.txt").read_text() for rank in (0, 1))
    assert first.startswith("KeyReIDError: the loss is not finite in epoch")
    assert first.partition("tracklets ")[2].partition(";")[0].count(",") == 7  # 4 identities x 2 clips
    assert second.startswith("EndedElsewhere")


def test_a_signal_to_torchrun_saves_once(runs):
    errors = (runs / "errors.txt").read_text()
    assert errors.count("Stopped: stopped by SIGTERM; everything up to here is saved in") == 1, errors
    assert (runs / "signalled" / "checkpoints" / "last.safetensors").exists()
