"""keyreid compare: differences with intervals, and no comparison of what cannot be compared."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from keyreid.cli.keyreid import main
from keyreid.model.evaluation.compare import compare
from keyreid.model.evaluation.per_query import read_scores
from keyreid.pipeline.errors import FormatError, SettingsError

QUERIES = 60


def table(precision: np.ndarray, **changes: object) -> pd.DataFrame:
    """What keyreid-eval --per-query writes: 3 queries of each person, and one more query without a match."""
    count = len(precision)
    columns = {
        "run": "runs/x", "weights": "w", "clips": "", "dataset": "mars", "manifest": "abc", "identity_split": 0,
        "method": "trained", "protocol": "standard", "distance": "euclidean", "reranking": "none",
        "tracklet_id": np.arange(count + 1), "identity": np.arange(count + 1) // 3, "camera": 1,
        "num_matches": [2] * count + [0], "average_precision": [*precision, np.nan],
        "inverse_negative_penalty": [*precision / 2, np.nan], "first_match": [*np.where(precision > 0.5, 1, 3), np.nan],
    }  # fmt: skip
    return pd.DataFrame({**columns, **changes})


def written(path: Path, *tables: pd.DataFrame) -> Path:
    pd.concat(tables).to_parquet(path)
    return path


def precisions(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.2, 0.8, QUERIES)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def test_a_real_difference_is_told_with_its_interval_over_persons(tmp_path):
    base = precisions()
    noise = np.random.default_rng(1).normal(0.02, 0.03, QUERIES)
    a, b = (written(tmp_path / f"{n}.parquet", table(p)) for n, p in (("a", base + noise), ("b", base)))
    found = compare(read_scores([a]), read_scores([b]))
    first = found.differences[0]
    assert first.metric == "mAP" and first.difference == pytest.approx(noise.mean())
    # Of a mean of differences the t interval is known: 20 persons, 2.093 standard errors.
    people = noise.reshape(-1, 3).mean(1)
    spread = people.std(ddof=1) / np.sqrt(len(people))
    np.testing.assert_allclose(first.interval, noise.mean() + np.array([-2.093, 2.093]) * spread, atol=spread / 5)
    assert found.sentence().startswith(f"A is better by {100 * noise.mean():.1f} points of mAP (95 % interval ")
    assert found.sentence().endswith(
        "20 persons with 60 queries): the difference is statistically significant. So few persons make the interval "
        "itself rough."
    )
    turned = compare(read_scores([b]), read_scores([a]))
    assert turned.sentence().startswith(f"B is better by {100 * noise.mean():.1f} points")
    assert [one.metric for one in found.differences] == ["mAP", "Rank-1", "mINP"]
    assert found.differences[2].difference == pytest.approx(noise.mean() / 2)
    assert found.differences[1].a == pytest.approx((base + noise > 0.5).mean())


def test_noise_is_not_told_apart_and_the_same_is_equal(tmp_path):
    base = precisions()
    noise = np.random.default_rng(1).normal(0, 0.1, QUERIES)
    a, b = (written(tmp_path / f"{n}.parquet", table(p)) for n, p in (("a", base + noise - noise.mean()), ("b", base)))
    assert "this dataset cannot tell them apart." in compare(read_scores([a]), read_scores([b])).sentence()
    same = compare(read_scores([a]), read_scores([a])).sentence()
    assert same == "A and B are equal on each query (20 persons with 60 queries)."


def test_a_difference_that_a_few_persons_make_is_no_verdict(tmp_path):
    """All queries of two persons of twenty are better: an interval over queries would call that real."""
    base = precisions()
    better = base.copy()
    better[:6] += 0.15
    a, b = (written(tmp_path / f"{n}.parquet", table(p)) for n, p in (("a", better), ("b", base)))
    found = compare(read_scores([a]), read_scores([b]))
    assert found.differences[0].interval[0] <= 0
    assert "this dataset cannot tell them apart." in found.sentence()


def test_without_a_true_difference_few_verdicts_are_wrong(tmp_path):
    """Persons with effects of their own; 60 persons with 5 queries each. An interval over queries is wrong in 29 %."""
    rng = np.random.default_rng(0)
    scores, wrong = read_scores([written(tmp_path / "a.parquet", table(precisions()))]), 0
    persons = np.repeat(np.arange(60), 5)
    queries = np.stack([np.zeros(300, np.int64), np.arange(300)], axis=1)
    for _ in range(200):
        effects = rng.normal(0, 0.1, 60)[persons] + rng.normal(0, 0.1, 300)
        sides = [
            replace(scores, queries=queries, identities=persons, values=np.repeat(side[None, :, None], 3, axis=2))
            for side in (effects, np.zeros(300))
        ]
        low, high = compare(*sides, resamples=500).differences[0].interval
        wrong += not low <= 0 <= high
    assert wrong <= 20


def test_seeds_give_mean_and_deviation_and_widen_the_interval(tmp_path):
    base = precisions()
    shifts = (0.0, 0.06, 0.12)
    tables = [table(base + 0.05 + shift, run=f"runs/{shift}", weights=f"w{shift}") for shift in shifts]
    apart = [written(tmp_path / f"{number}.parquet", one) for number, one in enumerate(tables)]
    together = written(tmp_path / "all.parquet", *tables)
    b = read_scores([written(tmp_path / "b.parquet", table(base))])
    found, same = compare(read_scores(apart), b), compare(read_scores([together]), b)
    first = found.differences[0]
    assert first == same.differences[0]
    assert first.difference == pytest.approx(0.11) and first.a_deviation == pytest.approx(0.06)
    assert first.b_deviation is None
    assert first.interval == pytest.approx((0.05, 0.17))
    mean = compare(read_scores([written(tmp_path / "m.parquet", table(base + 0.11))]), b).differences[0]
    low, high = mean.interval or (mean.difference, mean.difference)  # every resample agrees, up to rounding
    assert (low, high) == pytest.approx((0.11, 0.11))


def test_a_copy_of_a_report_is_not_a_seed(tmp_path):
    one = table(precisions())
    paths = [written(tmp_path / name, one.assign(run=name)) for name in ("a.parquet", "copy.parquet")]
    with pytest.raises(SettingsError, match=r"a.parquet and .*copy.parquet hold the same weights .w.; expected seeds"):
        read_scores(paths)


@pytest.mark.parametrize("column", ["distance", "reranking", "clips", "manifest"])
def test_runs_that_were_measured_differently_are_not_seeds(column, tmp_path):
    a = written(tmp_path / "a.parquet", table(precisions()))
    b = written(tmp_path / "b.parquet", table(precisions(), weights="x", **{column: "another"}))
    with pytest.raises(
        SettingsError, match=f"the first run has {column} .* and another one another; expected the same"
    ):
        read_scores([a, b])


def test_a_baseline_that_no_run_changes_counts_once(tmp_path):
    path = written(
        tmp_path / "a.parquet",
        *(table(precisions(), run=f"runs/{seed}", weights="", method="colour histogram") for seed in range(3)),
    )
    assert read_scores([path], "colour histogram").num_seeds == 1


def test_methods_of_one_report_are_compared(tmp_path):
    base = precisions()
    path = written(tmp_path / "a.parquet", table(base + 0.1), table(base, method="colour histogram", weights=""))
    result = call(path, "--method", "trained", "--method", "colour histogram")
    assert result.exit_code == 0, result.output
    assert "A is better by 10.0 points of mAP" in result.stdout
    assert result.stdout.splitlines()[1].endswith("a.parquet: colour histogram, euclidean, none")
    assert "one run and two methods; such as" in call(path).stderr


def test_it_loads_no_torch(tmp_path):
    """What keeps it under 1.5 seconds; a bound on seconds would fail on a busy machine."""
    path = written(tmp_path / "a.parquet", table(precisions()), table(precisions(1), method="other"))
    code = f"""
