"""Figures that need a threshold on the distance: verification over pairs, open-set identification over queries.

A pair or query is accepted where its distance is BELOW the threshold, so that equal distances share their fate. The
threshold is the largest at which at most the asked share of impostor pairs, or of queries, is accepted.

Letters: R rates, P persons, D resamples, n distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .intervals import Interval, Resampling
from .pairs import Lowest, Ranking, check_rates, num_allowed, thresholds_at

FALSE_MATCH_RATES = (1e-1, 1e-2, 1e-3, 1e-4)
FALSE_ALARM_RATES = (1e-1, 1e-2)
LEAST_KEPT = 100_000  # impostor pairs: resamples need more than the largest rate allows
GRID = 600  # thresholds that resamples choose from: their steps are 2 % of a rate at MARS's size


@dataclass(frozen=True)
class Verification:
    """Are these two tracklets the same person? True-match rates at false-match rates, over all pairs of a protocol.

    Attributes:
        false_match_rates: float64 (R,), as asked, in (0, 1).
        true_match_rates: float64 (R,), share of matching pairs that are accepted; NaN without any impostor pair, which
            sets no threshold.
        thresholds: float64 (R,), likewise.
        num_false: int64 (R,), impostor pairs that are accepted: what the threshold rests on.
        num_matching, num_wrong: pairs of one person, and of two.
        intervals: of the true-match rates, over persons.
    """

    false_match_rates: np.ndarray
    true_match_rates: np.ndarray
    thresholds: np.ndarray
    num_false: np.ndarray
    num_matching: int
    num_wrong: int
    intervals: tuple[Interval, ...]

    def to_dict(self) -> dict[str, Any]:
        """For metrics.json; None where there is no figure."""
        return {
            "num_matching_pairs": self.num_matching,
            "num_wrong_pairs": self.num_wrong,
            "false_match_rates": self.false_match_rates.tolist(),
            "true_match_rates": or_none(self.true_match_rates),
            "true_match_intervals": self.intervals,
            "thresholds": or_none(self.thresholds),
            "num_false_matches": self.num_false.tolist(),
        }


@dataclass(frozen=True)
class OpenSet:
    """Who is this, if the gallery knows the person at all? Detection and identification at false-alarm rates.

    The rate of Liao et al., "Open-set Person Re-identification", 2014, as in watch-list biometrics. There, some
    probes are of persons that the gallery does not know. Here every query is asked twice: once with its matches in the
    gallery, and once with all entries of its identity taken out. So no probe is chosen by chance.

    False alarm: the query is answered although its identity was taken out. Detected and identified: it is answered and
    the answer is a match; at equal distance the answer is the wrong entry.

    Attributes:
        false_alarm_rates: float64 (R,), as asked, shares of all queries.
        detection_rates: float64 (R,), shares of the queries that have a match; NaN where there is no wrong entry, which
            sets no threshold, or no query with a match.
        thresholds: float64 (R,).
        num_false: int64 (R,), queries that raise a false alarm.
        num_known: queries with a match.
        num_unknown: queries asked with their identity taken out: all for which the gallery has anybody else.
        intervals: of the detection rates, over persons.
    """

    false_alarm_rates: np.ndarray
    detection_rates: np.ndarray
    thresholds: np.ndarray
    num_false: np.ndarray
    num_known: int
    num_unknown: int
    intervals: tuple[Interval, ...]

    def to_dict(self) -> dict[str, Any]:
        """For metrics.json; None where there is no figure."""
        return {
            "num_known_queries": self.num_known,
            "num_unknown_queries": self.num_unknown,
            "false_alarm_rates": self.false_alarm_rates.tolist(),
            "detection_and_identification_rates": or_none(self.detection_rates),
            "detection_and_identification_intervals": self.intervals,
            "thresholds": or_none(self.thresholds),
            "num_false_alarms": self.num_false.tolist(),
        }


def verify(
    ranking: Ranking, rates: Sequence[float] = FALSE_MATCH_RATES, resampling: Resampling | None = None
) -> Verification:
    """The ROC at some rates. Matching pairs are of one identity and two cameras, impostor pairs of two identities.

    Only the smallest impostor distances are kept, half as many again as the largest rate allows.

    Raises:
        SettingsError: a rate that is not between 0 and 1.
    """
    asked, resampling = check_rates(rates), resampling or Resampling.of(ranking.query_ids)
    person = resampling.person
    keep = max(int(1.5 * num_allowed(asked, ranking.distances.size).max()) + 1, LEAST_KEPT)
    lowest, matching, matching_person = Lowest(keep), [], []
    num_wrong = np.full(len(person), ranking.distances.shape[1])
    for pairs in ranking.blocks():
        np.subtract.at(num_wrong, pairs.query, 1)
        matching.append(pairs.distance[pairs.is_match])
        matching_person.append(person[pairs.query[pairs.is_match]])
        wrong = pairs.wrong_distances(ranking.distances)
        near = wrong < lowest.bound
        lowest.add(wrong[near], np.repeat(person[pairs.rows], near.sum(axis=1)))
    impostors = _Side(lowest.values, lowest.persons, resampling.sum_persons(num_wrong))
    genuine = _Side.of(np.concatenate(matching), np.concatenate(matching_person), resampling.num_persons)
    accepted = _accept(impostors, genuine, asked, resampling)
    return Verification(
        asked,
        accepted.shares,
        accepted.thresholds,
        accepted.num_false,
        len(genuine.distances),
        int(num_wrong.sum()),
        accepted.intervals,
    )


def identify(
    ranking: Ranking, rates: Sequence[float] = FALSE_ALARM_RATES, resampling: Resampling | None = None
) -> OpenSet:
    """Open-set identification at some false-alarm rates.

    Raises:
        SettingsError: a rate that is not between 0 and 1.
    """
    asked, resampling = check_rates(rates), resampling or Resampling.of(ranking.query_ids)
    person, num_persons = resampling.person, resampling.num_persons
    nearest_match, nearest_wrong = (np.full(len(person), np.inf) for _ in range(2))
    for pairs in ranking.blocks():
        np.minimum.at(nearest_match, pairs.query[pairs.is_match], pairs.distance[pairs.is_match])
        nearest_wrong[pairs.rows] = pairs.wrong_distances(ranking.distances).min(axis=1)
    unknown, known = np.isfinite(nearest_wrong), np.isfinite(nearest_match)
    right = known & (nearest_match < nearest_wrong)
    alarms = _Side.of(nearest_wrong[unknown], person[unknown], num_persons)
    answers = _Side(nearest_match[right], person[right], np.bincount(person[known], minlength=num_persons))
    accepted = _accept(alarms, answers, asked, resampling)
    return OpenSet(
        asked,
        accepted.shares,
        accepted.thresholds,
        accepted.num_false,
        int(known.sum()),
        int(unknown.sum()),
        accepted.intervals,
    )


def or_none(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON, which knows neither NaN nor infinity."""
    return [float(value) if np.isfinite(value) else None for value in values]


