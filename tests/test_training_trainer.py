import json

import pytest
import torch
from prepared_dataset import make_prepared
from safetensors.torch import load_file

from keyreid.model.data.labels import LabelTables
from keyreid.model.network.weights import load_model, read_config
from keyreid.model.training import loop
from keyreid.model.training.config import resolve_config
from keyreid.model.training.state import MovingAverage, build_state
from keyreid.model.training.trainer import train
from keyreid.pipeline.errors import CheckpointError, FormatError, KeyReIDError, SettingsError

CPU = torch.device("cpu")
TINY = [
    "model.pretrained=''", "model.stem=conv", "model.patch_size=8", "model.frame_size=[32, 16]", "model.width=24",
    "model.depth=2", "model.num_heads=2", "model.score_width=8", "model.drop_path=0.2",
    "training.identities_per_batch=2", "training.clips_per_identity=2", "training.checkpoint_every=1",
]  # fmt: skip


def config(*assignments, variant="aligned", preset="demo"):
    return resolve_config(preset, assignments=[*TINY, *assignments], variant=variant)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"))


def weights(run):
    return load_file(run / "weights" / "model.safetensors")


def checkpoint(run):
    return load_file(run / "checkpoints" / "last.safetensors")


def equal(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def records(run, kind):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


class Stopped(Exception):
    pass


def stop_in_epoch(monkeypatch, epoch):
    """As if the process were killed in the middle of an epoch."""
    real = loop.train_step

    def step(state, batch, config, now):
        if now == epoch and batch.step == 1:
            raise Stopped
        return real(state, batch, config, now)

    monkeypatch.setattr(loop, "train_step", step)


@pytest.mark.parametrize("variant", ["aligned", "reference"])
def test_a_run_leaves_weights_metrics_and_config(prepared, tmp_path, variant):
    summary = train(prepared, tmp_path / "run", config("training.epochs=2", variant=variant), device=CPU)
    model = load_model(tmp_path / "run" / "weights")
    assert model.config.variant == variant and model.config.camera_numbers == (1, 2)
    assert read_config(tmp_path / "run" / "weights")[1]["epochs"] == 2
    epochs = records(tmp_path / "run", "epoch")
    assert [line["epoch"] for line in epochs] == [0, 1] and epochs[-1]["steps"] == summary.steps == 4
    assert epochs[-1]["total"] == pytest.approx(summary.loss) and summary.num_identities == 4
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["settings"]["training"]["epochs"] == 2
    assert torch.__version__.startswith(saved["versions"]["torch"])


def test_loss_falls_on_four_identities(prepared, tmp_path):
    """A colour is an identity: thirty epochs must learn it, and the average must follow."""
    options = [
        "training.epochs=30",
        "training.learning_rate=3e-3",
        "training.weight_decay=0",
        "training.checkpoint_every=99",
    ]
    train(prepared, tmp_path / "run", config(*options), device=CPU)
    epochs = records(tmp_path / "run", "epoch")
    assert epochs[-1]["identity"] < 0.7 * epochs[0]["identity"]
    assert epochs[-1]["triplet"] < 0.7 * epochs[0]["triplet"]


@pytest.mark.parametrize("preset", ["demo", "vit-small"], ids=["adamw", "sgd"])
def test_a_resumed_run_ends_bit_equal(prepared, tmp_path, monkeypatch, preset):
    settings = config("training.epochs=2", "training.log_every=1", preset=preset)
    train(prepared, tmp_path / "straight", settings, device=CPU)
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 1)
        with pytest.raises(Stopped):
            train(prepared, tmp_path / "stopped", settings, device=CPU)
    half = checkpoint(tmp_path / "stopped")
    summary = train(prepared, tmp_path / "stopped", settings, device=CPU, resume=True)
    assert not equal(half, checkpoint(tmp_path / "stopped"))
    assert equal(checkpoint(tmp_path / "straight"), checkpoint(tmp_path / "stopped"))
    assert equal(weights(tmp_path / "straight"), weights(tmp_path / "stopped"))
    assert [line["epoch"] for line in records(tmp_path / "stopped", "epoch")] == [0, 1] and summary.steps == 4
    assert [line["steps"] for line in records(tmp_path / "stopped", "step")] == [1, 2, 3, 4]