import sys
from keyreid.cli.keyreid import main
try:
    main(["compare", {str(path)!r}, "--method", "trained", "--method", "other"])
except SystemExit as end:
    assert not end.code, end.code
sys.exit(', '.join({{'torch', 'pandas', 'scipy', 'matplotlib', 'h5py', 'timm'}} & set(sys.modules)) or None)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/", stdout=subprocess.DEVNULL)


def test_splits_complete_each_other(tmp_path):
    base = precisions()
    paths = [
        written(tmp_path / f"{split}.parquet",
                table(base + split / 10, identity_split=split, protocol="ilids-vid"))
        for split in range(2)
    ]  # fmt: skip
    scores = read_scores(paths)
    assert scores.values.shape == (1, 2 * QUERIES, 3)
    assert scores.values[0, :, 0].mean() == pytest.approx(base.mean() + 0.05)
    with pytest.raises(SettingsError, match=r"A has identity splits \[0, 1\] and B \[0\]"):
        compare(scores, read_scores(paths[:1]))
    more = written(tmp_path / "more.parquet", table(base, identity_split=1, protocol="ilids-vid", weights="v"))
    with pytest.raises(SettingsError, match="runs on identity splits: 1 on 0, 2 on 1; expected as many on each"):
        read_scores([*paths, more])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "ilids-vid"}, "A has dataset mars and B ilids-vid; expected the same dataset"),
        ({"manifest": "xyz"}, "A has manifest abc and B xyz"),
        ({"protocol": "mars-official"}, "A has protocol standard and B mars-official"),
        ({"tracklet_id": np.arange(1, QUERIES + 2)}, "A has 60 queries and B 60 .in one alone: "),
        ({"method": "untrained"}, "nothing of method 'trained'; expected one of untrained"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, message, tmp_path):
    a = written(tmp_path / "a.parquet", table(precisions()))
    b = written(tmp_path / "b.parquet", table(precisions(), **changes))
    with pytest.raises(SettingsError, match=message):
        compare(read_scores([a]), read_scores([b]))


