"""Figures of an evaluation, as PNG for papers and as SVG that takes the page's colours; and the counts in them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ..intervals import Interval, Resampling
from ..measurement import Measurement, Share
from ..pairs import Ranking
from ..tables import percent, span

LAST_RANK = 20
NUM_BINS = 60
# Okabe and Ito's colours, which colour-blind readers can tell apart; lines differ in their dashes, too.
MATCH, OTHER, GREY = "#009e73", "#d55e00", "#808080"
LINES = (("#1f83c9", "-", "o"), ("#d55e00", "--", "s"), ("#009e73", "-.", "^"), ("#cc79a7", ":", "D"))
INK = "#123457"  # of text and axes in an SVG, where it becomes the page's

Draw = Callable[[Axes], None]


@dataclass(frozen=True)
class DistanceHistogram:
    """Distances of a protocol's pairs, counted in bins of one width.

    Attributes:
        edges: float64 (NUM_BINS + 1,).
        matches: int64 (NUM_BINS,), pairs of one person, cross-camera.
        others: int64 (NUM_BINS,), pairs of two persons, cross-camera.
        same_camera: int64 (NUM_BINS,), pairs of two persons in one camera.
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
        queries: int64 (C, E), queries of the camera that have a match in the gallery camera.
        found: int64 (C, E), those of them whose nearest tracklet in the gallery camera is a match; at equal
            distance it is not.
        intervals: Rank-1's over persons, row by row.
    """

    query_cameras: np.ndarray
    gallery_cameras: np.ndarray
    queries: np.ndarray
    found: np.ndarray
    intervals: tuple[tuple[Interval, ...], ...]

    def figure(self, row: int, column: int) -> Share | None:
        """Rank-1 of one pair of cameras; None where no query counts."""
        queries, found = int(self.queries[row, column]), int(self.found[row, column])
        return Share(found / queries, self.intervals[row][column], queries - found, "misses") if queries else None

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
    query_cameras, gallery_cameras = np.unique(ranking.query_cameras), np.unique(ranking.gallery_cameras)
    has_match, is_found = np.zeros((2, len(ranking.query_ids), len(gallery_cameras)), bool)
    for pairs in ranking.blocks():
        wrong = pairs.wrong_distances(ranking.distances)
        for column, camera in enumerate(gallery_cameras):
            here = pairs.is_match & (ranking.gallery_cameras[pairs.entry] == camera)
            nearest = np.full(len(wrong), np.inf)
            np.minimum.at(nearest, pairs.query[here] - pairs.rows.start, pairs.distance[here])
            has_match[pairs.rows, column] = np.isfinite(nearest)
            nearest_wrong = wrong[:, ranking.gallery_cameras == camera].min(axis=1)
            is_found[pairs.rows, column] = np.isfinite(nearest) & (nearest < nearest_wrong)
    queries, found, intervals = [], [], []
    for camera in query_cameras:
        own = ranking.query_cameras == camera
        resampling = Resampling.of(ranking.query_ids[own])
        queries.append(has_match[own].sum(axis=0))
        found.append(is_found[own].sum(axis=0))
        intervals.append(resampling.intervals(resampling.means(is_found[own], has_match[own])))
    return CameraPairs(query_cameras, gallery_cameras, np.stack(queries), np.stack(found), tuple(intervals))


def cmc(measurements: Sequence[Measurement]) -> Draw:
    """Share of queries with a match among the k nearest, against k: one line per method, in its 95 % band."""

    def draw(axes: Axes) -> None:
        for place, one in enumerate(measurements):
            shares = 100 * one.metrics.cmc[:LAST_RANK]
            ranks = range(1, len(shares) + 1)
            colour, dashes, marker = LINES[place % len(LINES)]
            label = f"{one.label} (Rank-1 {percent(one.rank_figures['rank1'])})"
            axes.plot(ranks, shares, dashes, color=colour, marker=marker, markersize=3, label=label)
            ends = [found or (share / 100,) * 2 for share, found in zip(shares, one.rank_intervals, strict=False)]
            low, high = 100 * np.array(ends).T
            axes.fill_between(ranks, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set(xlabel="rank k", ylabel="queries with a match in the k nearest [%]", ylim=(0, 102))
        axes.set_xticks([1, *range(5, LAST_RANK + 1, 5)])
        axes.legend(loc="best", framealpha=0)

    return draw


def histogram(counts: DistanceHistogram, distance: str) -> Draw:
    """Shares of matches and of others at each distance."""

    def draw(axes: Axes) -> None:
        kinds = (
            (counts.matches, "one person, cross-camera", MATCH, "-", 0.3),
            (counts.others, "two persons, cross-camera", OTHER, "--", 0.3),
            (counts.same_camera, "two persons, one camera", GREY, ":", 0),
        )
        for values, label, colour, dashes, alpha in kinds:
            if values.sum():
                shares, label = 100 * values / values.sum(), f"{label} ({values.sum():,} pairs)"
                axes.stairs(shares, counts.edges, color=colour, linestyle=dashes, label=label)
                axes.stairs(shares, counts.edges, color=colour, alpha=alpha, fill=True, linewidth=0)
        axes.set(xlabel=f"{distance} distance", ylabel="share of the pairs of a kind [%]")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.legend(loc="upper right", framealpha=0)

    return draw


def camera_matrix(pairs: CameraPairs) -> Draw:
    """Rank-1 of each query camera in each gallery camera, with 95 % interval and counts."""

    def draw(axes: Axes) -> None:
        axes.imshow(100 * pairs.rank1, vmin=0, vmax=100, cmap="viridis", aspect="auto")
        for row, column in np.ndindex(pairs.queries.shape):
            figure = pairs.figure(row, column)
            if figure is not None:
                lines = (
                    percent(figure),
                    span(figure.interval),
                    f"{pairs.found[row, column]}/{pairs.queries[row, column]}",
                )
                colour = "black" if pairs.rank1[row, column] > 0.5 else "white"
                axes.text(
                    column, row, "\n".join(filter(None, lines)), ha="center", va="center", color=colour, fontsize=7
                )
        axes.set_xticks(range(len(pairs.gallery_cameras)), [str(camera) for camera in pairs.gallery_cameras])
        axes.set_yticks(range(len(pairs.query_cameras)), [str(camera) for camera in pairs.query_cameras])
        axes.set(xlabel="gallery camera", ylabel="query camera")
        axes.grid(False)

    return draw


def png(draw: Draw, title: str) -> bytes:
    """For papers: on white, with the title."""
    figure = _figure(draw, "#222222")
    figure.axes[0].set_title(title, fontsize=8, wrap=True)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def svg(draw: Draw, name: str) -> str:
    """For a page: an <svg> element whose text and axes have the colour of the text around it.

    Args:
        draw: what is drawn.
        name: keeps the ids of several figures of a page apart.
    """
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure = _figure(draw, INK)
        figure.patch.set_visible(False)
        figure.axes[0].patch.set_visible(False)
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Type": None, "Format": None}
        )
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _figure(draw: Draw, ink: str) -> Figure:
    colours = {name: ink for name in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")}
    with matplotlib.rc_context({**colours, "font.size": 9}):
        figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        draw(axes)
    return figure
