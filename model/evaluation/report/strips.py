"""Which queries a report shows, and what stands in their strips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..measurement import Measurement
from ..pictures import BLUE, CELL, GREEN, RED, THUMBNAIL, Framed, draw_strip, middle_frame, webp_uri

NUM_STRIPS = 60
NUM_NEAREST = 10


@dataclass(frozen=True)
class Strip:
    """A query and its nearest, as a page shows them.

    Attributes:
        query: the query tracklet.
        nearest: gallery tracklets from near to far, as the protocol ranks them.
        distances: float (len(nearest),).
        average_precision: of this query, in [0, 1].
        first_match: rank of the nearest match, from 1.
        is_explained: whether the page explains this query.
        pictures: data: addresses of the query's middle frame and those of its nearest.
    """

    query: Tracklet
    nearest: tuple[Tracklet, ...]
    distances: np.ndarray
    average_precision: float
    first_match: int
    is_explained: bool = False
    pictures: tuple[str, ...] = ()

    @property
    def cells(self) -> list[tuple[Tracklet, float, bool, str]]:
        """Tracklet, distance, whether it is the query's person, and picture, from near to far."""
        return [
            (tracklet, float(distance), tracklet.identity == self.query.identity, picture)
            for tracklet, distance, picture in zip(self.nearest, self.distances, self.pictures[1:], strict=True)
        ]


def choose_explained(first_match: np.ndarray, average_precision: np.ndarray, count: int = 8) -> list[int]:
    """A mix of failures and successes, half each where there are enough of both; no chance in it.

    Within each group queries are spread evenly from the worst average precision to the best.

    Args:
        first_match, average_precision: of RankMetrics; skipped queries are never chosen.

    Returns:
        Positions of at most `count` queries, failures (wrong at rank 1) first, each group from worst to best.
    """
    by_precision = [int(q) for q in np.argsort(average_precision, kind="stable") if first_match[q] > 0]
    failures = [query for query in by_precision if first_match[query] > 1]
    successes = [query for query in by_precision if first_match[query] == 1]
    num_failures = min(len(failures), max(count // 2, count - len(successes)))
    num_successes = min(len(successes), count - num_failures)
    return [*_evenly(failures, num_failures), *_evenly(successes, num_successes)]


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


def make_strip(measurement: Measurement, query: int) -> Strip:
    """The nearest gallery tracklets of a query, without those that the protocol removes."""
    nearest = measurement.nearest(query, NUM_NEAREST)
    return Strip(
        measurement.selection.queries[query],
        tuple(measurement.selection.gallery[entry] for entry in nearest),
        measurement.distances[query, nearest],
        float(measurement.metrics.average_precision[query]),
        int(measurement.metrics.first_match[query]),
    )


def page_strips(
    store: TrackletStore, measurement: Measurement, queries: Sequence[int], explained: Sequence[int]
) -> list[Strip]:
    """Strips of the queries with pictures, worst average precision first; every tracklet's picture is made once."""
    strips, pictures = [], {}
    precision = measurement.metrics.average_precision
    for query in sorted(queries, key=lambda query: (precision[query], query)):
        strip = make_strip(measurement, query)
        numbers = [tracklet.tracklet_id for tracklet in (strip.query, *strip.nearest)]
        for number in numbers:
            if number not in pictures:
                pictures[number] = webp_uri(middle_frame(store, number, CELL))
        strips.append(
            Strip(
                strip.query, strip.nearest, strip.distances, strip.average_precision, strip.first_match,
                query in explained, tuple(pictures[number] for number in numbers),
            )
        )  # fmt: skip
    return strips


def strip_picture(store: TrackletStore, strip: Strip) -> Image.Image:
    """For papers: the query in a blue frame, then the nearest in green (same identity) or red frames."""
    caption = f"query, AP {100 * strip.average_precision:.0f} %"
    cells = [_framed(store, strip.query, BLUE, caption)]
    for tracklet, distance in zip(strip.nearest, strip.distances, strict=True):
        colour = GREEN if tracklet.identity == strip.query.identity else RED
        cells.append(_framed(store, tracklet, colour, f"d {distance:.4g}"))
    return draw_strip(cells[0], cells[1:], NUM_NEAREST)


def _framed(store: TrackletStore, tracklet: Tracklet, colour: tuple[int, int, int], caption: str) -> Framed:
    lines = caption, f"id {tracklet.identity} cam {tracklet.camera}"
    return Framed(middle_frame(store, tracklet.tracklet_id, THUMBNAIL), colour, lines)


def _evenly(items: list[int], count: int) -> list[int]:
    if count == 0:
        return []
    return [items[place] for place in np.linspace(0, len(items) - 1, count).round().astype(int)]
