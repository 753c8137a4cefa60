"""Open-set identification: who is this, if it is anybody that the gallery knows?

The figure is the detection and identification rate at a false-alarm rate (Liao et al., "Open-set Person
Re-identification", 2014; the same as in watch-list biometrics). There, some probes are of people that the gallery does
not know. Here every query is asked twice: once with its matches in the gallery, and once with all entries of its
identity taken out, which makes it a person that the gallery does not know. So no probe is chosen by chance, and each
query raises an alarm or does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .pairs import Ranking
from .verification import check_rates, or_none, thresholds_at

FALSE_ALARM_RATES = (1e-1, 1e-2)


@dataclass(frozen=True)
class OpenSet:
    """Detection and identification rates at false-alarm rates.

    With a threshold, a query is answered by its nearest entry where that is BELOW it. False alarm: the query is
    answered although its identity was taken out. Detected and identified: it is answered and the answer is a match; at
    equal distance the answer is the wrong entry. The threshold is the largest at which at most the asked share of
    queries raises a false alarm.

    Attributes:
        false_alarm_rates: float64 (R,), as asked, shares of all queries.
        detection_rates: float64 (R,), shares of the queries that have a match; NaN where there is no wrong entry, which
            sets no threshold, or no query with a match.
        thresholds: float64 (R,).
        num_known: queries with a match.
        num_unknown: queries asked with their identity taken out: all for which the gallery has anybody else.
    """

    false_alarm_rates: np.ndarray
    detection_rates: np.ndarray
    thresholds: np.ndarray
    num_known: int
    num_unknown: int

    def to_dict(self) -> dict[str, Any]:
        """For metrics.json; None where there is no figure."""
        return {
            "num_known_queries": self.num_known,
            "num_unknown_queries": self.num_unknown,
            "false_alarm_rates": self.false_alarm_rates.tolist(),
            "detection_and_identification_rates": or_none(self.detection_rates),
            "thresholds": or_none(self.thresholds),
        }


def identify(ranking: Ranking, rates: Sequence[float] = FALSE_ALARM_RATES) -> OpenSet:
    """Open-set identification at some false-alarm rates.

    Raises:
        SettingsError: a rate that is not between 0 and 1.
    """
    asked = check_rates(rates)
    nearest_match, nearest_wrong = (np.full(len(ranking.query_ids), np.inf) for _ in range(2))
    for pairs in ranking.blocks():
        np.minimum.at(nearest_match, pairs.query[pairs.is_match], pairs.distance[pairs.is_match])
        nearest_wrong[pairs.rows] = pairs.wrong_distances(ranking.distances).min(axis=1)
    alarms = np.sort(nearest_wrong[np.isfinite(nearest_wrong)])
    known = np.isfinite(nearest_match)
    thresholds = thresholds_at(alarms, len(alarms), asked)
    right = np.sort(nearest_match[known & (nearest_match < nearest_wrong)])
    rates_found = np.searchsorted(right, thresholds) / max(known.sum(), 1)
    rates_found = np.where(np.isnan(thresholds) | ~known.any(), np.nan, rates_found)
    return OpenSet(asked, rates_found, thresholds, int(known.sum()), len(alarms))
