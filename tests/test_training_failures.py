"""What goes wrong in the middle of training ends it with one message, and leaves the last checkpoint as it was."""

import logging
import os
import resource
import signal
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from click.testing import CliRunner
from mutations import mutate
from prepared_dataset import change_a_bit, flat_frames, make_prepared, prepare, rebuild_with_other_keypoints
from training_fixtures import CPU, TINY, assignments, records, tensors

from keyreid.cli.train import main
from keyreid.model.data import reading
from keyreid.model.data.labels import LabelTables
from keyreid.model.training import loop
from keyreid.model.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from keyreid.model.training.config import resolve_config
from keyreid.model.training.inputs import open_inputs
from keyreid.model.training.run_folder import RunFolder
from keyreid.model.training.state import build_state
from keyreid.model.training.trainer import train
from keyreid.pipeline.errors import CheckpointError, FormatError, KeyReIDError, NotEnoughMemoryError, SettingsError
from keyreid.pipeline.manifest import read_manifest
from keyreid.pipeline.shards import shard_path

SETTINGS = {"preset": "demo", "model": {}, "training": {}, "augment": {}}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"))


def config(*values, preset="demo"):
    return resolve_config(preset, assignments=[*TINY, *values])


def in_epoch(monkeypatch, epoch, act):
    """Act before the first step of an epoch."""
    real = loop.train_step

    def step(state, batch, settings, now):
        if (now, batch.step) == (epoch, 0):
            act(state)
        return real(state, batch, settings, now)

    monkeypatch.setattr(loop, "train_step", step)


def spoil(state):
    next(state.model.parameters()).data.fill_(torch.nan)


def test_a_loss_that_is_not_finite_names_the_checkpoint_before_it(prepared, tmp_path, monkeypatch):
    run = tmp_path / "run"
    in_epoch(monkeypatch, 1, spoil)
    message = (
        rf"not finite in epoch 1, step 0 .*tracklets \d+, .*the last checkpoint is from before it: {run}/checkpoints"
    )
    with pytest.raises(KeyReIDError, match=message):
        train(prepared, run, config("training.epochs=3"), device=CPU)
    saved = tensors(run / "checkpoints" / "last.safetensors")
    assert all(tensor.isfinite().all() for tensor in saved.values())
    with monkeypatch.context() as patch:
        in_epoch(patch, 0, spoil)
        with pytest.raises(KeyReIDError, match="there is no checkpoint yet"):
            train(prepared, tmp_path / "other", config("training.epochs=3"), device=CPU)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    settings = config()
    state = build_state(settings.model_config(LabelTables((1, 2), (1,))), settings.training, CPU)
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, state, Progress())
    before = path.read_bytes()
    spoil(state)
    with pytest.raises(
        KeyReIDError, match=r"1 tensors .* after step 9 .*; the last checkpoint before it is .*last.safe"
    ):
        save_checkpoint(path, state, Progress(steps=9))
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_checkpoint_before(prepared, tmp_path):
    run = tmp_path / "run"
    train(prepared, run, config("training.epochs=1"), device=CPU)
    path = run / "checkpoints" / "last.safetensors"
    before = path.read_bytes()
    state = build_state(config().model_config(LabelTables((1, 2), (1,))), config().training, CPU)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 4, limits[1]))
    try:
        with pytest.raises(
            KeyReIDError, match=r"no room to write .*last.safetensors .*File too large.*free some space"
        ):
            save_checkpoint(path, state, Progress())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_full_disk_while_logging(prepared, tmp_path, monkeypatch):
    def fill(state):
        (tmp_path / "run" / "metrics.jsonl").symlink_to("/dev/full")

    in_epoch(monkeypatch, 0, fill)
    with pytest.raises(KeyReIDError, match=r"no room to write the run .*No space left.*same command with --resume"):
        train(prepared, tmp_path / "run", config("training.log_every=1"), device=CPU)


def out_of_host_memory(state):
    torch.empty(1 << 60, dtype=torch.uint8)


def out_of_device_memory(state):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total ...")


