"""keyreid compare: differences with intervals, and no comparison of what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from keyreid.cli.keyreid import main
from keyreid.model.evaluation.paired import compare
from keyreid.model.evaluation.query_scores import read_scores
from keyreid.pipeline.errors import FormatError, SettingsError

QUERIES = 60


def table(precision: np.ndarray, **changes: object) -> pd.DataFrame:
    """What keyreid-eval --per-query writes: 3 queries of each person, and one more query without a match."""
    count = len(precision)
    columns = {
        "run": "runs/x", "dataset": "mars", "manifest": "abc", "identity_split": 0, "method": "trained",
        "protocol": "standard", "distance": "euclidean", "reranking": "none",
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


def test_a_real_difference_is_told_with_its_interval(tmp_path):
    base = precisions()
    noise = np.random.default_rng(1).normal(0.02, 0.03, QUERIES)
    a, b = (written(tmp_path / f"{n}.parquet", table(p)) for n, p in (("a", base + noise), ("b", base)))
    found = compare(read_scores([a]), read_scores([b]))
    first = found.differences[0]
    assert first.metric == "mAP" and first.difference == pytest.approx(noise.mean())
    # Of a mean of differences the bootstrap knows the normal interval.
    spread = noise.std() / np.sqrt(QUERIES)
    np.testing.assert_allclose(first.over_queries, noise.mean() + np.array([-1.96, 1.96]) * spread, atol=0.1 * spread)
    people = noise.reshape(-1, 3).mean(1)
    spread = people.std() / np.sqrt(len(people))
    np.testing.assert_allclose(first.over_identities, noise.mean() + np.array([-1.96, 1.96]) * spread, atol=spread / 6)
    assert found.sentence().startswith(f"A is better by {100 * noise.mean():.1f} points of mAP (95 % interval ")
    assert found.sentence().endswith("over 60 queries: the difference is real at this dataset.")
    turned = compare(read_scores([b]), read_scores([a]))
    assert turned.sentence().startswith(f"B is better by {100 * noise.mean():.1f} points")
    assert [one.metric for one in found.differences] == ["mAP", "Rank-1", "mINP"]
    assert found.differences[2].difference == pytest.approx(noise.mean() / 2)
    assert found.differences[1].a == pytest.approx((base + noise > 0.5).mean())


def test_noise_is_not_told_apart_and_the_same_is_equal(tmp_path):
    base = precisions()
    noise = np.random.default_rng(1).normal(0, 0.1, QUERIES)
    a, b = (written(tmp_path / f"{n}.parquet", table(p)) for n, p in (("a", base + noise - noise.mean()), ("b", base)))
    assert compare(read_scores([a]), read_scores([b])).sentence().endswith("this dataset cannot tell them apart.")
    assert compare(read_scores([a]), read_scores([a])).sentence() == "A and B are equal on each of 60 queries."


def test_a_difference_that_a_few_people_make_is_told_so(tmp_path):
    base = precisions()
    better = base.copy()
    better[:6] += 0.15  # two people of twenty
    a, b = (written(tmp_path / f"{n}.parquet", table(p)) for n, p in (("a", better), ("b", base)))
    found = compare(read_scores([a]), read_scores([b]))
    assert found.differences[0].over_queries[0] > 0 >= found.differences[0].over_identities[0]
    assert found.sentence().endswith("other people could turn it round.")


def test_seeds_give_mean_and_deviation_and_widen_the_interval(tmp_path):
    base = precisions()
    shifts = (0.0, 0.06, 0.12)
    tables = [table(base + 0.05 + shift, run=f"runs/{shift}") for shift in shifts]
    apart = [written(tmp_path / f"{number}.parquet", one) for number, one in enumerate(tables)]
    together = written(tmp_path / "all.parquet", *tables)
    b = read_scores([written(tmp_path / "b.parquet", table(base))])
    found, same = compare(read_scores(apart), b), compare(read_scores([together]), b)
    first = found.differences[0]
    assert first == same.differences[0]
    assert first.difference == pytest.approx(0.11) and first.a_deviation == pytest.approx(0.06)
    assert first.b_deviation is None
    assert first.over_queries[0] == pytest.approx(0.05) and first.over_queries[1] == pytest.approx(0.17)
    mean = compare(read_scores([written(tmp_path / "m.parquet", table(base + 0.11))]), b).differences[0]
    assert mean.over_queries == pytest.approx((0.11, 0.11))


def test_splits_complete_each_other(tmp_path):
    base = precisions()
    paths = [
        written(tmp_path / f"{split}.parquet",
                table(base + split / 10, identity_split=split, protocol=f"ilids-vid (split {split} alone)"))
        for split in range(2)
    ]  # fmt: skip
    scores = read_scores(paths)
    assert scores.values.shape == (1, 2 * QUERIES, 3)
    assert scores.values[0, :, 0].mean() == pytest.approx(base.mean() + 0.05)
    with pytest.raises(SettingsError, match=r"A has identity splits \[0, 1\] and B \[0\]"):
        compare(scores, read_scores(paths[:1]))
    more = written(tmp_path / "more.parquet", table(base, identity_split=1, protocol="ilids-vid (split 1 alone)"))
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
    assert read_scores([two], protocol="standard").contexts == {0: ("mars", "abc", "standard")}


def test_the_command_prints_a_table_and_the_sentence(tmp_path):
    base = precisions()
    a, b = (written(tmp_path / f"{n}.parquet", table(p)) for n, p in (("a", base + 0.1), ("b", base)))
    result = call(a, b)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[2] == "mars, protocol standard, 60 queries"
    assert lines[5].split()[0] == "mAP" and "+10.0 to +10.0" in lines[5]
    assert lines[-1].startswith("A is better by 10.0 points of mAP")
    printed = json.loads(call(a, b, "--json").stdout)
    assert printed["sentence"] == lines[-1] and printed["num_identities"] == 20
    several = call(f"{a},{written(tmp_path / 'c.parquet', table(base + 0.2))}", b)
    assert "(2 seeds)" in several.stdout and "±" in several.stdout
    refused = call(a, written(tmp_path / "o.parquet", table(base, dataset="other")))
    assert refused.exit_code == 1 and "A has dataset mars and B other" in refused.stderr
    assert "100 or more" in call(a, b, "--resamples", 5).stderr
