"""Coverage of the 95 % intervals by simulation, and what they cost at MARS's size; one core.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/intervals.py
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/intervals.py --time

A made dataset has --persons persons, each with --queries queries and one gallery tracklet. A person's queries lie
around a distance of the person's own from their match, and around another from impostors: so queries of one person
resemble each other. The true figure is the mean over all datasets. Printed is the share of datasets whose interval
holds it, and how often it lies below and above.

--time measures distances of MARS's shape (1,980 x 9,330), with persons and cameras as in MARS: every figure of a table
without its intervals and with them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from metrics import make_arrays

from keyreid.model.evaluation.intervals import RESAMPLES, Resampling
from keyreid.model.evaluation.metrics import measure_ranking
from keyreid.model.evaluation.pairs import Ranking
from keyreid.model.evaluation.thresholds import identify, verify

RATES = (0.1, 0.01)


def make_ranking(num_persons: int, num_queries: int, rng: np.random.Generator) -> Ranking:
    """Queries in camera 0, the gallery in camera 1, in order of the persons."""
    person = np.repeat(np.arange(num_persons), num_queries)
    distances = rng.normal(2.4, 0.2, num_persons)[person, None] + rng.normal(0, 0.4, (len(person), num_persons))
    match = rng.normal(1.0, 0.35, num_persons)[person] + rng.normal(0, 0.35, len(person))
    distances[np.arange(len(person)), person] = match
    return Ranking(distances, person, np.arange(num_persons), np.zeros(len(person)), np.ones(num_persons))


def figures(ranking: Ranking) -> dict[str, tuple[float, Any]]:
    """Name -> figure and interval."""
    metrics = measure_ranking(ranking)
    resampling = Resampling.of(ranking.query_ids)
    values = np.stack([metrics.average_precision, metrics.first_match == 1], axis=1)
    ranks = resampling.intervals(resampling.means(values, np.ones(len(values))))
    pairs, queries = verify(ranking, RATES, resampling), identify(ranking, RATES, resampling)
    found = {"mAP": (metrics.mAP, ranks[0]), "Rank-1": (metrics.rank(1), ranks[1])}
    for place, rate in enumerate(RATES):
        found[f"TMR @ {100 * rate:g} %"] = pairs.true_match_rates[place], pairs.intervals[place]
        found[f"DIR @ {100 * rate:g} %"] = queries.detection_rates[place], queries.intervals[place]
    return found


def coverage(num_persons: int, num_queries: int, datasets: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    found = [figures(make_ranking(num_persons, num_queries, rng)) for _ in range(datasets)]
    shares = {}
    for name in found[0]:
        truth = float(np.mean([one[name][0] for one in found]))
        ends = np.array([one[name][1] or (one[name][0],) * 2 for one in found])
        below, above = float((truth < ends[:, 0]).mean()), float((truth > ends[:, 1]).mean())
        shares[name] = {"truth": round(truth, 3), "inside": round(1 - below - above, 3), "below": below, "above": above}
    return shares


def seconds(work: Callable[[], object], rounds: int = 3) -> float:
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return round(sorted(spent)[rounds // 2], 3)


def cost() -> dict[str, Any]:
    """CPU seconds with all resamples, and with two, which are as good as none."""
    ranking = Ranking(*make_arrays(1.0))

    def measure(resamples: int) -> None:
        metrics = measure_ranking(ranking)
        resampling = Resampling.of(ranking.query_ids, resamples)
        hits = metrics.first_match[:, None] <= np.arange(1, 51)
        resampling.intervals(resampling.means(hits, np.ones(len(hits))))
        verify(ranking, resampling=resampling)
        identify(ranking, resampling=resampling)

    with_intervals, without = seconds(lambda: measure(RESAMPLES)), seconds(lambda: measure(2))
    return {
        "distances": ranking.distances.shape,
        "persons": len(np.unique(ranking.query_ids)),
        "seconds_with_intervals": with_intervals,
        "seconds_without": without,
        "seconds_for_intervals": round(with_intervals - without, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=100)
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--datasets", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time", action="store_true")
    options = parser.parse_args()
    found = cost() if options.time else coverage(options.persons, options.queries, options.datasets, options.seed)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