@pytest.mark.parametrize("allocate", [out_of_host_memory, out_of_device_memory])
def test_out_of_memory_says_what_to_lower(prepared, tmp_path, monkeypatch, allocate):
    in_epoch(monkeypatch, 0, allocate)
    message = r"no memory left for batches of 4 clips of 4 frames of 32x16 .*allocate.*checkpoint_blocks=true .*smaller"
    with pytest.raises(NotEnoughMemoryError, match=message) as caught:
        train(prepared, tmp_path / "run", config(), device=CPU)
    assert "\n" not in str(caught.value)


def test_another_error_is_not_taken_for_one_of_memory(prepared, tmp_path, monkeypatch):
    in_epoch(monkeypatch, 0, lambda state: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        train(prepared, tmp_path / "run", config(), device=CPU)


def test_a_worker_that_is_killed(prepared, tmp_path, monkeypatch):
    def kill_workers(state):
        for child in psutil.Process().children():
            if child.name().startswith("pt_data"):
                child.send_signal(signal.SIGKILL)

    in_epoch(monkeypatch, 1, kill_workers)
    with pytest.raises(KeyReIDError, match=r"a process that reads frames died .*fewer --workers"):
        train(prepared, tmp_path / "run", config("training.epochs=9"), device=CPU, num_workers=1)


@pytest.mark.parametrize("error", [ConnectionResetError("reset by peer"), EOFError()])
def test_a_worker_that_dies_while_it_hands_a_batch_over(monkeypatch, error):
    """The connection breaks first; what died is known when its signal comes."""
    monkeypatch.setattr(reading, "SIGNAL_SECONDS", 0)
    broken = reading.worker_death(error)
    assert f"frames died ({str(error) or 'EOFError'}); it may have run" in str(broken)

    def signalled(seconds):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(reading.time, "sleep", signalled)
    assert "frames died (DataLoader worker (pid 7) is killed" in str(reading.worker_death(error))
    assert reading.worker_death(RuntimeError("something else")) is None


@pytest.mark.parametrize("processes", [0, 1])
def test_a_frame_that_cannot_be_decoded(tmp_path, processes):
    """Its shard is as it was built."""

    def draw(tracklet):
        return replace(flat_frames(tracklet), encoded=(b"not a JPG",) * tracklet.num_frames)

    rows = [("train", identity, camera, 3) for identity in (1, 2, 3) for camera in (1, 2)]
    prepared = prepare(tmp_path / "prepared", rows, draw, name="rotten", frames_per_shard=9)
    message = (
        r"tracklet \d+ in .*shards/0000\d.h5 cannot be read: a frame of 9 bytes .*; run keyreid-prep verify .*prepared"
    )
    with pytest.raises(FormatError, match=message) as caught:
        train(prepared, tmp_path / "run", config(), device=CPU, num_workers=processes)
    assert "Traceback" not in str(caught.value)


def test_a_changed_byte_that_still_decodes_is_found_before_training(tmp_path):
    """Only in shards that are read: of training, and of what is measured on the way."""
    prepared = make_prepared(tmp_path / "prepared", splits=("train", "query", "gallery"))
    shards = [shard for shard, shown in enumerate(split_of_shards(prepared)) if shown != {"train"}]
    for shard in shards:
        change_a_bit(shard_path(prepared, shard))
    settings = config("training.epochs=1")
    train(prepared, tmp_path / "untouched", settings, device=CPU)
    measured = config("training.epochs=1", "training.validate_on=test", "model.camera_scale=0")
    message = rf"shards/{shards[0]:05d}.h5 has SHA-256 \w+\.\.\.: it was damaged, .*; run keyreid-prep verify "
    with pytest.raises(FormatError, match=message):
        train(prepared, tmp_path / "run", measured, device=CPU)
    assert not (tmp_path / "run").exists()


def test_shards_that_are_rebuilt_during_a_run_end_it(tmp_path, monkeypatch):
    """They would be read from the second epoch on, under the fingerprint of the old ones."""
    prepared, run = make_prepared(tmp_path / "prepared"), tmp_path / "run"
    in_epoch(monkeypatch, 0, lambda state: rebuild_with_other_keypoints(prepared))
    options = ["--preset", "demo", "--device", "cpu", *assignments([*TINY, "training.epochs=3"])]
    result = CliRunner().invoke(main, [str(prepared), "--out", str(run), *options])
    assert result.exit_code == 1
    assert f"shards of {prepared} were rebuilt during this run (first: 00000)" in result.stderr
    assert len(records(run, "epoch")) == 1
    with pytest.raises(SettingsError, match=r"other settings: dataset.shards was \w+ and is \w+; .*"):
        train(prepared, run, config("training.epochs=3"), device=CPU, resume=True)


def test_two_trainings_into_one_folder(prepared, tmp_path, monkeypatch):
    run = tmp_path / "run"

    def another(resume, message):
        with pytest.raises(SettingsError, match=message):
            train(prepared, run, config(), device=CPU, resume=resume)

    def intrude(state):
        another(True, rf"another run \(process {os.getpid()} on .*\) is at work on {run}; expected one at a time")
        another(False, "already exists; .* add --resume")

    with monkeypatch.context() as patch:
        in_epoch(patch, 0, intrude)
        train(prepared, run, config(), device=CPU)


def test_a_run_that_began_while_another_one_opened_its_data(prepared, tmp_path):
    first, second, third = (RunFolder(tmp_path / "run", SETTINGS, resume=False) for _ in range(3))
    with first.held():
        with pytest.raises(SettingsError, match="another run"), second.held():
            pass
        first.begin()
    with pytest.raises(SettingsError, match="already exists; expected a new folder"), third.held():
        pass


def test_what_a_killed_save_left_goes_when_the_run_resumes(prepared, tmp_path):
    run = tmp_path / "run"
    train(prepared, run, config("training.epochs=1"), device=CPU)
    for name in ("checkpoints/.last.safetensors.x1.partial", "weights/.config.json.x2.partial"):
        (run / name).write_bytes(b"half")
    train(prepared, run, config("training.epochs=1"), device=CPU, resume=True)
    assert not list(run.rglob("*.partial"))


def test_a_damaged_checkpoint_is_refused(tmp_path):
    settings, generator, path = config(), np.random.default_rng(0), tmp_path / "last.safetensors"
    state = build_state(settings.model_config(LabelTables((1, 2), (1,))), settings.training, CPU)
    save_checkpoint(path, state, Progress(epoch=3))
    content = path.read_bytes()
    for damaged in {mutate(content, generator) for _ in range(200)} - {content}:
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"last.safetensors .*delete it to start this run from its beginning"):
            load_checkpoint(path, state)
    path.write_bytes(content)
    assert load_checkpoint(path, state).epoch == 3


