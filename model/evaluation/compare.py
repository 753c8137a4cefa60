"""Whether one side is better than the other, or other persons could turn it round: the paired bootstrap over persons.

Letters: N queries, P persons, S seeds of a side, M metrics, D resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keyreid.pipeline.errors import SettingsError

from .intervals import FEW_PERSONS, Interval, Resampling, interval
from .per_query import CONTEXT, METRICS, QueryScores, require_same

RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """One metric of both sides, in shares from 0 to 1.

    Attributes:
        metric: one of METRICS.
        a, b: mean over queries and seeds.
        a_deviation, b_deviation: sample standard deviation over seeds; None for one seed.
        interval: 95 % of a - b, persons (and seeds, where there are several) drawn with replacement; None where every
            resample has the same difference.
    """

    metric: str
    a: float
    b: float
    a_deviation: float | None
    b_deviation: float | None
    interval: Interval

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

    @property
    def num_persons(self) -> int:
        return len(np.unique(self.a.identities))

    def sentence(self) -> str:
        """What the interval of the first metric means."""
        first = self.differences[0]
        basis = f"{self.num_persons:,} persons with {len(self.a.queries):,} queries"
        if not np.any(self.a.values.mean(0) - self.b.values.mean(0)):
            return f"A and B are equal on each query ({basis})."
        low, high = first.interval or (first.difference, first.difference)
        few = "" if self.num_persons >= FEW_PERSONS else " So few persons make the interval itself rough."
        if low <= 0 <= high:
            return (
                f"A and B differ by {_points(first.difference)} points of {first.metric} (95 % interval "
                f"{_points(low)} to {_points(high)}, {basis}): this dataset cannot tell them apart.{few}"
            )
        better, sign = ("A", 1) if first.difference > 0 else ("B", -1)
        ends = sorted((sign * low, sign * high))
        return (
            f"{better} is better by {_points(sign * first.difference)} points of {first.metric} (95 % interval "
            f"{_points(ends[0])} to {_points(ends[1])}, {basis}): the difference is statistically significant.{few}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        sides = {
            name: {"files": [str(path) for path in side.paths], "seeds": side.num_seeds, "runs": side.runs}
            | side.made_by
            for name, side in (("a", self.a), ("b", self.b))
        }
        return {
            **sides,
            "context": {str(split): values for split, values in self.a.contexts.items()},
            "num_queries": len(self.a.queries),
            "num_persons": self.num_persons,
            "differences": [one.to_dict() for one in self.differences],
            "sentence": self.sentence(),
        }


def compare(a: QueryScores, b: QueryScores, *, resamples: int = RESAMPLES, seed: int = 0) -> PairedComparison:
    """The differences of two sides on the same queries, with intervals.

    Each of D times, persons are drawn with replacement, the same for both sides and in all identity splits, and so are
    the seeds of a side that has several. With few seeds the interval is too narrow: S seeds vary by the root of
    (S - 1) / S less than a drawing of them would have to.

    Raises:
        SettingsError: the sides are of different datasets, protocols or queries; the first difference is named.
    """
    if resamples < 100:
        raise SettingsError(f"{resamples} resamples", "100 or more")
    require_same(_facts(a), _facts(b), ("A", "B"), "measure both alike with keyreid-eval")
    generator = np.random.default_rng(seed)
    drawn = Resampling.of(a.identities, resamples, seed)
    everyone = np.ones(len(a.queries))
    means = [[drawn.means(values, everyone) for values in side.values] for side in (a, b)]  # (S, D, M) of each side
    draws = np.subtract(*(_draw_seeds(np.stack(side), generator) for side in means))
    differences = []
    for number, metric in enumerate(METRICS):
        ours, theirs = (side.values[:, :, number].mean(1) for side in (a, b))
        deviations = _deviation(ours), _deviation(theirs)
        found = interval(draws[:, number], drawn.num_persons)
        differences.append(Difference(metric, float(ours.mean()), float(theirs.mean()), *deviations, found))
    return PairedComparison(a, b, tuple(differences))


def _draw_seeds(means: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """float64 (D, M): the mean over seeds drawn with replacement, of (S, D, M)."""
    seeds, resamples = means.shape[:2]
    shares = generator.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    return np.einsum("ds,sdm->dm", shares, means)


def _deviation(means: np.ndarray) -> float | None:
    return float(means.std(ddof=1)) if len(means) > 1 else None


def _facts(side: QueryScores) -> dict[str, object]:
    facts: dict[str, object] = {"identity splits": str(sorted(side.contexts))}
    for split, context in side.contexts.items():
        where = f" of identity split {split}" if len(side.contexts) > 1 else ""
        facts |= {f"{name}{where}": context[name] for name in CONTEXT}
    return {**facts, "queries": [tuple(query) for query in side.queries.tolist()]}


def _points(share: float) -> str:
    return f"{100 * share:.1f}"
