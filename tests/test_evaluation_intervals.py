"""Intervals over persons: against resampling one by one, and whether they hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from keyreid.model.evaluation import thresholds
from keyreid.model.evaluation.intervals import Resampling, interval, t_quantile
from keyreid.model.evaluation.pairs import Ranking
from keyreid.model.evaluation.thresholds import identify, verify


def test_persons_are_drawn_with_all_their_queries():
    persons, values = np.array([7, 7, 3, 9, 9, 9]), np.arange(12.0).reshape(6, 2)
    drawn = Resampling.of(persons, 50)
    assert (drawn.times.sum(axis=1) == 3).all() and drawn.times.max() > 1 and drawn.times.min() == 0
    means = drawn.means(values, np.ones(6))
    for times, mean in zip(drawn.times, means, strict=True):
        rows = [row for row in range(6) for _ in range(int(times[[3, 7, 9].index(persons[row])]))]
        np.testing.assert_allclose(mean, values[rows].mean(axis=0))


@pytest.mark.parametrize("measure", [verify, identify])
@pytest.mark.parametrize("levels", [4, 10_000], ids=["ties", "none"])
def test_thresholds_are_found_again_in_each_resample(measure, levels, monkeypatch):
    monkeypatch.setattr(thresholds, "GRID", 100_000)  # every distance, so that nothing is rounded
    rng, rates = np.random.default_rng(levels), (0.5, 0.2, 0.03)
    for _ in range(8):
        ids, cameras = ([rng.integers(0, top, n) for n in (14, 30)] for top in (5, 3))
        distances = rng.integers(0, levels, (14, 30)).astype(np.float32)
        drawn, plain = Resampling.of(ids[0], 60), []
        found = measure(Ranking(distances, *ids, *cameras), rates, drawn)
        for times in drawn.times:
            rows = np.repeat(np.arange(14), times[drawn.person].astype(int))
            one = measure(Ranking(distances[rows], ids[0][rows], ids[1], cameras[0][rows], cameras[1]), rates)
            plain.append(one.true_match_rates if measure is verify else one.detection_rates)
        expected = [interval(np.array(column), drawn.num_persons) for column in np.transpose(plain)]
        for ours, theirs in zip(found.intervals, expected, strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or ours == pytest.approx(theirs)


@pytest.mark.parametrize("num_persons", [10, 50])
def test_the_interval_holds_the_true_mean_95_times_in_100(num_persons):
    """3,000 datasets of persons with effects of their own and one to six queries; the true mean is 0."""
    rng = np.random.default_rng(3)
    persons = np.repeat(np.arange(num_persons), rng.integers(1, 7, num_persons))
    datasets = rng.normal(0, 1, (num_persons, 3000))[persons] + rng.normal(0, 1, (len(persons), 3000))
    drawn = Resampling.of(persons)
    ends = np.array(drawn.intervals(drawn.means(datasets, np.ones(len(persons)))))
    assert 0.93 <= ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean() <= 0.97
    queries = Resampling.of(np.arange(len(persons)))  # what an interval over queries would hold
    ends = np.array(queries.intervals(queries.means(datasets, np.ones(len(persons)))))
    assert ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean() < 0.85


def test_what_no_resample_changes_has_no_interval():
    assert interval(np.ones(100), 40) is None  # such as Rank-20 without any miss
    assert interval(np.arange(100.0), 1) is None
    assert interval(np.full(100, np.nan), 40) is None


def test_the_quantile_is_that_of_student():
    """Printed in tables: 2.776 of 4 degrees of freedom, 2.262 of 9, 2.010 of 49, 1.964 of 625."""
    for degrees, expected in ((4, 2.776), (9, 2.262), (49, 2.010), (625, 1.964)):
        assert t_quantile(degrees) == pytest.approx(expected, rel=3e-3)
