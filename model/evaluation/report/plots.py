"""Figures of an evaluation, as PNG for papers and as SVG that takes the page's colours."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ..camera_pairs import CameraPairs, DistanceHistogram
from ..measure import Measurement

LAST_RANK = 20
# Okabe and Ito's colours, which colour-blind readers can tell apart; lines differ in their dashes, too.
MATCH, OTHER, GREY = "#009e73", "#d55e00", "#808080"
LINES = (("#1f83c9", "-", "o"), ("#d55e00", "--", "s"), ("#009e73", "-.", "^"), ("#cc79a7", ":", "D"))
INK = "#123457"  # of text and axes in an SVG, where it becomes the page's

Draw = Callable[[Axes], None]


def cmc(measurements: Sequence[Measurement]) -> Draw:
    """Share of queries with a match among the k nearest, against k: one line a method."""

    def draw(axes: Axes) -> None:
        for place, one in enumerate(measurements):
            shares = 100 * one.metrics.cmc[:LAST_RANK]
            colour, dashes, marker = LINES[place % len(LINES)]
            label = f"{one.label} (Rank-1 {shares[0]:.1f})"
            axes.plot(range(1, len(shares) + 1), shares, dashes, color=colour, marker=marker, markersize=3, label=label)
        axes.set(xlabel="rank k", ylabel="queries with a match in the k nearest [%]", ylim=(0, 102))
        axes.set_xticks([1, *range(5, LAST_RANK + 1, 5)])
        axes.legend(loc="best", framealpha=0)

    return draw


def histogram(counts: DistanceHistogram, distance: str) -> Draw:
    """Shares of matches and of others at each distance."""

    def draw(axes: Axes) -> None:
        kinds = (
            (counts.matches, "one person, two cameras", MATCH, "-", 0.3),
            (counts.others, "two persons, two cameras", OTHER, "--", 0.3),
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
    """Rank-1 of each query camera in each gallery camera, with counts."""

    def draw(axes: Axes) -> None:
        rank1 = pairs.rank1
        axes.imshow(100 * rank1, vmin=0, vmax=100, cmap="viridis", aspect="auto")
        for (row, column), share in np.ndenumerate(rank1):
            if np.isfinite(share):
                text = f"{100 * share:.0f}\n{pairs.found[row, column]}/{pairs.queries[row, column]}"
                axes.text(column, row, text, ha="center", va="center", color="black" if share > 0.5 else "white")
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