def split_of_shards(prepared):
    """The splits in each shard."""
    manifest = read_manifest(prepared)
    return [{tracklet.split for tracklet in manifest.shard(shard)} for shard in range(manifest.num_shards)]


def test_identities_that_teach_little_are_counted(tmp_path, caplog):
    alone = make_prepared(tmp_path / "alone", cameras=1)
    with caplog.at_level(logging.WARNING):
        train(alone, tmp_path / "run", config("training.epochs=1"), device=CPU)
    assert "4 of 4 training identities have one tracklet, whose clips a batch repeats" in caplog.text
    assert "4 of 4 training identities were seen by one camera only" in caplog.text
    assert len(records(tmp_path / "run", "epoch")) == 1


def test_a_test_set_under_other_cameras_is_refused_before_training(tmp_path):
    from evaluation_dataset import make_prepared as make_striped

    striped = make_striped(tmp_path / "striped", (("train", 1, 1, 2), ("train", 2, 1, 2), ("query", 3, 1, 2),
                                                  ("gallery", 3, 7, 2)))  # fmt: skip
    with pytest.raises(SettingsError, match=r"camera 7 is not in the network's camera table"):
        train(striped, tmp_path / "run", config("training.validate_on=test"), device=CPU)
    assert not (tmp_path / "run").exists()
    options = {"device": CPU, "num_workers": 0, "identity_split": 0}
    assert open_inputs(striped, config("training.validate_on=test", "model.camera_scale=0"), **options).validation
