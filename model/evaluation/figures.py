"""Ranking pictures: the query at the left, its nearest gallery tracklets at the right, green where they are right."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..data.decode import decode_frame
from .measure import Measurement
from .metrics import kept_ranking
from .protocols import Selection

GREEN, RED, BLUE = (26, 152, 80), (215, 48, 39), (69, 117, 180)
INK, PAPER = (34, 34, 34), (255, 255, 255)
THUMBNAIL = (160, 80)  # height and width inside the frame
BORDER, GAP, CAPTION, TITLE = 5, 8, 30, 28  # pixels
NUM_NEAREST = 10


@dataclass(frozen=True)
class RankedQuery:
    """One row of pictures.

    Attributes:
        query: the query tracklet.
        nearest: gallery tracklets from near to far, as the protocol ranks them.
        distances: float (len(nearest),), squared Euclidean.
        average_precision: of this query, in [0, 1].
    """

    query: Tracklet
    nearest: tuple[Tracklet, ...]
    distances: np.ndarray
    average_precision: float


def choose_queries(first_match: np.ndarray, average_precision: np.ndarray, count: int = 8) -> list[int]:
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
    return [*_spread(failures, num_failures), *_spread(successes, num_successes)]


def ranked_query(measurement: Measurement, selection: Selection, query: int) -> RankedQuery:
    """The nearest gallery tracklets of a query, without those that the protocol leaves out."""
    tracklet, distances = selection.queries[query], measurement.distances[query]
    identities, cameras = np.array([t.identity for t in selection.gallery]), np.array(selection.gallery_cameras)
    camera = selection.query_cameras[query]
    nearest = kept_ranking(distances, tracklet.identity, camera, identities, cameras)[:NUM_NEAREST]
    return RankedQuery(
        tracklet,
        tuple(selection.gallery[entry] for entry in nearest),
        distances[nearest],
        float(measurement.metrics.average_precision[query]),
    )


def draw_ranking(store: TrackletStore, row: RankedQuery) -> Image.Image:
    """One row: the query in a blue frame, then the nearest in green (same identity) or red frames, with captions."""
    width, height = _cell_size()
    picture = Image.new("RGB", ((width + GAP) * (NUM_NEAREST + 1) + 2 * GAP, height + 2 * GAP), PAPER)
    left = GAP
    caption = f"AP {100 * row.average_precision:.0f} %"
    _draw_cell(picture, left, _thumbnail(store, row.query), BLUE, f"query, {caption}", _name(row.query))
    left += width + 2 * GAP
    for tracklet, distance in zip(row.nearest, row.distances, strict=True):
        colour = GREEN if tracklet.identity == row.query.identity else RED
        _draw_cell(picture, left, _thumbnail(store, tracklet), colour, f"d {distance:.4g}", _name(tracklet))
        left += width + GAP
    return picture


def stack_pictures(title: str, pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one width, one below the other, under a title."""
    stacked = Image.new("RGB", (pictures[0].width, TITLE + sum(picture.height for picture in pictures)), PAPER)
    ImageDraw.Draw(stacked).text((GAP, GAP), title, INK, ImageFont.load_default(size=14))
    top = TITLE
    for picture in pictures:
        stacked.paste(picture, (0, top))
        top += picture.height
    return stacked


def png_bytes(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _cell_size() -> tuple[int, int]:
    """Width and height of a frame with its captions."""
    return THUMBNAIL[1] + 2 * BORDER, THUMBNAIL[0] + 2 * BORDER + CAPTION


def _draw_cell(
    picture: Image.Image, left: int, thumbnail: Image.Image, colour: tuple[int, int, int], first: str, second: str
) -> None:
    draw = ImageDraw.Draw(picture)
    right, bottom = left + THUMBNAIL[1] + 2 * BORDER - 1, GAP + THUMBNAIL[0] + 2 * BORDER - 1
    draw.rectangle((left, GAP, right, bottom), outline=colour, width=BORDER)
    picture.paste(thumbnail, (left + BORDER, GAP + BORDER))
    font = ImageFont.load_default(size=11)
    draw.text((left, bottom + 3), first, INK, font)
    draw.text((left, bottom + 3 + CAPTION // 2), second, INK, font)


def _thumbnail(store: TrackletStore, tracklet: Tracklet) -> Image.Image:
    """The middle frame of the tracklet."""
    encoded, _ = store.read(tracklet.tracklet_id, [store.num_frames(tracklet.tracklet_id) // 2])
    return Image.fromarray(decode_frame(encoded[0], THUMBNAIL).permute(1, 2, 0).numpy())


def _name(tracklet: Tracklet) -> str:
    return f"id {tracklet.identity} cam {tracklet.camera}"


def _spread(items: list[int], count: int) -> list[int]:
    if count == 0:
        return []
    return [items[place] for place in np.linspace(0, len(items) - 1, count).round().astype(int)]