def test_other_files_and_a_run_named_twice_are_refused(tmp_path):
    path = written(tmp_path / "a.parquet", table(precisions()))
    with pytest.raises(SettingsError, match=r"a.parquet is named twice; expected each run once"):
        read_scores([path, path])
    with pytest.raises(FormatError, match=r"there is no file .*none; expected per-query results"):
        read_scores([tmp_path / "none"])
    written(tmp_path / "b.parquet", table(precisions()).drop(columns="manifest"))
    (tmp_path / "c.parquet").write_text("text")
    for name in ("b", "c"):
        with pytest.raises(FormatError, match=f"{name}.parquet holds no per-query results of this version"):
            read_scores([tmp_path / f"{name}.parquet"])
    two = written(tmp_path / "d.parquet", table(precisions()), table(precisions(), protocol="mars-official"))
    with pytest.raises(SettingsError, match="holds protocols mars-official, standard; expected one; choose"):
        read_scores([two])
    assert read_scores([two], protocol="standard").contexts == {
        0: {"dataset": "mars", "manifest": "abc", "protocol": "standard"}
    }


def test_the_command_prints_a_table_and_the_sentence(tmp_path):
    base = precisions()
    shift = np.repeat(np.linspace(0.05, 0.15, 20), 3)
    a, b = (written(tmp_path / f"{n}.parquet", table(p)) for n, p in (("a", base + shift), ("b", base)))
    result = call(a, b)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[2] == "mars, protocol standard, 60 queries of 20 persons"
    assert lines[5].split()[:4] == ["mAP", f"{100 * base.mean() + 10:.1f}", f"{100 * base.mean():.1f}", "+10.0"]
    assert lines[-1].startswith("A is better by 10.0 points of mAP")
    printed = json.loads(call(a, b, "--json").stdout)
    assert printed["sentence"] == lines[-1] and printed["num_persons"] == 20
    several = call(f"{a},{written(tmp_path / 'c.parquet', table(base + 0.2, weights='v'))}", b)
    assert "(2 seeds)" in several.stdout and "±" in several.stdout
    refused = call(a, written(tmp_path / "o.parquet", table(base, dataset="other")))
    assert refused.exit_code == 1 and "A has dataset mars and B other" in refused.stderr
    assert "100 or more" in call(a, b, "--resamples", 5).stderr
