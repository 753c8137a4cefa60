"""k-reciprocal re-ranking at MARS's size: time and memory, ours beside the published dense algorithm.

    .venv/bin/python benchmarks/reranking.py
    .venv/bin/python benchmarks/reranking.py --tracklets 3000 --queries 500

Distances are squared Euclidean, of random descriptors around 1,200 centres. Each way runs in a process of its own, one
after the other, with the same matrix, and is timed once, the distances not included; peak memory is what the process
had in memory at most beyond that matrix. The dense algorithm is tests/oracle_reranking.py in float32, which is how it
is published; both must give the same distances to 1e-4. It needs several matrices of all pairs, some GB for 11,310
tracklets: --skip-dense leaves it out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from peak_memory import peak, resident, run_alone

from keyreid.model.evaluation.distances import squared_distances
from keyreid.model.evaluation.reranking import KReciprocal

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracle_reranking import dense_reranking

WIDTH, CENTRES, NOISE = 64, 1200, 0.7
WAYS = {"ours": KReciprocal().apply, "dense": dense_reranking}
TOLERANCE = 1e-4


def run_way(name: str, file: Path, num_queries: int) -> dict[str, Any]:
    """Re-rank the matrix of `file` with one of WAYS and keep what it gives beside it."""
    distances = np.load(file)
    rows = np.arange(len(distances))
    before = resident()
    start = time.perf_counter()
    result = WAYS[name](distances, rows[:num_queries], rows[num_queries:])
    seconds = time.perf_counter() - start
    np.save(file.with_name(f"{name}.npy"), result)
    return {"way": name, "seconds": round(seconds, 2), "GB_beyond_the_distances": round(peak() - before, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracklets", type=int, default=11_310)
    parser.add_argument("--queries", type=int, default=1980)
    parser.add_argument("--skip-dense", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CENTRES, WIDTH))[rng.integers(0, CENTRES, options.tracklets)]
    values = (centres + NOISE * rng.normal(size=centres.shape)).astype(np.float32)
    print(json.dumps({"tracklets": options.tracklets, "queries": options.queries}))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "distances.npy"
        np.save(file, squared_distances(values, values))
        for name in ("ours",) if options.skip_dense else WAYS:
            print(json.dumps(run_alone(run_way, name, file, options.queries)))
        if not options.skip_dense:
            ours, dense = (np.load(file.with_name(f"{name}.npy")) for name in WAYS)
            difference = float(np.abs(ours - dense).max())
            if not difference <= TOLERANCE:
                raise SystemExit(f"Error: the two differ by {difference:.1e}; expected {TOLERANCE:.0e} at most")
            print(json.dumps({"largest_difference": difference}))


if __name__ == "__main__":
    main()
