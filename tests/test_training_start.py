"""`keyreid-train --from RUN`: a new network with what another has learnt."""

import json
import re
import shutil

import pytest
import torch
from click.testing import CliRunner
from prepared_dataset import flat_frames, prepare
from safetensors.torch import load_file
from training_fixtures import TINY, assignments

from keyreid.cli.train import main
from keyreid.model.network.build import build_model
from keyreid.model.network.weights import read_config
from keyreid.model.training.start import CAMERAS, CLASSIFIERS, read_start, start_from
from keyreid.pipeline.commit import read_json, write_json
from keyreid.pipeline.manifest import IdentitySplit

OPTIONS = ["--preset", "demo", "--device", "cpu", "--set", "training.epochs=1", *assignments(TINY)]


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def prepared_with(folder, cameras, identities=(1, 2, 3), frames_per_shard=20, **options):
    rows = [("train", identity, camera, 3) for identity in identities for camera in cameras]
    return prepare(folder, rows, flat_frames, name="tiny", frames_per_shard=frames_per_shard, **options)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A trained run on cameras that have names."""
    folder = tmp_path_factory.mktemp("first")
    prepared = prepared_with(folder / "prepared", ("door", "exit", "hall"))
    assert run(prepared, "--out", folder / "run", *OPTIONS).exit_code == 0
    return folder


def test_everything_but_classifiers_is_taken_over_and_cameras_by_name(first, tmp_path, caplog):
    prepared = prepared_with(tmp_path / "prepared", ("exit", "hall", "yard"), identities=(7, 8, 9, 10))
    result = run(prepared, "--out", tmp_path / "run", "--from", first / "run", "--set", "training.learning_rate=0",
                 "--set", "training.warmup_rate=0", "--set", "training.final_rate=0")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "cameras yard start from the mean embedding" in caplog.text and "numbers of" not in caplog.text
    before, now = (load_file(folder / "run" / "weights" / "model.safetensors") for folder in (first, tmp_path))
    learnt = [name for name in before if name not in (*CLASSIFIERS, CAMERAS) and "running" not in name]
    assert all(torch.equal(before[name], now[name]) for name in learnt if "num_batches" not in name)
    table = before[CAMERAS]
    torch.testing.assert_close(now[CAMERAS], torch.stack([table[1], table[2], table.mean(0)]))
    assert now[CLASSIFIERS[0]].shape[0] == 4
    config, extra = read_config(tmp_path / "run" / "weights")
    assert config.camera_names == ("exit", "hall", "yard") and config.width == 24  # the first run's config
    assert (
        extra["origin"]["weights"]
        == json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["origin"]["weights"]
    )
    assert "started from a network trained on tiny" in (tmp_path / "run" / "weights" / "README.md").read_text()


@pytest.mark.parametrize("same_cameras", [False, True])
def test_numbers_are_names_only_when_that_is_said(tmp_path, same_cameras):
    prepared = prepared_with(tmp_path / "prepared", (1, 2))
    assert run(prepared, "--out", tmp_path / "run", *OPTIONS).exit_code == 0
    start = read_start(tmp_path / "run")
    model = build_model(start.model.config)
    start_from(model, start, same_cameras=same_cameras)
    table, before = model.state_dict()[CAMERAS], start.model.state_dict()[CAMERAS]
    assert torch.equal(table, before) == same_cameras


def test_a_run_resumes_only_with_the_network_that_it_started_from(first, tmp_path):
    prepared = prepared_with(tmp_path / "prepared", ("hall",), identities=(1, 2, 3, 4))
    command = (prepared, "--out", tmp_path / "run", "--from", first / "run")
    assert run(*command).exit_code == 0
    assert run(*command, "--resume").exit_code == 0
    result = run(*command[:3], "--config", tmp_path / "run" / "config.yaml", "--resume")
    assert result.exit_code == 1 and "origin.weights was" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "model.width=48"], r"does not fit the network; of another shape: .*leave out what changes"),
        (["--set", "model.pretrained=hub"], r"--from and --set model.pretrained; expected one of them"),
        (["--from", "prepared"], r"prepared holds no model.safetensors"),
    ],
)
def test_what_cannot_be_started_from(first, tmp_path, options, message):
    options = [first / word if word == "prepared" else word for word in options]
    result = run(first / "prepared", "--out", tmp_path / "run", "--from", first / "run", *options)
    assert result.exit_code == 1 and re.search(message, result.stderr) and "Traceback" not in result.stderr


def test_a_network_that_has_seen_the_test_people_is_refused(tmp_path):
    splits = tuple(IdentitySplit(train, test, 1) for train, test in (((1, 2), (3, 4)), ((3, 4), (1, 2))))
    options = {"cameras": (1, 2), "identities": (1, 2, 3, 4), "identity_splits": splits}
    prepared = prepared_with(tmp_path / "prepared", **options)
    assert run(prepared, "--out", tmp_path / "run", *OPTIONS).exit_code == 0
    command = ("--out", tmp_path / "next", "--from", tmp_path / "run")
    for again in (prepared, prepared_with(tmp_path / "in-other-shards", frames_per_shard=7, **options)):
        result = run(again, *command, "--identity-split", 1)
        assert result.exit_code == 1 and "test people of split 1" in result.stderr
    assert run(prepared, *command).exit_code == 0


def test_the_weights_that_the_first_run_began_with_are_not_needed_again(first, tmp_path):
    shutil.copytree(first / "run", tmp_path / "run")
    config = tmp_path / "run" / "weights" / "config.json"
    content = read_json(config)
    content["model"]["pretrained"] = "/weights/gone.pth"
    write_json(config, content)
    recipe = tmp_path / "run" / "config.yaml"
    recipe.write_text(recipe.read_text().replace("pretrained: ''", "pretrained: /weights/gone.pth"))
    assert "gone.pth" in recipe.read_text()
    result = run(first / "prepared", "--from", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0, result.output
