"""Which queries a report shows, and what stands in their strips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..figures import RankedQuery, ranked_query
from ..measure import Measurement
from ..protocols import Selection
from .thumbnails import middle_frame, webp_uri

NUM_STRIPS = 60


@dataclass(frozen=True)
class Strip:
    """A query and its nearest, as a page shows them.

    Attributes:
        position: of the query in the selection.
        row: tracklets and distances.
        first_match: rank of the nearest match, from 1.
        pictures: data: addresses of the query's middle frame and those of its nearest.
        is_explained: whether the page explains this query.
    """

    position: int
    row: RankedQuery
    first_match: int
    pictures: tuple[str, ...]
    is_explained: bool

    @property
    def cells(self) -> list[tuple[Tracklet, float, bool, str]]:
        """Tracklet, distance, whether it is the query's person, and picture, from near to far."""
        identity = self.row.query.identity
        return [
            (tracklet, float(distance), tracklet.identity == identity, picture)
            for tracklet, distance, picture in zip(self.row.nearest, self.row.distances, self.pictures[1:], strict=True)
        ]


def choose_strips(average_precision: np.ndarray, count: int = NUM_STRIPS) -> list[int]:
    """The worst third, the third around the median and the best third of `count` queries, worst first.

    Args:
        average_precision: float (Q,), NaN for skipped queries, which are never chosen.
        count: queries to show; all where there are no more.

    Returns:
        Positions of queries, each once.
    """
    order = np.argsort(average_precision, kind="stable")
    order = order[np.isfinite(average_precision[order])]
    if len(order) <= count:
        return [int(query) for query in order]
    third = count // 3
    middle = (len(order) - (count - 2 * third)) // 2
    chosen = [*order[:third], *order[middle : middle + count - 2 * third], *order[len(order) - third :]]
    return [int(query) for query in dict.fromkeys(chosen)]


def make_strips(
    store: TrackletStore,
    measurement: Measurement,
    selection: Selection,
    queries: Sequence[int],
    explained: Sequence[int],
) -> list[Strip]:
    """Strips of the queries, worst average precision first; every tracklet's picture is made once."""
    rows = {query: ranked_query(measurement, selection, query) for query in queries}
    tracklets = {t.tracklet_id: t for row in rows.values() for t in (row.query, *row.nearest)}
    pictures = {number: webp_uri(middle_frame(store, tracklets[number])) for number in sorted(tracklets)}
    precision = measurement.metrics.average_precision
    return [
        Strip(
            query,
            rows[query],
            int(measurement.metrics.first_match[query]),
            tuple(pictures[t.tracklet_id] for t in (rows[query].query, *rows[query].nearest)),
            query in explained,
        )
        for query in sorted(queries, key=lambda query: (precision[query], query))
    ]
