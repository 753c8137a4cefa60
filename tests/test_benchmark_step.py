"""benchmarks/step.py: both ways have the same losses and gradient, and the table has what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

OPTIONS = ["--preset", "demo", "--clips", "4", "--frames", "2", "--identities", "5", "--cameras", "2", "--rounds", "1"]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")


@pytest.mark.parametrize("variant", ["aligned", "reference"])
def test_the_table(variant: str, capsys: pytest.CaptureFixture[str]) -> None:
    import step

    step.main([*OPTIONS, "--device", "cpu", "--variant", variant, "--peak-tflops", "1"])
    shown = capsys.readouterr().out
    for row in ("step, ms", "backward pass, ms", "GFLOP, forward and backward", "utilisation", "120 epochs of MARS"):
        assert row in shown
    assert "differ by" in shown
    milliseconds = {
        cells[1].strip(): [float(cell) for cell in cells[2:4]] for cells in table(shown) if "ms" in cells[1]
    }
    step_plain, step_ours = milliseconds.pop("step, ms")
    assert 0 < milliseconds["- moving average, ms"][0] < step_plain and 0 < step_ours


def table(shown: str) -> list[list[str]]:
    return [line.split("|") for line in shown.splitlines() if line.startswith("| ") and "---" not in line]


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
