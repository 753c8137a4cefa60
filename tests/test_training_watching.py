"""What a run shows of itself: curves, the page, TensorBoard's events."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from prepared_dataset import make_prepared

from keyreid.model.training.config import resolve_config
from keyreid.model.training.run_folder import RunFolder
from keyreid.model.training.run_page import draw_curves, run_page
from keyreid.model.training.trainer import train
from keyreid.pipeline.environment import duration
from keyreid.pipeline.errors import SettingsError

CPU = torch.device("cpu")
TINY = [
    "model.frame_size=[32, 16]", "model.width=24", "model.depth=2", "model.num_heads=2", "model.score_width=8",
    "training.identities_per_batch=2", "training.clips_per_identity=2", "training.log_every=1",
    "training.checkpoint_every=1", "training.epochs=2",
]  # fmt: skip
TERMS = ("total", "identity", "triplet", "center", "attention")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "first"
    train(prepared, run, resolve_config("demo", assignments=TINY), device=CPU, tensorboard=True)
    return run


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def events(run):
    """Tag -> [(step, value)] as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run / "tensorboard"))
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def course(num_epochs, evaluations=()):
    """Made-up records of runs with 3 steps an epoch."""
    lines = []
    for epoch in range(num_epochs):
        for step in range(3):
            values = {name: float(9 - epoch + step / 3) for name in TERMS}
            lines.append(
                {"kind": "step", "epoch": epoch, "steps": 3 * epoch + step + 1, "learning_rate": 0.1, **values}
            )
        lines.append({**lines[-1], "kind": "epoch", "seconds": 2.0, "clips_per_second": 24.0, "waiting_share": 0.125})
        if epoch in dict(evaluations):
            result = dict.fromkeys(("mAP", "rank1"), dict(evaluations)[epoch])
            place = {"kind": "evaluation", "epoch": epoch, "steps": 3 * epoch + 3}
            lines.append({**place, "on": "holdout", "protocol": "standard", **result})
    return lines


def test_a_run_leaves_curves_and_a_page_that_loads_nothing(finished):
    assert {path.name for path in (finished / "curves").iterdir()} == {"loss.png", "learning_rate.png"}
    page = (finished / "training.html").read_text()
    assert "<title>KeyRe-ID: training first</title>" in page and "2 of 2" in page
    assert page.count("data:image/png;base64,") == 2
    assert not any(word in page for word in ("http://", "https://", "src='", "<script", "@import"))
    last = records(finished)[-1]
    assert f"<b>{last['total']:.3f}</b>" in page and last["kind"] == "epoch"
    assert "\nkeyreid" not in page and "<td>torch</td>" in page


def test_what_is_measured_on_the_way_is_drawn(prepared, tmp_path):
    config = resolve_config("demo", assignments=[*TINY, "training.validate_on=holdout", "training.evaluate_every=1"])
    train(prepared, tmp_path / "run", config, device=CPU)
    assert (tmp_path / "run" / "curves" / "evaluation.png").is_file()
    best = max(line["mAP"] for line in records(tmp_path / "run") if line["kind"] == "evaluation")
    assert f"<b>{100 * best:.1f} %</b><span>best mAP" in (tmp_path / "run" / "training.html").read_text()


def test_the_runs_config_starts_the_same_run_again(finished):
    config = resolve_config(file=finished / "config.yaml")
    saved = json.loads((finished / "config.json").read_text())["settings"]
    assert config.preset == "demo" and config.to_dict()["training"] == saved["training"]
    assert config.model.to_dict() == {key: saved["model"][key] for key in config.model.to_dict()}


def test_tensorboard_has_the_numbers_of_the_metrics_file(finished):
    found = events(finished)
    assert {tag for tag in found if tag.startswith("step/")} == {f"step/{name}" for name in (*TERMS, "learning_rate")}
    for kind in ("step", "epoch"):
        expected = {line["steps"]: line["total"] for line in records(finished) if line["kind"] == kind}
        assert dict(found[f"{kind}/total"]) == pytest.approx(expected)  # events hold float32


def test_tensorboard_hides_what_a_resumed_run_does_again(tmp_path):
    settings = resolve_config("demo").to_dict()
    for resume, done, value in ((False, 0, 1.0), (True, 2, 5.0)):
        folder = RunFolder(tmp_path, settings, resume=resume, tensorboard=True)
        folder.begin()
        folder.keep_metrics(done)
        for step in range(done, 4):
            folder.log({"kind": "step", "epoch": step, "steps": step + 1, "total": value})
    assert events(tmp_path)["step/total"] == [(1, 1.0), (2, 1.0), (3, 5.0), (4, 5.0)]


def test_a_missing_tensorboard_is_told_before_anything_is_written(prepared, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SettingsError, match=r"tensorboard cannot be imported .*pip install 'keyreid\[tensorboard\]'"):
        train(prepared, tmp_path / "run", resolve_config("demo", assignments=TINY), device=CPU, tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_curves_are_of_what_there_is():
    assert draw_curves([]) == {}
    assert set(draw_curves(course(1)[:2])) == {"loss", "learning_rate"}  # stopped within its first epoch
    assert set(draw_curves(course(3, [(1, 0.5)]))) == {"evaluation", "loss", "learning_rate"}


def test_other_numbers_give_another_picture_of_the_same_size():
    first, second = (draw_curves(course(4, [(1, 0.2), (3, best)])) for best in (0.5, 0.9))
    for name, same in (("evaluation", False), ("loss", True)):
        pixels = [np.asarray(Image.open(io.BytesIO(pictures[name]))) for pictures in (first, second)]
        assert pixels[0].shape == pixels[1].shape and pixels[0].shape[1] > 700
        assert np.array_equal(*pixels) == same


def test_the_page_names_the_best_results():
    settings = {
        "dataset": {"name": "a & b"}, "preset": "demo", "model": {"variant": "aligned"}, "training": {"epochs": 4},
    }  # fmt: skip
    page = run_page("run <1>", settings, {"torch": "2"}, "model: {}", course(3, [(0, 0.25), (1, 0.75), (2, 0.5)]), {})
    assert "run &lt;1&gt;" in page and "a &amp; b" in page
    assert "<b>75.0 %</b><span>best mAP (holdout), after epoch 2</span>" in page
    for words in ("<b>3 of 4</b>", "<b>12.5 %</b><span>of it waiting for data", "<b>6 seconds</b><span>in the epochs"):
        assert words in page
    assert '<td class="number">25.0</td>' in page


def test_a_time_is_told_in_the_unit_that_suits_it():
    assert [duration(seconds) for seconds in (0.4, 59, 90, 5400)] == [
        "0 seconds", "59 seconds", "1.5 minutes", "1.5 hours",
    ]  # fmt: skip
