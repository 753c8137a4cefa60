"""What goes wrong in the middle of training ends it with one message, and leaves the last checkpoint as it was."""

import logging
import os
import resource
import shutil
import signal

import h5py
import psutil
import pytest
import torch
from prepared_dataset import change_a_bit, make_prepared
from training_fixtures import CPU, TINY, records, tensors

from keyreid.model.data import workers
from keyreid.model.data.labels import LabelTables
from keyreid.model.data.settings import DataSettings
from keyreid.model.training import loop
from keyreid.model.training.checkpoint import Progress, save_checkpoint
from keyreid.model.training.inputs import open_inputs
from keyreid.model.training.settings import resolve_config
from keyreid.model.training.state import build_state
from keyreid.model.training.trainer import train
from keyreid.pipeline.errors import FormatError, KeyReIDError, SettingsError
from keyreid.pipeline.manifest import read_manifest
from keyreid.pipeline.shards import shard_path

UNCHECKED = DataSettings(checksums=False)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"))


def config(*assignments, preset="demo"):
    return resolve_config(preset, assignments=[*TINY, *assignments])


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
    with pytest.raises(KeyReIDError, match=r"no room to write the run .*No space left.*--resume goes on"):
        train(prepared, tmp_path / "run", config("training.log_every=1"), device=CPU)


def out_of_host_memory(state):
    torch.empty(1 << 60, dtype=torch.uint8)


def out_of_device_memory(state):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total ...")


@pytest.mark.parametrize("allocate", [out_of_host_memory, out_of_device_memory])
def test_out_of_memory_says_what_to_lower(prepared, tmp_path, monkeypatch, allocate):
    in_epoch(monkeypatch, 0, allocate)
    message = r"no memory left for batches of 4 clips of 4 frames of 32x16 .*allocate.*training.accumulate=2 .*batches"
    with pytest.raises(KeyReIDError, match=message) as caught:
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
    monkeypatch.setattr(workers, "SIGNAL_SECONDS", 0)
    broken = workers.worker_death(error)
    assert f"frames died ({str(error) or 'EOFError'}); it may have run" in str(broken)

    def signalled(seconds):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(workers.time, "sleep", signalled)
    assert "frames died (DataLoader worker (pid 7) is killed" in str(workers.worker_death(error))
    assert workers.worker_death(RuntimeError("something else")) is None


def damage(path, dataset):
    """Overwrite the middle of what a shard stores of a dataset, as a bad disk would."""
    with h5py.File(path) as file:
        found = file[dataset]
        if found.chunks is None:
            offset, size = found.id.get_offset(), found.id.get_storage_size()
        else:
            chunks = [found.id.get_chunk_info(number) for number in range(found.id.get_num_chunks())]
            offset, size = chunks[0].byte_offset, chunks[-1].byte_offset + chunks[-1].size - chunks[0].byte_offset
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(os.urandom(1) * size)


@pytest.mark.parametrize("dataset", ["frames/blob", "frames/heatmaps"])
@pytest.mark.parametrize("processes", [0, 1])
def test_a_damaged_shard(prepared, tmp_path, dataset, processes):
    copy = shutil.copytree(prepared, tmp_path / "prepared")
    damage(shard_path(copy, 0), dataset)
    message = r"tracklet \d+ in .*shards/00000.h5 cannot be read: .*; run keyreid-prep verify .*prepared"
    with pytest.raises(FormatError, match=message) as caught:
        train(copy, tmp_path / "run", config(), device=CPU, num_workers=processes, data=UNCHECKED)
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
    message = rf"shards/{shards[0]:05d}.h5 has SHA-256 \w+\.\.\.; expected .* its receipt; run keyreid-prep verify .*"
    with pytest.raises(FormatError, match=message):
        train(prepared, tmp_path / "run", measured, device=CPU)
    assert not (tmp_path / "run").exists()
    train(prepared, tmp_path / "run", measured, device=CPU, data=UNCHECKED)


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
