"""keyreid embed: parts, interruptions and ranks leave no trace in the file."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from evaluation_dataset import ROWS, make_prepared, save_tiny_model, tiny_model
from prepared_dataset import change_a_bit

from keyreid.cli.keyreid import main
from keyreid.model.embedding import embed as embed_module
from keyreid.model.embedding.embed import embed
from keyreid.model.embedding.file import load_descriptors
from keyreid.model.embedding.settings import EmbeddingSettings
from keyreid.model.embedding.tracklets import Compute, embed_tracklets
from keyreid.pipeline.errors import KeyReIDError, SettingsError, SourceError
from keyreid.pipeline.shards import shard_path
from keyreid.pipeline.store import TrackletStore

SPLITS = ("train", "query", "gallery")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("run"), {"dataset": {"name": "striped"}})


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(embed_module, "CLIPS_OF_A_PART", 4)


class Stopped(Exception):
    pass


class StoppingStore(TrackletStore):
    """Reads `left` clips, then fails."""

    left = 9

    def stop(self):
        raise Stopped

    def read(self, tracklet_id, frames):
        if not self.left:
            self.stop()
        self.left -= 1
        return super().read(tracklet_id, frames)


def whole(store: TrackletStore, path: Path, **options) -> bytes:
    embed(tiny_model(), store, store.tracklets(*SPLITS), path, compute=Compute(3), **options)
    assert not path.with_name(path.name + ".parts").exists()
    return path.read_bytes()


def fail(store: TrackletStore, path: Path) -> None:
    with pytest.raises(Stopped):
        whole(store, path)


def be_killed(store: TrackletStore, path: Path) -> None:
    store.stop = lambda: os.kill(os.getpid(), signal.SIGKILL)
    process = multiprocessing.get_context("fork").Process(target=whole, args=(store, path))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(("suffix", "end"), [(".h5", fail), (".h5", be_killed), (".parquet", fail)])
def test_a_run_that_ends_early_goes_on_and_leaves_the_same_bytes(suffix, end, prepared, small_parts, tmp_path):
    path = tmp_path / f"d{suffix}"
    expected = whole(TrackletStore(prepared), tmp_path / f"expected{suffix}")
    end(StoppingStore(prepared), path)
    kept = sorted(part.name for part in tmp_path.glob("*.parts/*.h5"))
    assert kept and not path.exists()
    (tmp_path / f".{path.name}.x1.partial").write_bytes(b"half")  # as a kill while the parts are joined leaves
    store = TrackletStore(prepared)
    done = embed(tiny_model(), store, store.tracklets(*SPLITS), path, compute=Compute(3))
    assert done.num_kept == len(kept) and done.num_made > 1
    assert path.read_bytes() == expected and not list(tmp_path.glob(".*"))


def test_parts_hold_what_one_piece_would(prepared, small_parts, tmp_path):
    store = TrackletStore(prepared)
    whole(store, tmp_path / "d.h5", dtype="float16")
    found = load_descriptors(tmp_path / "d.h5")
    tracklets = store.tracklets(*SPLITS)
    expected = embed_tracklets(tiny_model(), store, tracklets, batch_size=3, fingerprint="")
    assert found.values.dtype == np.float16 and found.tracklet_ids.tolist() == list(range(len(ROWS)))
    np.testing.assert_allclose(found.values, expected.values, atol=1e-3)
    np.testing.assert_allclose(found.visibility, expected.visibility)
    assert found.origin.dataset == "striped" and found.origin.settings == EmbeddingSettings().to_dict()


def test_a_whole_file_is_kept_and_one_made_with_different_settings_is_not_touched(prepared, tmp_path):
    store, path = TrackletStore(prepared), tmp_path / "d.h5"
    queries = store.tracklets("query")
    made = embed(tiny_model(), store, queries, path)
    assert (made.num_made, made.num_kept) == (1, 0)
    before = path.stat().st_mtime_ns
    again = embed(tiny_model(), store, queries, path)
    assert (again.num_made, again.num_kept, path.stat().st_mtime_ns) == (0, 0, before)
    for message, model, tracklets, options in (
        ("other weights, dataset or settings", tiny_model(1), queries, {}),
        ("other weights, dataset or settings", tiny_model(), queries, {"settings": EmbeddingSettings(flip=True)}),
        ("other tracklets", tiny_model(), store.tracklets("gallery"), {}),
        ("other dtype", tiny_model(), queries, {"dtype": "float16"}),
    ):
        with pytest.raises(SettingsError, match=f"d.h5 holds descriptors of {message}; .* or add --overwrite"):
            embed(model, store, tracklets, path, **options)
    assert path.stat().st_mtime_ns == before
    embed(tiny_model(1), store, queries, path, overwrite=True)
    assert path.stat().st_mtime_ns != before


def test_parts_made_with_different_settings_are_refused_or_thrown_away(prepared, small_parts, tmp_path):
    path = tmp_path / "d.h5"
    with pytest.raises(Stopped):
        whole(StoppingStore(prepared), path)
    store = TrackletStore(prepared)
    with pytest.raises(SettingsError, match=r"d.h5.parts was started with another dtype; .* or add --overwrite"):
        whole(store, path, dtype="float16")
    assert whole(store, path, dtype="float16", overwrite=True) == whole(store, tmp_path / "e.h5", dtype="float16")


def test_nothing_to_embed_is_refused(prepared, tmp_path):
    with pytest.raises(SourceError, match="no tracklets to embed"):
        embed(tiny_model(), TrackletStore(prepared), (), tmp_path / "d.h5")


def test_numbers_that_float16_has_not_are_refused(prepared, tmp_path):
    model = tiny_model(variant="reference")
    with torch.no_grad():
        model.global_head.neck.weight.fill_(1e6)
    store = TrackletStore(prepared)
    with pytest.raises(KeyReIDError, match=r"numbers that float16 has not.*finite numbers; use --dtype float32"):
        embed(model, store, store.tracklets("query"), tmp_path / "d.h5", dtype="float16")
    with torch.no_grad():
        model.global_head.neck.weight.fill_(float("nan"))
    with pytest.raises(KeyReIDError, match=r"of 4 tracklets hold numbers that float32 has not.*may have diverged"):
        embed(model, store, store.tracklets("query"), tmp_path / "e.h5")
    assert not (tmp_path / "d.h5").exists() and not (tmp_path / "e.h5").exists()


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["embed", *map(str, arguments), "--device", "cpu"])


def test_two_processes_write_the_file_that_one_writes(prepared, run_folder, small_parts, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = """
import sys
from keyreid.model.embedding import embed as embed_module
embed_module.CLIPS_OF_A_PART = 4
from keyreid.cli.embed import embed
embed(sys.argv[1:])
"""
    arguments = [run_folder, prepared, "--out", tmp_path / "two.h5", "--json", "--device", "cpu"]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert json.loads(outputs[0][0])["num_tracklets"] == len(ROWS) and not outputs[1][0]
    assert call(run_folder, prepared, "--out", tmp_path / "one.h5").exit_code == 0
    assert (tmp_path / "two.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.h5", "two.h5"]


def test_the_command_says_what_it_wrote_and_finds_it_there(prepared, run_folder, tmp_path):
    arguments = (run_folder, prepared, "--out", tmp_path / "d.h5", "--split", "query", "--max-clips", "all")
    first, again = call(*arguments), call(*arguments)
    assert first.exit_code == again.exit_code == 0, first.output
    assert first.stdout.startswith(f"{tmp_path / 'd.h5'}: descriptors of 4 tracklets, ")
    assert again.stdout == f"{tmp_path / 'd.h5'}: descriptors of 4 tracklets, there already\n"
    assert load_descriptors(tmp_path / "d.h5").origin.settings["max_clips"] is None


def test_cameras_of_another_dataset(tmp_path, run_folder, caplog):
    rows = (("query", 1, 1, 2), ("gallery", 1, 7, 2))
    foreign = make_prepared(tmp_path / "foreign", rows, name="mine")
    refused = call(run_folder, foreign, "--out", tmp_path / "d.h5")
    assert refused.exit_code == 1
    assert "camera 7 is not in the network's camera table" in refused.stderr and "--cameras mean" in refused.stderr
    assert "trained on striped: camera numbers of mine are taken for the cameras there" in caplog.text
    caplog.clear()
    result = call(run_folder, foreign, "--out", tmp_path / "d.h5", "--cameras", "mean")
    assert result.exit_code == 0 and "camera" not in caplog.text


def test_a_shard_that_was_changed_is_not_embedded(run_folder, tmp_path):
    from keyreid.cli.evaluate import main as evaluate

    prepared = make_prepared(tmp_path / "prepared")
    store = TrackletStore(prepared)
    shard = store.shards_of(store.tracklets("gallery"))[-1]
    change_a_bit(shard_path(prepared, shard))
    message = f"Error: {shard_path(prepared, shard)} has SHA-256 "
    embedded = call(run_folder, prepared, "--out", tmp_path / "d.h5")
    measured = CliRunner().invoke(evaluate, [str(run_folder), str(prepared), "--device", "cpu"])
    for result in (embedded, measured):
        assert result.exit_code == 1 and message in result.stderr and "keyreid-prep verify" in result.stderr
    assert not (tmp_path / "d.h5").exists()
    assert call(run_folder, prepared, "--out", tmp_path / "train.h5", "--split", "train").exit_code == 0


def test_evaluation_with_more_clips_says_so_and_its_reports_can_be_compared(prepared, run_folder, tmp_path):
    from keyreid.cli.evaluate import main as evaluate

    def measured(name: str, *options: str) -> Result:
        arguments = [str(run_folder), str(prepared), "--device", "cpu", "--report", str(tmp_path / name), *options]
        result = CliRunner().invoke(evaluate, arguments)
        assert result.exit_code == 0, result.output
        return result

    plain, more = measured("plain"), measured("more", "--flip", "--shifts", "2", "--descriptors", f"{tmp_path}/d.h5")
    assert "flip" not in plain.stdout and "shifts 2, flip True" in more.stdout.splitlines()[0]
    metrics = json.loads((tmp_path / "more" / "metrics.json").read_text())
    assert metrics["description"] == load_descriptors(tmp_path / "d.h5").origin.settings
    refused = CliRunner().invoke(
        evaluate, [str(run_folder), str(prepared), "--device", "cpu", "--descriptors", f"{tmp_path}/d.h5"]
    )
    assert refused.exit_code == 1 and "or other clips" in refused.stderr
    found = CliRunner().invoke(main, ["compare", str(tmp_path / "more"), str(tmp_path / "plain"), "--json"])
    assert found.exit_code == 0 and json.loads(found.stdout)["num_queries"] == 3
