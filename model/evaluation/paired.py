"""Whether one side is better than the other, or luck with the queries: the paired bootstrap.

Letters: N queries, G groups of them, S seeds of a side, M metrics, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keyreid.pipeline.errors import SettingsError

from .query_scores import CONTEXT, METRICS, QueryScores, check_alike

INTERVAL = (2.5, 97.5)  # percentiles
RESAMPLES_AT_ONCE = 500
RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """One metric of both sides, in shares from 0 to 1.

    Attributes:
        metric: one of METRICS.
        a, b: mean over queries and seeds.
        a_deviation, b_deviation: sample standard deviation over seeds; None for one seed.
        over_queries: 95 % interval of a - b, queries (and seeds, where there are several) drawn anew.
        over_identities: likewise, but people drawn with all their queries, which resemble each other.
    """

    metric: str
    a: float
    b: float
    a_deviation: float | None
    b_deviation: float | None
    over_queries: tuple[float, float]
    over_identities: tuple[float, float]

    @property
    def difference(self) -> float:
        return self.a - self.b

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "difference": self.difference}


@dataclass(frozen=True)
class PairedComparison:
    """What `compare` found; `differences` in the order of METRICS."""

    a: QueryScores
    b: QueryScores
    differences: tuple[Difference, ...]

    def sentence(self) -> str:
        """What the intervals of the first metric mean."""
        first, count = self.differences[0], len(self.a.queries)
        low, high = first.over_queries
        if not np.any(self.a.values.mean(0) - self.b.values.mean(0)):
            return f"A and B are equal on each of {count:,} queries."
        if low <= 0 <= high:
            return (
                f"A and B differ by {_points(first.difference)} points of {first.metric} (95 % interval "
                f"{_points(low)} to {_points(high)}), over {count:,} queries: this dataset cannot tell them apart."
            )
        better, sign = ("A", 1) if first.difference > 0 else ("B", -1)
        ends = sorted((sign * low, sign * high))
        people = sorted(sign * end for end in first.over_identities)
        told = (
            f"{better} is better by {_points(sign * first.difference)} points of {first.metric} (95 % interval "
            f"{_points(ends[0])} to {_points(ends[1])}), over {count:,} queries: the difference is real at this dataset"
        )
        if people[0] > 0:
            return f"{told}."
        return (
            f"{told} for these people. Drawing people instead of queries the interval is {_points(people[0])} to "
            f"{_points(people[1])}: other people could turn it round."
        )

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        sides = {
            name: {"files": [str(path) for path in side.paths], "seeds": side.num_seeds, "made_by": side.made_by}
            for name, side in (("a", self.a), ("b", self.b))
        }
        return {
            **sides,
            "context": {str(split): list(values) for split, values in self.a.contexts.items()},
            "num_queries": len(self.a.queries),
            "num_identities": len(np.unique(_people(self.a))),
            "differences": [one.to_dict() for one in self.differences],
            "sentence": self.sentence(),
        }


def compare(a: QueryScores, b: QueryScores, *, resamples: int = RESAMPLES, seed: int = 0) -> PairedComparison:
    """The differences of two sides on the same queries, with intervals.

    Each of R times, queries are drawn with replacement, the same for both sides, and so are the seeds of a side that
    has several; the interval holds the middle 95 % of the differences. With few seeds it is too narrow: S seeds vary by
    the root of (S - 1) / S less than a drawing of them would have to.

    Raises:
        SettingsError: the sides are of different datasets, protocols or queries; the first difference is named.
    """
    if resamples < 100:
        raise SettingsError(f"{resamples} resamples", "100 or more")
    check_alike(_facts(a), _facts(b), ("A", "B"))
    values = np.concatenate([a.values, b.values])  # (S, N, M) of both sides
    intervals = []
    for groups in (np.arange(len(a.queries)), _people(a)):
        draws = _resampled(values, groups, a.num_seeds, resamples, np.random.default_rng(seed))
        intervals.append(np.percentile(draws, INTERVAL, axis=0))
    found = []
    for number, metric in enumerate(METRICS):
        ours, theirs = (side.values[:, :, number].mean(1) for side in (a, b))
        queries, people = ((float(interval[0, number]), float(interval[1, number])) for interval in intervals)
        deviations = _deviation(ours), _deviation(theirs)
        found.append(Difference(metric, float(ours.mean()), float(theirs.mean()), *deviations, queries, people))
    return PairedComparison(a, b, tuple(found))


def _deviation(means: np.ndarray) -> float | None:
    return float(means.std(ddof=1)) if len(means) > 1 else None


def _resampled(
    values: np.ndarray, groups: np.ndarray, num_a: int, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Differences of the means, float64 (R, M), of values (S, N, M) whose first `num_a` seeds are one side.

    Groups of queries are drawn, not queries: a mean is the sum over the drawn groups over the number of their queries.
    """
    _, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group).astype(float)
    sums = np.stack([_sum_groups(one, group, len(sizes)) for one in values], axis=1)  # (G, S, M)
    seeds = (num_a, len(values) - num_a)
    draws = []
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        count = min(RESAMPLES_AT_ONCE, resamples - start)
        times = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), count).astype(float)
        means = np.einsum("rg,gsm->rsm", times, sums, optimize=True) / (times @ sizes)[:, None, None]
        shares = [generator.multinomial(n, np.full(n, 1 / n), count) / n for n in seeds]
        draws.append(np.einsum("rsm,rs->rm", means, np.hstack([shares[0], -shares[1]])))
    return np.concatenate(draws)


def _sum_groups(values: np.ndarray, group: np.ndarray, num_groups: int) -> np.ndarray:
    """float64 (G, M) of (N, M)."""
    return np.column_stack([np.bincount(group, column, num_groups) for column in values.T])


def _people(side: QueryScores) -> np.ndarray:
    """A number for each query's person, int64 (N,)."""
    return np.unique(np.column_stack([side.queries[:, 0], side.identities]), axis=0, return_inverse=True)[1].reshape(-1)


def _facts(side: QueryScores) -> dict[str, object]:
    facts: dict[str, object] = {"identity splits": sorted(side.contexts)}
    for split, context in side.contexts.items():
        where = f" of identity split {split}" if len(side.contexts) > 1 else ""
        facts |= {f"{name}{where}": value for name, value in zip(CONTEXT, context, strict=True)}
    return {**facts, "queries": [tuple(query) for query in side.queries.tolist()]}


def _points(share: float) -> str:
    return f"{100 * share:.1f}"
