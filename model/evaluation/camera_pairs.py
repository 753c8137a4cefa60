"""Which distances matches and others have, and how well people are found from one camera in another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .pairs import Ranking

NUM_BINS = 60


@dataclass(frozen=True)
class DistanceHistogram:
    """Distances of a protocol's pairs, counted in bins of one width.

    Attributes:
        edges: float64 (NUM_BINS + 1,).
        matches: int64 (NUM_BINS,), pairs of one person under two cameras.
        others: int64 (NUM_BINS,), pairs of two persons under two cameras.
        same_camera: int64 (NUM_BINS,), pairs of two persons under one camera.
    """

    edges: np.ndarray
    matches: np.ndarray
    others: np.ndarray
    same_camera: np.ndarray


@dataclass(frozen=True)
class CameraPairs:
    """Rank-1 of each query camera in each gallery camera alone.

    Attributes:
        query_cameras, gallery_cameras: int64 (C,) and (E,), ascending.
        queries: int64 (C, E), queries of the camera that have a match under the gallery camera.
        found: int64 (C, E), those of them whose nearest tracklet under the gallery camera is a match; at equal
            distance it is not.
    """

    query_cameras: np.ndarray
    gallery_cameras: np.ndarray
    queries: np.ndarray
    found: np.ndarray

    @property
    def rank1(self) -> np.ndarray:
        """float64 (C, E) in [0, 1], NaN where no query counts."""
        return np.divide(self.found, self.queries, out=np.full(self.queries.shape, np.nan), where=self.queries > 0)


def distance_histogram(ranking: Ranking) -> DistanceHistogram:
    """Count every pair that the protocol leaves, by kind; memory holds a block of queries."""
    low, high = float(ranking.distances.min()), float(ranking.distances.max())
    limits = low, high if high > low else low + 1
    counts = np.zeros((3, NUM_BINS), np.int64)
    for pairs in ranking.blocks():
        block = ranking.distances[pairs.rows]
        same_camera = ranking.query_cameras[pairs.rows, None] == ranking.gallery_cameras
        other = np.ones(block.shape, bool)
        other[pairs.query - pairs.rows.start, pairs.entry] = False
        kinds = (pairs.distance[pairs.is_match], block[other & ~same_camera], block[other & same_camera])
        counts += [np.histogram(values.astype(float), NUM_BINS, limits)[0] for values in kinds]
    return DistanceHistogram(np.linspace(*limits, NUM_BINS + 1), *counts)


def camera_pairs(ranking: Ranking) -> CameraPairs:
    """Rank-1 between cameras: each query asks each gallery camera for itself."""
    query_cameras, row = np.unique(ranking.query_cameras, return_inverse=True)
    gallery_cameras = np.unique(ranking.gallery_cameras)
    shape = len(query_cameras), len(gallery_cameras)
    queries, found = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for pairs in ranking.blocks():
        wrong = pairs.wrong_distances(ranking.distances)
        for column, camera in enumerate(gallery_cameras):
            here = pairs.is_match & (ranking.gallery_cameras[pairs.entry] == camera)
            nearest = np.full(len(wrong), np.inf)
            np.minimum.at(nearest, pairs.query[here] - pairs.rows.start, pairs.distance[here])
            has_match = np.isfinite(nearest)
            is_found = has_match & (nearest < wrong[:, ranking.gallery_cameras == camera].min(axis=1))
            np.add.at(queries[:, column], row[pairs.rows][has_match], 1)
            np.add.at(found[:, column], row[pairs.rows][is_found], 1)
    return CameraPairs(query_cameras, gallery_cameras, queries, found)
