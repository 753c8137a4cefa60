"""CMC, mAP and mINP of a matrix of distances; pure functions on arrays.

Letters: Q queries, G gallery tracklets, n pairs of one identity.

Ties count against the query: at equal distance every wrong entry comes before a match. So the figures do not depend
on the order of the gallery, and a network that finds all people equally near gets nothing for it.

A query's ranking is never made: the rank of a match is its place among the matches, plus the number of wrong entries
that are as near or nearer, which are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from keyreid.pipeline.errors import KeyReIDError

from .pairs import Ranking, SameIdentity

COUNTED_MATCHES = 64  # of a query with more, the row is sorted: counting costs a pass over the row for each match


@dataclass(frozen=True)
class RankMetrics:
    """The figures of a ranking; every mean is over the valid queries, in [0, 1].

    Attributes:
        cmc: float64 (R,), cmc[k - 1] = share of queries with a match among their k nearest; R = min(max_rank, G).
        mAP: mean average precision (mean over a query's matches of the precision at each match's rank).
        mINP: mean inverse negative penalty (matches of a query divided by the rank of its last one).
        num_queries: Q.
        num_valid_queries: queries with at least one match left after the filtering; the others are skipped.
        num_matches: int64 (Q,), 0 for a skipped query.
        average_precision, inverse_negative_penalty: float64 (Q,), NaN for a skipped query.
        first_match: int64 (Q,), rank of the nearest match, from 1; 0 for a skipped query.
    """

    cmc: np.ndarray
    mAP: float
    mINP: float
    num_queries: int
    num_valid_queries: int
    num_matches: np.ndarray
    average_precision: np.ndarray
    inverse_negative_penalty: np.ndarray
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
    trapezoid: bool = False,
) -> RankMetrics:
    """Rank the gallery of each query and measure where its matches are.

    Of each query's ranking, gallery entries with the query's identity AND camera are removed. A query with no other
    entry of its identity is skipped and counted. Ties: see above.

    Args:
        distances: float (Q, G), smaller is nearer, finite.
        query_ids, query_cameras: (Q,), one per tracklet: not one per frame.
        gallery_ids, gallery_cameras: (G,), likewise.
        max_rank: longest rank of the CMC.
        trapezoid: average precision as the area of trapezoids under the curve of precision and recall (the MATLAB code
            published with MARS and Market-1501), instead of the mean of the precisions (public Python code).

    Raises:
        KeyReIDError: lengths that differ, an empty side, distances that are NaN or infinite, no valid query at all.
    """
    if max_rank < 1:
        raise KeyReIDError(f"max_rank {max_rank}", "1 or more")
    return measure_ranking(
        Ranking(distances, query_ids, gallery_ids, query_cameras, gallery_cameras), max_rank, trapezoid
    )


def measure_ranking(ranking: Ranking, max_rank: int = 50, trapezoid: bool = False) -> RankMetrics:
    """rank_metrics of arrays that were checked."""
    num_queries, num_gallery = ranking.distances.shape
    matches, first = np.zeros(num_queries, np.int64), np.zeros(num_queries, np.int64)
    precision, penalty = np.full(num_queries, np.nan), np.full(num_queries, np.nan)
    for pairs in ranking.blocks():
        query, place, ranks = match_ranks(ranking.distances, pairs)
        if not len(query):
            continue
        starts = np.flatnonzero(place == 1)
        ends = np.append(starts[1:], len(query)) - 1
        rows = query[starts]
        matches[rows], first[rows] = place[ends], ranks[starts]
        precisions = place / ranks
        if trapezoid:  # with the precision one rank earlier, which is 1 before the first rank
            precisions = (precisions + np.where(ranks > 1, (place - 1) / np.maximum(ranks - 1, 1), 1)) / 2
        precision[rows] = np.add.reduceat(precisions, starts) / place[ends]
        penalty[rows] = place[ends] / ranks[ends]
    valid = matches > 0
    if not valid.any():
        raise KeyReIDError(
            f"none of the {num_queries} queries has a match in the gallery in another camera",
            "at least one identity seen by two cameras",
            "check the identities and cameras of the query and gallery tracklets",
        )
    length = min(max_rank, num_gallery)
    within = np.bincount(first[valid], minlength=length + 1)[1 : length + 1]
    return RankMetrics(
        cmc=np.cumsum(within) / valid.sum(),
        mAP=float(precision[valid].mean()),
        mINP=float(penalty[valid].mean()),
        num_queries=num_queries,
        num_valid_queries=int(valid.sum()),
        num_matches=matches,
        average_precision=precision,
        inverse_negative_penalty=penalty,
        first_match=first,
    )


def match_ranks(distances: np.ndarray, pairs: SameIdentity) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the matches of a block of queries are ranked, each query's from near to far.

    Returns:
        query (int64, position of the query), place (1 for a query's nearest match, 2 for the next ...) and rank (from
        1), one number per match each.
    """
    order = np.lexsort((pairs.distance, pairs.query))
    query, distance, is_match = pairs.query[order], pairs.distance[order], pairs.is_match[order]
    # Pairs of the query's identity that are as near or nearer, equal ones after it included.
    new_run = np.flatnonzero(np.append(True, (query[1:] != query[:-1]) | (distance[1:] != distance[:-1])))
    run_ends = np.append(new_run[1:], len(query))
    as_near = np.repeat(run_ends, np.diff(np.append(new_run, len(query)))) - np.searchsorted(query, query)
    query, as_near = query[is_match], as_near[is_match]
    place = np.arange(len(query)) - np.searchsorted(query, query) + 1
    return query, place, place + _as_near_as(distances, query, distance[is_match]) - as_near


def _as_near_as(distances: np.ndarray, query: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """int64 (n,): for each limit, entries of its query's row at that distance or nearer; queries in order."""
    result = np.empty(len(query), np.int64)
    width = distances.shape[1]
    flags = np.zeros((COUNTED_MATCHES, -(-width // 8) * 8), bool)
    starts = np.flatnonzero(np.append(True, query[1:] != query[:-1])[: len(query)])
    for start, end in pairwise([*starts.tolist(), len(query)]):
        row, own, near = distances[query[start]], limits[start:end], flags[: end - start]
        if len(own) > COUNTED_MATCHES:
            result[start:end] = np.searchsorted(np.sort(row), own, side="right")
            continue
        np.less_equal(row, own[:, None], out=near[:, :width])
        # Eight flags are added at once, as the bytes of a number of 64 bits; of 255 such numbers no byte overflows.
        words = near.view(np.uint64)
        lanes = np.add.reduceat(words, np.arange(0, words.shape[1], 255), axis=1)
        result[start:end] = lanes.view(np.uint8).sum(axis=1)
    return result


def kept_ranking(
    distances: np.ndarray,
    identity: int,
    camera: int,
    gallery_ids: np.ndarray,
    gallery_cameras: np.ndarray,
    count: int | None = None,
) -> np.ndarray:
    """Gallery positions of one query from near to far, without the entries that rank_metrics removes.

    At equal distance a match comes last, as rank_metrics counts it.

    Args:
        distances: float (G,), of this query.
        count: only so many of the nearest, which spares the sorting of the others.

    Returns:
        int64 (at most G,).
    """
    same = gallery_ids == identity
    entries = np.flatnonzero(~(same & (gallery_cameras == camera)))
    if count is not None and count < len(entries):
        near = distances[entries]
        entries = entries[near <= np.partition(near, count - 1)[count - 1]]
    return entries[np.lexsort((same[entries], distances[entries]))][:count]
