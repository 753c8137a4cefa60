"""Pictures of metrics.jsonl: loss terms, learning rate, and results where the run was evaluated on its way."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .losses import LossTerms
from .metrics_file import Record

MOST_POINTS = 500  # of a line; a longer one is drawn through the means of as many stretches
PALE, STRONG, SECOND = "#a9c4e4", "#1f5fa8", "#c2571a"
TITLES = {
    "total": "total loss", "identity": "identity: cross entropy", "triplet": "triplet: batch-hard, soft margin",
    "center": "center: squared distance, unweighted", "attention": "attention: scores of erased frames",
}  # fmt: skip


def draw_curves(records: Sequence[Record]) -> dict[str, bytes]:
    """Name -> PNG of every curve that the records have points for: evaluation, loss, learning_rate."""
    steps, epochs, evaluations = (
        [record for record in records if record["kind"] == kind] for kind in ("step", "epoch", "evaluation")
    )
    axis = Axis("epochs", epochs[-1]["steps"] / (epochs[-1]["epoch"] + 1)) if epochs else Axis("steps", 1)
    pictures = {}
    if evaluations:
        pictures["evaluation"] = _evaluation(evaluations, axis)
    if steps:
        pictures["loss"] = _loss(steps, epochs, axis)
        pictures["learning_rate"] = _learning_rate(steps, axis)
    return pictures


class Axis(NamedTuple):
    """What lies along x, and how many steps one of it has."""

    name: str
    steps: float

    def finish(self, axes: Axes, title: str) -> None:
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(self.name, fontsize=9)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)


def _loss(steps: Sequence[Record], epochs: Sequence[Record], axis: Axis) -> bytes:
    figure = Figure(figsize=(11.0, 5.8), dpi=110)
    figure.subplots_adjust(left=0.05, right=0.985, top=0.95, bottom=0.085, wspace=0.18, hspace=0.36)
    *panels, speed = figure.subplots(2, 3).flatten()
    for axes, name in zip(panels, LossTerms._fields, strict=True):
        _line(axes, axis, steps, name, color=PALE, linewidth=1, label="mean of a few steps")
        _line(axes, axis, epochs, name, color=STRONG, label="mean of an epoch")
        axis.finish(axes, TITLES.get(name, name))
    panels[0].legend(fontsize=8)
    _line(speed, axis, epochs, "clips_per_second", color=SECOND)
    speed.set_ylim(0, 1.15 * max((record["clips_per_second"] for record in epochs), default=1.0))
    axis.finish(speed, "clips a second")
    return _png(figure)


def _learning_rate(steps: Sequence[Record], axis: Axis) -> bytes:
    figure = Figure(figsize=(7.2, 3.4), dpi=110)
    figure.subplots_adjust(left=0.1, right=0.975, top=0.9, bottom=0.14)
    axes = figure.add_subplot()
    _line(axes, axis, steps, "learning_rate", color=STRONG)
    axes.set_ylim(bottom=0)
    axis.finish(axes, "learning rate of the weights")
    return _png(figure)


def _evaluation(evaluations: Sequence[Record], axis: Axis) -> bytes:
    figure = Figure(figsize=(7.2, 3.8), dpi=110)
    figure.subplots_adjust(left=0.09, right=0.975, top=0.91, bottom=0.13)
    axes = figure.add_subplot()
    for name, label, color in (("mAP", "mAP", STRONG), ("rank1", "Rank-1", SECOND)):
        values = [100 * record[name] for record in evaluations]
        best = int(np.argmax(values))
        told = f"{label}: best {values[best]:.1f} % after epoch {evaluations[best]['epoch'] + 1}"
        axes.plot([record["steps"] / axis.steps for record in evaluations], values, "o-", color=color, ms=3, label=told)
        axes.plot(evaluations[best]["steps"] / axis.steps, values[best], "o", color=color, ms=9, mfc="none")
    axes.set_ylabel("percent", fontsize=9)
    axes.legend(loc="lower right", fontsize=9)
    axis.finish(axes, f"measured on the way: {evaluations[-1]['on']}, protocol {evaluations[-1]['protocol']}")
    return _png(figure)


def _line(axes: Axes, axis: Axis, records: Sequence[Record], name: str, **style: Any) -> None:
    x, y = (np.array([record[key] for record in records], float) for key in ("steps", name))
    if len(x) > MOST_POINTS:
        x, y = (np.array([stretch.mean() for stretch in np.array_split(values, MOST_POINTS)]) for values in (x, y))
    marker = "o" if len(x) < 3 else ""  # a line through one point is invisible
    axes.plot(x / axis.steps, y, marker=marker, markersize=4, **style)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