def test_the_moving_average_is_exported_and_centers_move(prepared, tmp_path, monkeypatch):
    steps = []
    real = MovingAverage.update
    monkeypatch.setattr(MovingAverage, "update", lambda self, step: (steps.append(step), real(self, step)))
    settings = config("training.epochs=2")
    train(prepared, tmp_path / "run", settings, device=CPU)
    assert steps == [1, 2, 3, 4]  # counted on over the epochs: the decay rises with them
    saved = checkpoint(tmp_path / "run")
    averaged = {name.removeprefix("average/"): saved[name] for name in saved if name.startswith("average/")}
    assert equal(averaged, weights(tmp_path / "run"))
    assert not torch.equal(saved["average/global_head.classifier.weight"], saved["model/global_head.classifier.weight"])
    start = build_state(settings.model_config(LabelTables((1, 2, 3, 4), (1, 2))), settings.training, CPU)
    for name, centers in start.loss.state_dict().items():
        assert not torch.equal(saved[f"loss/{name}"], centers)


def test_resume_without_a_checkpoint_starts_over_and_after_the_end_does_nothing(prepared, tmp_path, monkeypatch):
    settings = config("training.epochs=1")
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 0)
        with pytest.raises(Stopped):
            train(prepared, tmp_path / "run", settings, device=CPU)
    assert train(prepared, tmp_path / "run", settings, device=CPU, resume=True).steps == 2
    before = weights(tmp_path / "run")
    summary = train(prepared, tmp_path / "run", settings, device=CPU, resume=True)
    assert summary.loss is None and summary.steps == 2 and equal(before, weights(tmp_path / "run"))


def test_worker_processes_change_nothing(prepared, tmp_path):
    for workers in (0, 2):
        train(prepared, tmp_path / str(workers), config("training.epochs=1"), device=CPU, num_workers=workers)
    assert equal(weights(tmp_path / "0"), weights(tmp_path / "2"))


def test_seed_decides(prepared, tmp_path):
    for seed in (0, 1):
        train(prepared, tmp_path / str(seed), config("training.epochs=1", f"training.seed={seed}"), device=CPU)
    assert not equal(weights(tmp_path / "0"), weights(tmp_path / "1"))


def test_resume_refuses_other_settings_and_other_data(prepared, tmp_path):
    run = tmp_path / "run"
    train(prepared, run, config("training.epochs=1"), device=CPU)
    with pytest.raises(SettingsError, match=r"other settings: training.epochs was 1 and is 2; .* --resume added"):
        train(prepared, run, config("training.epochs=2"), device=CPU, resume=True)
    other = make_prepared(tmp_path / "other", num_frames=6)
    with pytest.raises(SettingsError, match=r"dataset.manifest was .* dataset.shards was"):
        train(other, run, config("training.epochs=1"), device=CPU, resume=True)


def test_a_folder_in_use_and_a_missing_run(prepared, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match="used already exists; expected a new folder; add --resume"):
        train(prepared, tmp_path / "used", config(), device=CPU)
    with pytest.raises(CheckpointError, match=r"no run to resume in .*; leave out --resume"):
        train(prepared, tmp_path / "absent", config(), device=CPU, resume=True)


def test_broken_checkpoint(prepared, tmp_path):
    run = tmp_path / "run"
    train(prepared, run, config("training.epochs=1"), device=CPU)
    (run / "checkpoints" / "last.safetensors").write_bytes(b"half of it")
    with pytest.raises(CheckpointError, match=r"last.safetensors holds no hash of itself; .*delete it to start"):
        train(prepared, run, config("training.epochs=1"), device=CPU, resume=True)


def test_exploding_loss_stops_with_step_and_tracklets(prepared, tmp_path):
    settings = config("training.epochs=3", "training.warmup_rate=1e30", preset="vit-small")
    with pytest.raises(KeyReIDError, match=r"not finite in epoch \d, step \d .*tracklets \d+, \d+, \d+, \d+"):
        train(prepared, tmp_path / "run", settings, device=CPU)


def test_data_that_cannot_train(tmp_path):
    no_train = make_prepared(tmp_path / "test-only", splits=("query",))
    with pytest.raises(SettingsError, match="no training tracklets"):
        train(no_train, tmp_path / "run", config(), device=CPU)
    no_shards = make_prepared(tmp_path / "indexed", shards=False)
    with pytest.raises(FormatError, match=r"has no shards yet; run the stages in order"):
        train(no_shards, tmp_path / "run", config(), device=CPU)
    few = make_prepared(tmp_path / "few", identities=3)
    with pytest.raises(SettingsError, match=r"3 training identities; .*--set training.identities_per_batch=3"):
        train(few, tmp_path / "run", config("training.identities_per_batch=4"), device=CPU)
    assert not (tmp_path / "run").exists()
