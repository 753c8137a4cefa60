"""Several runs, protocols and re-rankings in one keyreid-eval: what is printed, kept and refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from evaluation_dataset import make_prepared, save_tiny_model

from keyreid.cli.evaluate import main
from keyreid.model.evaluation.measurement import HEADINGS, Measurement, RunScores
from keyreid.model.evaluation.protocols import Selection, find_protocol
from keyreid.model.evaluation.results import summarise
from keyreid.model.evaluation.tables import percent
from keyreid.pipeline.commit import read_json
from keyreid.pipeline.manifest import IdentitySplit
from keyreid.pipeline.records import Tracklet

SPLITS = tuple(IdentitySplit(*((1, 2, 3), (5, 6, 7))[:: 1 if split % 2 else -1], 1) for split in range(10))
ROWS = tuple(("train", identity, camera, 2) for identity in (1, 2, 3, 5, 6, 7) for camera in (1, 2))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def ten_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("ilids"), ROWS, name="ilids-vid", identity_splits=SPLITS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A network for each split of `ten_splits`."""
    folder = tmp_path_factory.mktemp("runs")
    made_from = [{"dataset": {"name": "ilids-vid", "identity_split": split}} for split in range(10)]
    return [save_tiny_model(folder / str(split), made_from[split], seed=split) for split in range(10)]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu"])


def content(*arguments: object) -> dict[str, Any]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_ten_splits_have_a_mean_a_deviation_and_each_its_row(ten_splits: Path, runs: list[Path]) -> None:
    found = content(*runs, ten_splits, "--protocol", "ilids-vid")
    singles = [run["results"][0] for run in found["runs"]]
    assert [run["dataset"]["identity_split"] for run in found["runs"]] == [f"{split} of 10" for split in range(10)]
    assert [one["protocol"] for one in singles] == [f"ilids-vid (split {split} alone)" for split in range(10)]
    (summary,) = found["summary"]
    assert summary["protocol"] == "ilids-vid (mean of 10 splits)" and summary["mean_over"] == "identity splits"
    for name in HEADINGS:
        values = [one[name] for one in singles]
        assert summary[name] == pytest.approx(np.mean(values))
        assert summary["deviations"][name] == pytest.approx(np.std(values, ddof=1))
    assert summary["deviations"]["mAP"] > 0 and summary["num_queries"] == 3


def test_missing_splits_are_said_in_every_row(ten_splits: Path, runs: list[Path], tmp_path: Path) -> None:
    arguments = runs[4], runs[1], ten_splits, "--protocol", "ilids-vid", "--report", tmp_path
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    rows = [re.split(r"\s{2,}", line) for line in result.stdout.splitlines() if line.startswith("trained")]
    labels = ["ilids-vid (split 4 alone)"] * 2 + ["ilids-vid (split 1 alone)"] * 2 + ["ilids-vid (2 of 10 splits)"]
    assert [row[1] for row in rows] == labels  # the rank table and that of thresholds, of each run
    assert re.fullmatch(r"\d+\.\d ± \d+\.\d", rows[-1][4])
    assert {page.name for page in tmp_path.iterdir()} == {"run-0", "run-1", "metrics.json", "per-query.parquet"}
    kept = read_json(tmp_path / "metrics.json")
    assert kept["summary"][0]["protocol"] == labels[-1]
    assert kept["runs"][1] == read_json(tmp_path / "run-1/metrics.json")


def test_seeds_have_a_mean_under_any_protocol(prepared: Path, tmp_path: Path) -> None:
    seeds = [save_tiny_model(tmp_path / str(seed), seed=seed) for seed in range(3)]
    found = content(*seeds, prepared, "--protocol", "mars-official", "--baselines")
    assert [one["method"] for one in found["summary"]] == ["trained", "untrained", "colour histogram", "part histogram"]
    for place, summary in enumerate(found["summary"]):
        values = [run["results"][place]["mAP"] for run in found["runs"]]
        assert (summary["protocol"], summary["mean_over"], summary["num_runs"]) == ("mars-official", "runs", 3)
        assert summary["mAP"] == pytest.approx(np.mean(values))
        assert summary["deviations"]["mAP"] == pytest.approx(np.std(values, ddof=1))


