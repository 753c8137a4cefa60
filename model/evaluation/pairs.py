"""What every measure of a matrix of distances starts from: arrays that fit it, and the pairs of one identity.

Letters: Q queries, G gallery tracklets, n pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from keyreid.pipeline.errors import KeyReIDError

PAIRS_AT_ONCE = 1 << 20  # bounds the arrays of a block to a few times 8 MB
ROWS_AT_ONCE = 512  # and the copies of distances to 512 x G numbers


@dataclass(frozen=True)
class Ranking:
    """Distances with the identity and camera of both sides, checked; what is removed is the same for every measure.

    Of each query's gallery, entries with the query's identity AND camera are removed. Entries of its identity under
    another camera are its matches, all others are wrong.

    Attributes:
        distances: float (Q, G), smaller is nearer, finite.
        query_ids, query_cameras: (Q,), one a tracklet: not one a frame.
        gallery_ids, gallery_cameras: (G,), likewise.

    Raises:
        KeyReIDError: lengths that differ, an empty side, distances that are NaN or infinite.
    """

    distances: np.ndarray
    query_ids: np.ndarray
    gallery_ids: np.ndarray
    query_cameras: np.ndarray
    gallery_cameras: np.ndarray

    def __post_init__(self) -> None:
        for name in ("distances", "query_ids", "gallery_ids", "query_cameras", "gallery_cameras"):
            object.__setattr__(self, name, np.asarray(getattr(self, name)))
        if self.distances.ndim != 2 or 0 in self.distances.shape:
            raise KeyReIDError(
                f"distances of shape {self.distances.shape}", "(queries, gallery tracklets), neither of them empty"
            )
        sides = (("query", "rows", self.distances.shape[0]), ("gallery", "columns", self.distances.shape[1]))
        for side, axis, count in sides:
            for name, field in (("identities", "ids"), ("cameras", "cameras")):
                _check_length(getattr(self, f"{side}_{field}"), count, f"{side} {name}", side, axis)
        _check_finite(self.distances)

    @cached_property
    def _by_identity(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gallery positions in order of identity, and where in them those of each query's identity start and end."""
        order = np.argsort(self.gallery_ids, kind="stable")
        ordered = self.gallery_ids[order]
        return order, np.searchsorted(ordered, self.query_ids), np.searchsorted(ordered, self.query_ids, side="right")

    def blocks(self) -> Iterator[SameIdentity]:
        """The queries in order, as many at once as the memory bounds of this module allow."""
        order, starts, ends = self._by_identity
        total = np.cumsum(ends - starts)
        first = 0
        while first < len(self.query_ids):
            done = total[first - 1] if first else 0
            last = int(np.searchsorted(total, done + PAIRS_AT_ONCE, side="right"))
            last = min(max(last, first + 1), first + ROWS_AT_ONCE, len(self.query_ids))
            yield self._block(slice(first, last), order, starts[first:last], ends[first:last])
            first = last

    def _block(self, rows: slice, order: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> SameIdentity:
        counts = ends - starts
        query = np.repeat(np.arange(rows.start, rows.stop), counts)
        within = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        entry = order[np.repeat(starts, counts) + within]
        is_match = self.gallery_cameras[entry] != self.query_cameras[query]
        return SameIdentity(rows, query, entry, self.distances[query, entry], is_match)


@dataclass(frozen=True)
class SameIdentity:
    """The pairs of one identity of a block of queries, in order of the queries.

    Attributes:
        rows: the block.
        query, entry: int64 (n,), positions of query and gallery tracklet.
        distance: (n,), of each pair.
        is_match: bool (n,): seen by another camera; the other pairs are removed.
    """

    rows: slice
    query: np.ndarray
    entry: np.ndarray
    distance: np.ndarray
    is_match: np.ndarray

    def wrong_distances(self, distances: np.ndarray) -> np.ndarray:
        """float (rows, G): a copy of the block of `distances`, infinite where the identity is the query's."""
        block = distances[self.rows].astype(np.result_type(distances, np.float32))
        block[self.query - self.rows.start, self.entry] = np.inf
        return block


def _check_length(array: np.ndarray, count: int, what: str, side: str, axis: str) -> None:
    if array.shape != (count,):
        size = len(array) if array.ndim == 1 else f"an array of shape {array.shape} as"
        raise KeyReIDError(
            f"{size} {what} for {count} {axis} of distances",
            f"{count}, one for each {side} tracklet",
            "give one number a tracklet, not one a frame or clip",
        )


def _check_finite(distances: np.ndarray) -> None:
    with np.errstate(all="ignore"):  # one bad number spoils the sum; a sum that overflows has to be looked at
        if np.isfinite(distances.sum()):
            return
    bad = ~np.isfinite(distances)
    if not bad.any():
        return
    query, entry = np.argwhere(bad)[0]
    raise KeyReIDError(
        f"{bad.sum()} of {bad.size} distances are NaN or infinite (first: query {query}, gallery entry {entry})",
        "finite numbers",
        "look for NaN in the descriptors: training may have diverged",
    )