@dataclass(frozen=True)
class _Side:
    """Distances of one kind.

    Attributes:
        distances: float (n,), in no order; of impostors the smallest are enough.
        persons: int64 (n,), whose they are.
        totals: (P,), how many each person has, those that can never be accepted included.
    """

    distances: np.ndarray
    persons: np.ndarray
    totals: np.ndarray

    @classmethod
    def of(cls, distances: np.ndarray, persons: np.ndarray, num_persons: int) -> _Side:
        """All of each person."""
        return cls(distances, persons, np.bincount(persons, minlength=num_persons))

    def below(self, grid: np.ndarray) -> np.ndarray:
        """int64 (P, T): how many distances of each person are below each threshold, in ascending order."""
        width = len(grid) + 1
        places = self.persons * width + np.searchsorted(grid, self.distances, side="right")
        counts = np.bincount(places, minlength=len(self.totals) * width).reshape(-1, width)
        return counts[:, :-1].cumsum(axis=1)


@dataclass(frozen=True)
class _Accepted:
    """Shares of the genuine side at the rates of the impostors', as the two public records have them."""

    shares: np.ndarray
    thresholds: np.ndarray
    num_false: np.ndarray
    intervals: tuple[Interval, ...]


def _accept(impostors: _Side, genuine: _Side, rates: np.ndarray, resampling: Resampling) -> _Accepted:
    """Thresholds, and what is accepted below them; in each resample the threshold is found again."""
    lowest, found = np.sort(impostors.distances), np.sort(genuine.distances)
    num_impostors, num_genuine = int(impostors.totals.sum()), int(genuine.totals.sum())
    thresholds = thresholds_at(lowest, num_impostors, rates)
    if not num_impostors or not num_genuine:
        num_false = np.searchsorted(lowest, thresholds) if num_impostors else np.zeros(len(rates), np.int64)
        return _Accepted(np.full(len(rates), np.nan), thresholds, num_false, (None,) * len(rates))
    grid = np.unique(lowest[np.unique(np.geomspace(1, len(lowest), GRID).astype(np.int64)) - 1])
    false = resampling.times @ impostors.below(grid)  # (D, thresholds of the grid)
    true = resampling.times @ genuine.below(grid)
    allowed = np.outer(resampling.times @ impostors.totals, rates) * (1 + 1e-12)
    totals = resampling.times @ genuine.totals
    draws = np.full(allowed.shape, np.nan)
    for number in range(len(rates)):
        chosen = (false <= allowed[:, number, None]).sum(axis=1) - 1
        accepted = true[np.arange(len(true)), chosen]
        np.divide(accepted, totals, out=draws[:, number], where=totals > 0)
    return _Accepted(
        np.searchsorted(found, thresholds) / num_genuine,
        thresholds,
        np.searchsorted(lowest, thresholds),
        resampling.intervals(draws),
    )
