"""What every measure of a matrix of distances starts from: arrays that fit it, its pairs, and thresholds on them.

Letters: Q queries, G gallery tracklets, n pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from keyreid.pipeline.errors import KeyReIDError, SettingsError

PAIRS_AT_ONCE = 1 << 20  # bounds the arrays of a block to a few times 8 MB
ROWS_AT_ONCE = 512  # and the copies of distances to 512 x G numbers


@dataclass(frozen=True)
class Ranking:
    """Distances with the identity and camera of both sides, checked; what is removed is the same for every measure.

    Of each query's gallery, entries with the query's identity AND camera are removed. Entries of its identity in
    another camera are its matches, all others are wrong.

    Attributes:
        distances: float (Q, G), smaller is nearer, finite.
        query_ids, query_cameras: (Q,), one per tracklet: not one per frame.
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
            for name, words in (("ids", "identities"), ("cameras", "cameras")):
                _check_length(getattr(self, f"{side}_{name}"), count, f"{side} {words}", side, axis)
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


@dataclass
class Lowest:
    """The smallest of the distances that come in, and whose they are; memory holds a few times `keep` of them.

    Attributes:
        keep: how many are kept.
        bound: distances at or above it need not be added.
        values: float (at most 2 `keep` after `add`), in no order.
        persons: int64, a number or a row of numbers for each of them.
    """

    keep: int
    bound: float = np.inf
    values: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    persons: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, values: np.ndarray, persons: np.ndarray) -> None:
        if len(self.values):
            values, persons = np.concatenate([self.values, values]), np.concatenate([self.persons, persons])
        if len(values) > 2 * self.keep:
            near = np.argpartition(values, self.keep - 1)[: self.keep]
            values, persons = values[near], persons[near]
            self.bound = float(values.max())
        self.values, self.persons = values, persons


def check_rates(rates: Sequence[float]) -> np.ndarray:
    """float64 (R,).

    Raises:
        SettingsError: none, or one that is not between 0 and 1.
    """
    asked = np.asarray(rates, float)
    if not asked.size or not ((asked > 0) & (asked < 1)).all():
        raise SettingsError(f"rates {list(rates)}", "one or more numbers between 0 and 1, such as 0.01")
    return asked


def num_allowed(rates: np.ndarray, count: float) -> np.ndarray:
    """int64 (R,): how many of `count` a rate allows; 0.29 of 100 is 29, though the product is 28.999999999999996."""
    return np.minimum(np.floor(rates * count * (1 + 1e-12)).astype(np.int64), max(int(count) - 1, 0))


def thresholds_at(lowest: np.ndarray, count: int, rates: np.ndarray) -> np.ndarray:
    """The largest threshold for each rate, such that at most that share of `count` numbers lies below it.

    Args:
        lowest: float, the smallest of the numbers in ascending order, one more than the largest rate allows.
        count: how many numbers there are.

    Returns:
        float64 (R,), NaN where count is 0.
    """
    return lowest[num_allowed(rates, count)].astype(float) if count else np.full(len(rates), np.nan)


def _check_length(array: np.ndarray, count: int, what: str, side: str, axis: str) -> None:
    if array.shape != (count,):
        size = len(array) if array.ndim == 1 else f"an array of shape {array.shape} as"
        raise KeyReIDError(
            f"{size} {what} for {count} {axis} of distances",
            f"{count}, one for each {side} tracklet",
            "give one number per tracklet, not one per frame or clip",
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
