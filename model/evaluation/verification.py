"""Verification: are these two tracklets the same person? The ROC over all pairs that a protocol leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keyreid.pipeline.errors import SettingsError

from .pairs import Ranking

FALSE_MATCH_RATES = (1e-1, 1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class Verification:
    """True-match rates at false-match rates.

    A pair is accepted when its distance is BELOW the threshold, so pairs of equal distance share their fate. The
    threshold is the largest at which at most the asked share of wrong pairs is accepted.

    Attributes:
        false_match_rates: float64 (R,), as asked, in (0, 1).
        true_match_rates: float64 (R,), share of matching pairs that are accepted; NaN without any wrong pair, which
            sets no threshold.
        thresholds: float64 (R,), likewise.
        num_matching, num_wrong: pairs of each kind.
    """

    false_match_rates: np.ndarray
    true_match_rates: np.ndarray
    thresholds: np.ndarray
    num_matching: int
    num_wrong: int

    def to_dict(self) -> dict[str, Any]:
        """For metrics.json; None where there is no figure."""
        return {
            "num_matching_pairs": self.num_matching,
            "num_wrong_pairs": self.num_wrong,
            "false_match_rates": self.false_match_rates.tolist(),
            "true_match_rates": or_none(self.true_match_rates),
            "thresholds": or_none(self.thresholds),
        }


def verify(ranking: Ranking, rates: Sequence[float] = FALSE_MATCH_RATES) -> Verification:
    """The ROC at some rates. Matching pairs are of one identity and two cameras, wrong ones of two identities.

    Only as many of the smallest wrong distances are kept as the largest rate allows, so memory holds a tenth of them.

    Raises:
        SettingsError: a rate that is not between 0 and 1.
    """
    asked = check_rates(rates)
    num_same = 0
    matching = []
    pool: list[np.ndarray] = []
    bound, waiting = np.inf, 0
    keep = int(_allowed(asked, ranking.distances.size).max()) + 1  # more than needed: all pairs, not the wrong alone
    for pairs in ranking.blocks():
        num_same += len(pairs.query)
        matching.append(pairs.distance[pairs.is_match])
        wrong = pairs.wrong_distances(ranking.distances)
        near = wrong[wrong < bound]
        pool.append(near)
        waiting += len(near)
        if waiting > 2 * keep:
            pool = [np.partition(np.concatenate(pool), keep - 1)[:keep]]
            bound, waiting = pool[0].max(), keep
    lowest, found = np.sort(np.concatenate(pool)), np.sort(np.concatenate(matching))
    num_wrong = ranking.distances.size - num_same
    thresholds = thresholds_at(lowest, num_wrong, asked)
    accepted = np.searchsorted(found, thresholds) / max(len(found), 1)
    shares = np.where(np.isnan(thresholds) | (len(found) == 0), np.nan, accepted)
    return Verification(asked, shares, thresholds, len(found), num_wrong)


def check_rates(rates: Sequence[float]) -> np.ndarray:
    """float64 (R,).

    Raises:
        SettingsError: none, or one that is not between 0 and 1.
    """
    asked = np.asarray(rates, float)
    if not asked.size or not ((asked > 0) & (asked < 1)).all():
        raise SettingsError(f"rates {list(rates)}", "one or more numbers between 0 and 1, such as 0.01")
    return asked


def thresholds_at(lowest: np.ndarray, count: int, rates: np.ndarray) -> np.ndarray:
    """The largest threshold for each rate, such that at most that share of `count` numbers lies below it.

    Args:
        lowest: float, the smallest of the numbers in ascending order, one more than the largest rate allows.
        count: how many numbers there are.

    Returns:
        float64, NaN where count is 0.
    """
    if not count:
        return np.full(len(rates), np.nan)
    return lowest[_allowed(rates, count)].astype(float)


def _allowed(rates: np.ndarray, count: int) -> np.ndarray:
    """int64 (R,): how many of `count` a rate allows; 0.29 of 100 is 29, though the product is 28.999999999999996."""
    return np.minimum(np.floor(rates * count * (1 + 1e-12)).astype(np.int64), count - 1)


def or_none(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON, which knows neither NaN nor infinity."""
    return [float(value) if np.isfinite(value) else None for value in values]
