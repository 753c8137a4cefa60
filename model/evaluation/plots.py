"""The CMC plot."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .measure import Measurement

LAST_RANK = 20


def cmc_plot(measurements: Sequence[Measurement]) -> bytes:
    """Share of queries with a match among the k nearest, against k: one line a method; PNG bytes."""
    figure = Figure(figsize=(6.4, 4.0), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for one in measurements:
        shares = 100 * one.metrics.cmc[:LAST_RANK]
        label = f"{one.label} (Rank-1 {shares[0]:.1f})"
        axes.plot(range(1, len(shares) + 1), shares, marker="o", markersize=3, label=label)
    axes.set(xlabel="rank k", ylabel="queries with a match in the k nearest [%]", ylim=(0, 102))
    axes.set_title(f"CMC, protocol {measurements[0].protocol}")
    axes.set_xticks([1, *range(5, LAST_RANK + 1, 5)])
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()
