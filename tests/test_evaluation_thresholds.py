"""Verification and open-set identification against their definitions, one pair and one query at a time."""

from __future__ import annotations

import numpy as np
import pytest

from keyreid.model.evaluation import pairs, thresholds
from keyreid.model.evaluation.pairs import Ranking
from keyreid.model.evaluation.thresholds import identify, verify
from keyreid.pipeline.errors import KeyReIDError, SettingsError

RATES = (0.5, 0.29, 0.1, 0.01)
RNG = np.random.default_rng(0)


def random_ranking(levels: int) -> Ranking:
    """Few identities and cameras; few levels make many ties."""
    num_queries, num_gallery = int(RNG.integers(1, 12)), int(RNG.integers(1, 25))
    ids, cameras = ([RNG.integers(0, top, n) for n in (num_queries, num_gallery)] for top in (4, 3))
    return Ranking(RNG.integers(0, levels, (num_queries, num_gallery)).astype(np.float32), *ids, *cameras)


def kinds(r: Ranking, query: int) -> tuple[list[float], list[float]]:
    """Distances of a query to its matches, and to other identities."""
    matching, wrong = [], []
    for entry in range(len(r.gallery_ids)):
        if r.gallery_ids[entry] != r.query_ids[query]:
            wrong.append(float(r.distances[query, entry]))
        elif r.gallery_cameras[entry] != r.query_cameras[query]:
            matching.append(float(r.distances[query, entry]))
    return matching, wrong


def best_threshold(numbers: list[float], rate: float) -> float:
    """The largest of all thresholds below which at most that share of the numbers lies."""
    allowed = [t for t in sorted(set(numbers)) if sum(n < t for n in numbers) * 100 <= round(100 * rate) * len(numbers)]
    return allowed[-1]


def plain_verification(r: Ranking, rate: float) -> tuple[float, float]:
    every = [kinds(r, query) for query in range(len(r.query_ids))]
    matching, wrong = [d for m, _ in every for d in m], [d for _, w in every for d in w]
    if not wrong:
        return np.nan, np.nan
    threshold = best_threshold(wrong, rate)
    return threshold, sum(d < threshold for d in matching) / len(matching) if matching else np.nan


def plain_open_set(r: Ranking, rate: float) -> tuple[float, float]:
    every = [kinds(r, query) for query in range(len(r.query_ids))]
    alarms = [min(wrong) for _, wrong in every if wrong]
    if not alarms:
        return np.nan, np.nan
    threshold = best_threshold(alarms, rate)
    known = [(min(m), min(w, default=np.inf)) for m, w in every if m]
    right = sum(match < wrong and match < threshold for match, wrong in known)
    return threshold, right / len(known) if known else np.nan


@pytest.mark.parametrize("rows", [1, 512], ids=["row by row", "one block"])
@pytest.mark.parametrize("levels", [1, 3, 1000], ids=["all equal", "many ties", "hardly a tie"])
def test_equal_the_definitions(levels: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "ROWS_AT_ONCE", rows)
    monkeypatch.setattr(thresholds, "LEAST_KEPT", 1)
    for _ in range(60):
        ranking = random_ranking(levels)
        found, open_set = verify(ranking, RATES), identify(ranking, RATES)
        expected = np.array([plain_verification(ranking, rate) for rate in RATES])
        np.testing.assert_allclose(np.array([found.thresholds, found.true_match_rates]).T, expected)
        expected = np.array([plain_open_set(ranking, rate) for rate in RATES])
        np.testing.assert_allclose(np.array([open_set.thresholds, open_set.detection_rates]).T, expected)


def test_pairs_are_those_the_protocol_leaves() -> None:
    ranking = Ranking(np.array([[1, 2, 3, 4.0]]), [7], [7, 7, 8, 0], [1], [1, 2, 1, 2])
    found = verify(ranking, [0.5])
    assert (found.num_matching, found.num_wrong) == (1, 2)
    assert found.thresholds.tolist() == [4] and found.true_match_rates.tolist() == [1]
    assert found.to_dict()["thresholds"] == [4.0]


def test_every_query_is_asked_once_as_known_and_once_as_unknown() -> None:
    """The second query has no match: it can raise an alarm and cannot be identified."""
    ranking = Ranking(np.array([[1, 5.0], [2, 3.0]]), [7, 9], [7, 8], [1, 1], [2, 2])
    found = identify(ranking, [0.5, 0.1])
    assert (found.num_known, found.num_unknown) == (1, 2)
    assert found.thresholds.tolist() == [5, 2]  # alarms at 5 and 2: one of two may be below
    assert found.detection_rates.tolist() == [1, 1]


def test_a_gallery_of_matches_alone_sets_no_threshold() -> None:
    ranking = Ranking(np.zeros((1, 1)), [1], [1], [1], [2])
    assert verify(ranking).to_dict()["true_match_rates"] == [None] * 4
    assert identify(ranking).to_dict()["detection_and_identification_rates"] == [None] * 2


def test_a_wrong_entry_at_the_same_distance_is_the_answer() -> None:
    ranking = Ranking(np.array([[1, 1, 9.0]]), [1], [1, 2, 3], [1], [2, 2, 2])
    assert identify(ranking, [0.5]).detection_rates.tolist() == [0]


@pytest.mark.parametrize("rates", [[], [0.0], [1.0], [0.1, float("nan")]])
def test_rates_that_mean_nothing_are_refused(rates: list[float]) -> None:
    for measure in (verify, identify):
        with pytest.raises(SettingsError, match="one or more numbers between 0 and 1"):
            measure(random_ranking(3), rates)


def test_nan_is_refused_for_every_measure() -> None:
    with pytest.raises(KeyReIDError, match="1 of 1 distances are NaN or infinite"):
        Ranking(np.array([[np.nan]]), [1], [1], [1], [2])


def test_only_the_smallest_wrong_distances_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks, a small share: the pool is cut while it grows, and the figures stay."""
    monkeypatch.setattr(pairs, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(thresholds, "LEAST_KEPT", 1)
    rng = np.random.default_rng(4)
    ids, cameras = ([rng.integers(0, top, n) for n in (40, 50)] for top in (9, 3))
    ranking = Ranking(rng.permutation(2000).reshape(40, 50).astype(np.float32), *ids, *cameras)
    found = verify(ranking, (0.05, 0.001))
    wrong = sorted(d for query in range(40) for d in kinds(ranking, query)[1])
    assert found.thresholds.tolist() == [wrong[int(rate * len(wrong))] for rate in (0.05, 0.001)]
    assert found.true_match_rates[0] == plain_verification(ranking, 0.05)[1]