def test_a_split_of_two_seeds_counts_once() -> None:
    def run(split: int, found: bool) -> list[RunScores]:
        """Two queries of persons 1 and 2; the second one finds its match first only where `found`."""
        people = [Tracklet(n, "gallery", n % 2 + 1, n // 2, 0, 1) for n in range(4)]
        sides = tuple(people[:2]), tuple(people[2:])
        distances = np.array([[0.0, 1.0], [1.0, 0.0]] if found else [[0.0, 1.0], [0.0, 1.0]])
        chosen = Selection(*sides, (0, 0), (1, 1))
        return [Measurement("trained", find_protocol("ilids-vid"), chosen, distances, split=split).scores()]

    (summary,) = summarise([run(0, False), run(0, True), run(7, True)])
    assert summary.rank_figures["rank1"].value == pytest.approx((0.75 + 1) / 2)
    assert summary.rank_figures["rank1"].deviation == pytest.approx(np.std([0.75, 1], ddof=1))
    low, high = summary.rank_figures["rank1"].interval
    assert (low, high) == pytest.approx((0.75, 1))  # of persons 2 and 2, or 1 and 1
    assert summary.protocol_label == "ilids-vid (2 of 10 splits)" and summary.counted == "2 of 2"
    (alone,) = summarise([run(3, False)])
    assert alone.to_dict()["deviations"] == {} and percent(alone.rank_figures["rank1"]) == "50.0"


def test_all_protocols_stand_side_by_side_embedded_once(prepared: Path, tmp_path: Path) -> None:
    weights = save_tiny_model(tmp_path / "weights")
    result = call(weights, prepared, "--protocol", "all", "--baselines", "--report", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("embed (trained):   0%") == 1
    labels = ["standard", "mars-official", "mars-matlab", "authors-code (not comparable)"]
    rows = [re.split(r"\s{2,}", line) for line in result.stdout.splitlines() if line.startswith("trained")]
    assert [row[1] for row in rows] == 2 * labels
    kept = json.loads((tmp_path / "report/metrics.json").read_text())
    assert [one["protocol"] for one in kept["results"]] == 4 * labels
    for protocol, one in zip(
        ("standard", "mars-official", "mars-matlab", "authors-code"), kept["results"], strict=False
    ):
        (alone,) = content(weights, prepared, "--protocol", protocol)["results"]
        assert alone == one
    page = (tmp_path / "report/report.html").read_text(encoding="utf-8")
    assert page.count("authors-code (not comparable)") >= 3  # a row a method, in each table


@pytest.mark.parametrize("protocol", ["standard", "authors-code"])
def test_per_query_results_are_those_of_the_metrics(protocol: str, prepared: Path, tmp_path: Path) -> None:
    weights, path = save_tiny_model(tmp_path / "weights"), tmp_path / "queries.parquet"
    (figures,) = content(weights, prepared, "--protocol", protocol, "--per-query", path)["results"]
    rows = pq.read_table(path).to_pylist()
    assert [row["tracklet_id"] for row in rows] == [4, 5, 6, 7]
    assert [(row["identity"], row["camera"]) for row in rows] == [(5, 1), (6, 1), (6, 2), (9, 1)]
    assert {(row["protocol"], row["distance"], row["reranking"]) for row in rows} == {(protocol, "euclidean", "none")}
    valid = [row for row in rows if row["num_matches"]]
    assert len(valid) == figures["num_valid_queries"]
    for column, name in (("average_precision", "mAP"), ("inverse_negative_penalty", "mINP")):
        assert np.mean([row[column] for row in valid]) == pytest.approx(figures[name])
    assert np.mean([row["first_match"] == 1 for row in valid]) == pytest.approx(figures["rank1"])
    for row in rows:
        assert row["nearest_distances"] == sorted(row["nearest_distances"])
        assert len(row["nearest"]) == len(row["nearest_match"]) <= 5 and set(row["nearest"]) <= set(range(8, 13))
        if row["num_matches"]:
            assert row["nearest_match"].index(True) == row["first_match"] - 1
        else:
            assert row["first_match"] is None and row["average_precision"] is None


def test_per_query_results_of_several_runs_lie_in_one_file(ten_splits: Path, runs: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "queries.parquet"
    content(runs[0], runs[1], ten_splits, "--per-query", path)
    rows = pq.read_table(path).to_pylist()
    assert [(row["run"], row["identity_split"]) for row in rows[::3]] == [(str(runs[0]), 0), (str(runs[1]), 1)]


@pytest.mark.parametrize(
    ("options", "distance", "reranking"),
    [
        (("--rerank", "--k1", 3, "--k2", 2, "--lambda", 0.5), "euclidean", "k-reciprocal (k1=3, k2=2, lambda=0.5)"),
        (("--distance", "cosine"), "cosine", "none"),
        (("--distance", "visible-parts", "--rerank", "--k1", 4), "visible-parts", "k-reciprocal (k1=4, k2=6, lambda"),
    ],
)
def test_every_figure_says_distance_and_reranking(
    options: tuple[object, ...], distance: str, reranking: str, prepared: Path, tmp_path: Path
) -> None:
    weights = save_tiny_model(tmp_path / "weights")
    result = call(weights, prepared, *options, "--baselines", "--report", tmp_path / "report")
    assert result.exit_code == 0, result.output
    rows = [re.split(r"\s{2,}", line) for line in result.stdout.splitlines() if line.startswith("trained")]
    assert len(rows) == 2 and all(row[2] == distance and row[3].startswith(reranking) for row in rows)
    kept = json.loads((tmp_path / "report/metrics.json").read_text())["results"]
    assert kept[0]["distance"] == distance and kept[0]["reranking"].startswith(reranking)
    assert (kept[2]["method"], kept[2]["distance"], kept[2]["reranking"]) == ("colour histogram", "euclidean", "none")
    assert reranking.split(" (")[0] in (tmp_path / "report/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--json", "--table", "latex"), "--json with --table latex; expected one of them"),
        (("--rerank",), "k1=20, k2=6 among 9 tracklets; expected at least 21 tracklets; choose a smaller --k1"),
        (("--rerank", "--k1", 0), "re-ranking with k1=0"),
        (("--protocol", "ilids-vid"), "protocol ilids-vid for striped, which has no identity splits"),
    ],
)
def test_options_that_contradict_are_refused(
    options: tuple[object, ...], message: str, prepared: Path, tmp_path: Path
) -> None:
    result = call(save_tiny_model(tmp_path / "weights"), prepared, *options)
    assert result.exit_code == 1 and result.stdout == ""
    assert message in result.stderr.splitlines()[-1]


def test_several_runs_that_are_none_are_refused(ten_splits: Path, runs: list[Path], tmp_path: Path) -> None:
    twice = call(runs[0], runs[1], runs[0], ten_splits)
    assert twice.exit_code == 1 and "hold the same weights; expected each network once" in twice.stderr
    kept = call(runs[0], runs[1], ten_splits, "--descriptors", tmp_path / "d.h5")
    assert kept.exit_code == 1 and "--descriptors with 2 checkpoints; expected one" in kept.stderr
    other = call(runs[0], runs[1], ten_splits, "--identity-split", 0)
    assert other.exit_code == 1 and "identity split 0 for a network trained on split 1" in other.stderr


def test_a_missing_run_leaves_nothing_behind(prepared: Path, tmp_path: Path) -> None:
    weights = save_tiny_model(tmp_path / "weights")
    result = call(
        weights, tmp_path / "none", prepared, "--per-query", tmp_path / "q.parquet", "--report", tmp_path / "r"
    )
    assert result.exit_code == 1 and "none does not exist" in result.stderr
    assert not (tmp_path / "q.parquet").exists() and not (tmp_path / "r").exists()
