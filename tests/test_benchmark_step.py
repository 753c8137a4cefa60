"""benchmarks/step.py: both ways have the same losses and gradient, and the table has what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

OPTIONS = ["--preset", "demo", "--clips", "4", "--frames", "2", "--identities", "5", "--cameras", "2", "--rounds", "1"]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")


@pytest.mark.parametrize("variant", [("aligned",), ("aligned", "--pooling", "average"), ("reference",)])
def test_the_table(variant: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    import step

    step.main([*OPTIONS, "--device", "cpu", "--variant", *variant, "--peak-tflops", "1"])
    shown = capsys.readouterr().out
    for row in ("step, ms", "backward pass, ms", "GFLOP, forward and backward", "utilisation", "120 epochs of MARS"):
        assert row in shown
    assert "differ by" in shown


def test_both_ways_go_through_the_same_phases() -> None:
    from step import resolve_config
    from step_ways import build_ways

    class Recorder:
        def __init__(self) -> None:
            self.names: list[str | None] = []

        def enter(self, name: str | None) -> None:
            self.names.append(name)

    sizes = [
        "model.part_pooling=attention",
        "model.clip_length=2",
        "training.identities_per_batch=2",
        "training.clips_per_identity=2",
    ]
    config = resolve_config("demo", assignments=[*sizes, "training.optimizer=sgd"])
    ways = build_ways(config, torch.device("cpu"), num_identities=5, num_cameras=2, compile_plain=False)
    plain, ours = Recorder(), Recorder()
    ways.plain_step(plain)
    ways.our_step(ours)
    assert plain.names == ours.names and plain.names[-1] is None and len(plain.names) == 6


def test_ways_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    import step
    import step_plain

    real = step_plain.batch_hard
    monkeypatch.setattr(step_plain, "batch_hard", lambda *arguments: 1.01 * real(*arguments))
    with pytest.raises(SystemExit, match="the two ways differ by"):
        step.main([*OPTIONS, "--device", "cpu"])


def test_a_precision_that_the_trainer_has_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    import step

    with pytest.raises(SystemExit):
        step.main([*OPTIONS, "--device", "cpu", "--dtype", "bfloat16"])
    assert "needs CUDA" in capsys.readouterr().err


def test_the_plain_distance_to_centers_is_that_to_the_own_center() -> None:
    import step_plain

    features, centers = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    own = torch.tensor([4, 0, 4])
    expected = (features - centers[own]).square().sum(1).mean()
    torch.testing.assert_close(step_plain.center_distance(features, centers, own), expected)
