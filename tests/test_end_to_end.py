"""The whole path at toy size, as the README's commands take it: frames in, a report out."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from keyreid.cli.evaluate import main as evaluate
from keyreid.cli.prep import main as prep
from keyreid.cli.train import main as train

TINY = [
    "model.frame_size=[64, 32]", "model.width=24", "model.depth=2", "model.num_heads=2", "model.score_width=8",
    "training.epochs=2", "training.identities_per_batch=2", "training.clips_per_identity=2",
]  # fmt: skip


def run(command: object, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("layout", "options", "where"),
    [
        ("mars", ["--cameras", 2], ["--workers", 2]),  # on Dask
        ("ilids-vid", [], ["--serial"]),
        ("folder", ["--cameras", 2], ["--serial"]),
    ],
)
def test_frames_in_report_out(tmp_path: Path, layout: str, options: list[object], where: list[object]) -> None:
    people, prepared, trained = tmp_path / "people", tmp_path / "prepared", tmp_path / "run"
    size = ["--identities", 8, "--frames", 2, 5, "--difficulty", 0.3, "--workers", 1]
    run(prep, "synthesize", people, "--layout", layout, *size, *options)
    run(prep, "index", layout, people, prepared, "--frames-per-shard", 64)
    summary = run(prep, "extract-keypoints", prepared, "--checkpoint", "synthetic", *where, "--json")
    assert json.loads(summary)["unreadable"] == []
    run(prep, "build-shards", prepared, *where)
    people.rename(tmp_path / "gone")  # from here on the source's images are not needed
    sets = [part for item in TINY for part in ("--set", item)]
    run(train, prepared, "--out", trained, "--preset", "demo", "--device", "cpu", *sets)
    output = run(evaluate, trained, prepared, "--baselines", "--report", tmp_path / "report")
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    text = json.dumps(metrics)
    assert "standard" in output and "standard" in text, "every number carries its protocol's name"
    assert "mAP" in text and "Rank-1" in output
    assert any((tmp_path / "report").glob("*.png")) and any((tmp_path / "report").glob("*.html"))
