"""MARS's test tracklets for the evaluation benchmarks: made with its counts, or read from its published tables."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from keyreid.pipeline.records import Tracklet

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from mars_shape import mars_rows

LONGEST = 110  # frames; the mean of the published tracklets is 56


def made_tracklets() -> list[Tracklet]:
    """The 11,310 without junk, of 2 to 110 frames."""
    lengths = np.random.default_rng(0).integers(2, LONGEST + 1, len(mars_rows()))
    pairs = zip(mars_rows(), lengths, strict=True)
    rows = [(identity, camera, int(length), query) for (identity, camera, query), length in pairs]
    return _tracklets(rows)


def published_tracklets(info: Path) -> list[Tracklet]:
    """Of MARS's info folder, which holds tracks_test_info.mat and query_IDX.mat; no image is needed."""
    table = loadmat(info / "tracks_test_info.mat")["track_test_info"].astype(int).tolist()
    queries = set((loadmat(info / "query_IDX.mat")["query_IDX"].astype(int).ravel() - 1).tolist())
    rows = [
        (identity, camera, end - start + 1, row in queries) for row, (start, end, identity, camera) in enumerate(table)
    ]
    return _tracklets(rows)


def _tracklets(rows: list[tuple[int, int, int, bool]]) -> list[Tracklet]:
    return [
        Tracklet(number, "query" if is_query else "gallery", identity, camera, 0, length)
        for number, (identity, camera, length, is_query) in enumerate(rows)
        if identity >= 0
    ]
