"""CMC, mAP and mINP at MARS's size beside the per-query loop of the field, one core; from descriptors, with memory.

    .venv/bin/python benchmarks/metrics.py
    .venv/bin/python benchmarks/metrics.py --descriptors

The first has 1,980 x 9,330 given distances, random and without ties, whose rule differs (docs/evaluation.md). "numpy"
is the loop with every step in numpy: argsort, mask, cumsum. "field" is the same as it is commonly written (torchreid,
fast-reid, VID-Trans-ReID and KeyRe-ID), where the precision at each rank is a Python list comprehension. They take
turns; printed are medians. CMC and first match must be the same numbers, average precision, inverse negative penalty
and their means the same to 1e-12: sums are taken in another order.

--descriptors measures distances from random descriptors of 19,200 numbers, and all metrics, once: `standard` (1,980 x
9,330) and the square of all 11,310, each in a process of its own. Peak memory is what the whole process had in memory
at most, descriptors included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from mars_tracklets import made_tracklets
from peak_memory import peak, resident, run_alone

from keyreid.model.embedding.descriptors import TrackletDescriptors
from keyreid.model.evaluation.distances import distances_between
from keyreid.model.evaluation.measurement import Measurement
from keyreid.model.evaluation.metrics import RankMetrics, rank_metrics
from keyreid.model.evaluation.protocols import Selection, find_protocol, own_cameras
from keyreid.model.evaluation.reranking import Comparison, KReciprocal

MAX_RANK = 50
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def make_arrays(scale: float) -> Arrays:
    """Distances (each row a permutation, so none are equal), identities and cameras of MARS's shape."""
    chosen = find_protocol("standard").select(made_tracklets())
    sides = chosen.queries[-round(scale * len(chosen.queries)) :], chosen.gallery
    distances = np.tile(np.arange(len(sides[1]), dtype=np.float32), (len(sides[0]), 1))
    distances = np.random.default_rng(0).permuted(distances, axis=1) / np.float32(len(sides[1]))
    ids, cameras = ([np.array([getattr(t, name) for t in side]) for side in sides] for name in ("identity", "camera"))
    return distances, ids[0], ids[1], cameras[0], cameras[1]


def plain(arrays: Arrays, precisions: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """The loop of the field; `precisions` makes the precision at each rank of the number of matches up to it."""
    distances, query_ids, gallery_ids, query_cameras, gallery_cameras = arrays
    curves, average, penalty, first = [], [], [], []
    for query, row in enumerate(distances):
        order = np.argsort(row)
        same = gallery_ids[order] == query_ids[query]
        hits = same[~(same & (gallery_cameras[order] == query_cameras[query]))].astype(np.int32)
        if not hits.any():
            average.append(np.nan)
            penalty.append(np.nan)
            first.append(0)
            continue
        found = hits.cumsum()
        curves.append(np.minimum(found, 1)[:MAX_RANK])
        average.append((precisions(found) * hits).sum() / hits.sum())
        ranks = np.flatnonzero(hits) + 1
        penalty.append(len(ranks) / ranks[-1])
        first.append(ranks[0])
    return {
        "cmc": np.array(curves).sum(0) / len(curves),
        "average_precision": np.array(average),
        "inverse_negative_penalty": np.array(penalty),
        "first_match": np.array(first),
        "mAP": np.nanmean(average),
        "mINP": np.nanmean(penalty),
    }


def numpy_precisions(found: np.ndarray) -> np.ndarray:
    return found / np.arange(1, len(found) + 1)


def field_precisions(found: np.ndarray) -> np.ndarray:
    return np.asarray([matches / (place + 1.0) for place, matches in enumerate(found)])


def require_same(ours: RankMetrics, other: dict[str, Any]) -> None:
    """Raises SystemExit where the two differ."""
    for name, value in other.items():
        exact = name in ("cmc", "first_match")
        if not np.allclose(getattr(ours, name), value, rtol=0, atol=0 if exact else 1e-12, equal_nan=True):
            raise SystemExit(f"Error: {name} differs: {getattr(ours, name)} and {value}")


def compare_loops(scale: float, rounds: int, field_rounds: int) -> dict[str, Any]:
    arrays = make_arrays(scale)
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: rank_metrics(*arrays, max_rank=MAX_RANK),
        "numpy": lambda: plain(arrays, numpy_precisions),
        "field": lambda: plain(arrays, field_precisions),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        results = {}
        for name, way in ways.items():
            if name == "field" and turn >= field_rounds:
                continue
            start = time.perf_counter()
            results[name] = way()
            seconds[name].append(time.perf_counter() - start)
        for name in results.keys() - {"ours"}:
            require_same(results["ours"], results[name])
    medians = {name: statistics.median(spent) for name, spent in seconds.items() if spent}
    return {
        "distances": arrays[0].shape,
        "rounds": {name: len(spent) for name, spent in seconds.items()},
        "seconds": {name: round(median, 4) for name, median in medians.items()},
        "ours_is_faster": {name: round(median / medians["ours"], 1) for name, median in medians.items()},
        "range": {name: [round(min(spent), 4), round(max(spent), 4)] for name, spent in seconds.items() if spent},
    }


def from_descriptors(
    square: bool, scale: float, width: int, distance: str, rerank: bool, device: str
) -> dict[str, Any]:
    """Distances and all metrics, timed, with the memory of this process."""
    protocol, everything = find_protocol("standard"), made_tracklets()
    everything = everything[-round(scale * len(everything)) :]
    chosen = protocol.select(everything)
    if square:
        cameras, sides = own_cameras(everything), (tuple(everything), tuple(everything))
        chosen = Selection(*sides, cameras, cameras)
    before = resident()
    values = np.random.default_rng(0).standard_normal((len(everything), width), np.float32)
    descriptors = TrackletDescriptors.of(everything, values, "random")
    loaded = resident()
    start = time.perf_counter()
    queries, gallery = descriptors.rows(chosen.queries), descriptors.rows(chosen.gallery)
    comparison = Comparison(distance, KReciprocal() if rerank else None)
    distances = distances_between(descriptors, queries, gallery, comparison, device)
    between = time.perf_counter()
    measurement = Measurement("random", protocol, chosen, distances)
    measurement.to_dict()  # every figure
    return {
        "distances": distances.shape,
        "numbers": width,
        "distance": comparison.distance,
        "reranking": comparison.reranking_name,
        "seconds_for_distances": round(between - start, 2),
        "seconds_for_metrics": round(time.perf_counter() - between, 2),
        "valid_queries": measurement.metrics.num_valid_queries,
        "GB_before_descriptors": round(before, 2),
        "GB_with_descriptors": round(loaded, 2),
        "GB_at_most": round(peak(), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--field-rounds", type=int, default=1, help="it takes half a minute")
    parser.add_argument("--descriptors", action="store_true")
    parser.add_argument("--width", type=int, default=19_200)
    parser.add_argument("--distance", default="euclidean", choices=["euclidean", "cosine"])
    parser.add_argument("--rerank", action="store_true", help="for --descriptors")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="for --descriptors")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the tracklets, for a trial")
    options = parser.parse_args()
    if not options.descriptors:
        print(json.dumps(compare_loops(options.scale, options.rounds, options.field_rounds), indent=2))
        return
    for square in (False, True):
        arguments = square, options.scale, options.width, options.distance, options.rerank, options.device
        print(json.dumps(run_alone(from_descriptors, *arguments, threads=options.threads), indent=2))


if __name__ == "__main__":
    main()
