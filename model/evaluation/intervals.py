"""95 % intervals by bootstrap over persons.

Queries of one person resemble each other, so persons are drawn with replacement, each with all queries. A figure of the
persons drawn is a ratio of sums over persons times how often each was drawn, which is one product of matrices. The
gallery stays as it is.

Letters: n queries or pairs, P persons, D resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RESAMPLES = 2000
FEW_PERSONS = 50  # below, intervals are rough themselves
RULE_OF_30 = 30  # errors that a rate should rest on (Doddington): then it is within 30 % of the true one, 9 times in 10

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Resampling:
    """Persons drawn again and again.

    Attributes:
        person: int64 (n,), number of each query's person, from 0.
        times: float64 (D, P), how often each person was drawn; each row sums to P.
    """

    person: np.ndarray
    times: np.ndarray

    @classmethod
    def of(cls, identities: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Resampling:
        """Draw the persons of some identities (n,); the draws are those of `seed` and the number of persons."""
        names, person = np.unique(identities, return_inverse=True)
        generator, times = np.random.default_rng(seed), np.empty((resamples, len(names)))
        for drawn in times:
            drawn[:] = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names))
        return cls(person.reshape(-1), times)

    @property
    def num_persons(self) -> int:
        return self.times.shape[1]

    def sum_persons(self, values: np.ndarray) -> np.ndarray:
        """float64 (P, ...): the sums over each person of values (n, ...)."""
        flat = values.reshape(len(values), -1).astype(float)
        columns = [np.bincount(self.person, column, self.num_persons) for column in flat.T]
        return np.stack(columns, axis=1).reshape(self.num_persons, *values.shape[1:])

    def means(self, values: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """float64 (D, M): the mean of values (n, M) over what is counted, in each resample; NaN where that is nothing.

        Args:
            values: 0 where not counted.
            counted: (n,) or (n, M), of numbers or flags.
        """
        totals = self.times @ self.sum_persons(counted)
        sums = self.times @ self.sum_persons(values)
        totals = np.broadcast_to(totals[:, None] if totals.ndim == 1 else totals, sums.shape)
        return np.divide(sums, totals, out=np.full(sums.shape, np.nan), where=totals > 0)

    def intervals(self, draws: np.ndarray) -> tuple[Interval, ...]:
        """Of figures (D, M); see `interval`."""
        return tuple(interval(column, self.num_persons) for column in draws.T)


def interval(draws: np.ndarray, num_persons: int) -> Interval:
    """The middle of a figure's resamples (D,), which holds the true figure 95 times in 100.

    Between percentiles that lie further out the fewer persons there are, as the t distribution does (Hesterberg,
    "What teachers should know about the bootstrap", 2015): the plain ones are too narrow.

    Returns:
        None of one person, and where all resamples agree, as for a rate without any error: they say nothing then.
    """
    draws = draws[np.isfinite(draws)]
    if num_persons < 2 or not len(draws) or draws.min() == draws.max():
        return None
    tail = NormalDist().cdf(-math.sqrt(num_persons / (num_persons - 1)) * t_quantile(num_persons - 1))
    low, high = np.percentile(draws, (100 * tail, 100 * (1 - tail)))
    return float(low), float(high)


def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's distribution, to 0.3 % from 4 degrees on (Cornish-Fisher; spares scipy)."""
    z = NormalDist().inv_cdf(0.975)
    series = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return sum(term / degrees**power for power, term in enumerate(series))
