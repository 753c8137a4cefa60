"""CMC, mAP and mINP of a matrix of distances; pure functions on arrays.

Letters: Q queries, G gallery tracklets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keyreid.pipeline.errors import KeyReIDError

QUERIES_AT_ONCE = 256  # bounds the memory of the sorted copies to a few times 256 x G numbers


@dataclass(frozen=True)
class RankMetrics:
    """What a ranking is worth; every mean is over the valid queries, in [0, 1].

    Attributes:
        cmc: float64 (R,), cmc[k - 1] = share of queries with a match among their k nearest; R = min(max_rank, G).
        mAP: mean average precision (mean over a query's matches of the precision at each match's rank).
        mINP: mean inverse negative penalty (matches of a query divided by the rank of its last one).
        num_queries: Q.
        num_valid_queries: queries with at least one match left after the filtering; the others are skipped.
        average_precision: float64 (Q,), NaN for a skipped query.
        first_match: int64 (Q,), rank of the nearest match, from 1; 0 for a skipped query.
    """

    cmc: np.ndarray
    mAP: float
    mINP: float
    num_queries: int
    num_valid_queries: int
    average_precision: np.ndarray
    first_match: np.ndarray

    def rank(self, k: int) -> float:
        """Share of valid queries with a match among the k nearest; beyond the gallery's size all ranks are equal."""
        if k < 1:
            raise KeyReIDError(f"Rank-{k}", "a rank of 1 or more")
        return float(self.cmc[min(k, len(self.cmc)) - 1])


def rank_metrics(
    distances: np.ndarray,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
    *,
    max_rank: int = 50,
) -> RankMetrics:
    """Rank the gallery of each query and measure where its matches are.

    Of each query's ranking, gallery entries with the query's identity AND camera are removed. A query with no other
    entry of its identity is skipped and counted. Equal distances are ranked in the gallery's order.

    Args:
        distances: float (Q, G), smaller is nearer, finite.
        query_ids, query_cameras: (Q,), one a tracklet: not one a frame.
        gallery_ids, gallery_cameras: (G,), likewise.
        max_rank: longest rank of the CMC.

    Raises:
        KeyReIDError: lengths that differ, an empty side, distances that are NaN or infinite, no valid query at all.
    """
    distances = np.asarray(distances)
    queries = np.asarray(query_ids), np.asarray(query_cameras)
    gallery = np.asarray(gallery_ids), np.asarray(gallery_cameras)
    _check(distances, queries, gallery, max_rank)
    blocks = [
        _measure_block(distances[rows], queries[0][rows], queries[1][rows], *gallery)
        for rows in (slice(start, start + QUERIES_AT_ONCE) for start in range(0, len(distances), QUERIES_AT_ONCE))
    ]
    matches, precision, first, last = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    valid = matches > 0
    if not valid.any():
        raise KeyReIDError(
            f"none of the {len(valid)} queries has a match in the gallery under another camera",
            "at least one identity seen by two cameras",
            "check the identities and cameras of the query and gallery tracklets",
        )
    length = min(max_rank, distances.shape[1])
    within = np.bincount(first[valid], minlength=length + 1)[1 : length + 1]
    return RankMetrics(
        cmc=np.cumsum(within) / valid.sum(),
        mAP=float(precision[valid].mean()),
        mINP=float((matches[valid] / last[valid]).mean()),
        num_queries=len(valid),
        num_valid_queries=int(valid.sum()),
        average_precision=precision,
        first_match=first,
    )


def kept_ranking(
    distances: np.ndarray, identity: int, camera: int, gallery_ids: np.ndarray, gallery_cameras: np.ndarray
) -> np.ndarray:
    """Gallery positions of one query from near to far, without the entries that rank_metrics removes.

    Args:
        distances: float (G,), of this query.

    Returns:
        int64 (at most G,).
    """
    order = np.argsort(distances, kind="stable")
    return order[~((gallery_ids[order] == identity) & (gallery_cameras[order] == camera))]


def _measure_block(
    distances: np.ndarray,
    query_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_ids: np.ndarray,
    gallery_cameras: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Number of matches, average precision, and ranks of the first and last match, each (rows of distances,)."""
    order = np.argsort(distances, axis=1, kind="stable")
    same_identity = gallery_ids[order] == query_ids[:, None]
    kept = ~(same_identity & (gallery_cameras[order] == query_cameras[:, None]))
    hits = same_identity & kept
    ranks = np.cumsum(kept, axis=1)  # from 1; at a removed entry the rank before it, which no line below reads
    found = np.cumsum(hits, axis=1)
    matches = found[:, -1]
    precision = np.divide(found, ranks, out=np.zeros(hits.shape), where=hits).sum(axis=1)
    average = np.divide(precision, matches, out=np.full(len(matches), np.nan), where=matches > 0)
    first = np.where(hits, ranks, distances.shape[1] + 1).min(axis=1)
    last = np.where(hits, ranks, 0).max(axis=1)
    return matches, average, np.where(matches > 0, first, 0), last


def _check(
    distances: np.ndarray,
    queries: tuple[np.ndarray, np.ndarray],
    gallery: tuple[np.ndarray, np.ndarray],
    max_rank: int,
) -> None:
    if distances.ndim != 2 or 0 in distances.shape:
        raise KeyReIDError(
            f"distances of shape {distances.shape}", "(queries, gallery tracklets), neither of them empty"
        )
    if max_rank < 1:
        raise KeyReIDError(f"max_rank {max_rank}", "1 or more")
    sides = (("query", "rows", queries, distances.shape[0]), ("gallery", "columns", gallery, distances.shape[1]))
    for side, axis, arrays, count in sides:
        for name, array in zip(("identities", "cameras"), arrays, strict=True):
            if array.shape != (count,):
                size = len(array) if array.ndim == 1 else f"an array of shape {array.shape} as"
                raise KeyReIDError(
                    f"{size} {side} {name} for {count} {axis} of distances",
                    f"{count}, one for each {side} tracklet",
                    "give one number a tracklet, not one a frame or clip",
                )
    bad = ~np.isfinite(distances)
    if bad.any():
        query, entry = np.argwhere(bad)[0]
        raise KeyReIDError(
            f"{bad.sum()} of {bad.size} distances are NaN or infinite (first: query {query}, gallery entry {entry})",
            "finite numbers",
            "look for NaN in the descriptors: training may have diverged",
        )
