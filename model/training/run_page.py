"""RUN/training.html and RUN/curves: the course of a run as pictures, and in one self-contained page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keyreid.model.html import STYLE, picture, table
from keyreid.pipeline.environment import duration

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
    axis.finish(speed, "clips/s")
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
    axis.finish(axes, f"validation on {evaluations[-1]['on']}, protocol {evaluations[-1]['protocol']}")
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


CAPTIONS = {
    "evaluation": "Results of the averaged weights, measured during training; circled: the best.",
    "loss": "Loss terms (total is their weighted sum), and speed with everything that an epoch does.",
    "learning_rate": "Learning rate of the weights; biases may have another.",
}

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>KeyRe-ID: training $name</title>
<style>$style</style>
</head>
<body>
<h1>$name</h1>
<p class="soft">Training of KeyRe-ID on $dataset, preset $preset, variant $variant. The page is rebuilt at every
checkpoint; metrics.jsonl has all the numbers.</p>
<div class="cards">
$cards
</div>

<h2>Curves</h2>
$curves

<h2>Epochs</h2>
<details><summary>$num_epochs epochs, the last one first</summary>
<div class="wide">$epochs</div>
</details>

<h2>Configuration</h2>
<details><summary>every value, as config.yaml has it</summary>
<pre>$config</pre>
</details>

<h2>Packages</h2>
<div class="wide">$versions</div>
</body>
</html>
""")


def run_page(
    name: str,
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
    config_yaml: str,
    records: Sequence[Record],
    pictures: Mapping[str, bytes],
) -> str:
    """The page as HTML.

    Args:
        name: of the run.
        settings, versions: of RUN/config.json.
        config_yaml: the settings as --config takes them.
        records: of metrics.jsonl.
        pictures: see draw_curves.
    """
    figures = [
        f"<figure>{picture(png, key)}<figcaption>{escape(CAPTIONS[key])}</figcaption></figure>"
        for key, png in pictures.items()
    ]
    epochs = [record for record in records if record["kind"] == "epoch"]
    return PAGE.substitute(
        style=STYLE,
        name=escape(name),
        dataset=escape(str(settings["dataset"]["name"])),
        preset=escape(str(settings["preset"])),
        variant=escape(str(settings["model"]["variant"])),
        cards="\n".join(
            f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
            for label, value in _cards(settings, records, epochs)
        ),
        curves="\n".join(figures) or "<p>No step has been logged yet.</p>",
        num_epochs=len(epochs),
        epochs=table(_epoch_rows(records, epochs)),
        config=escape(config_yaml),
        versions=table([["", ""], *([key, value] for key, value in versions.items())]),
    )


def _cards(settings: Mapping[str, Any], records: Sequence[Record], epochs: Sequence[Record]) -> list[tuple[str, str]]:
    """Label and value of what is worth reading first."""
    cards = [("epochs done", f"{len(epochs)} of {settings['training']['epochs']}")]
    if epochs:
        last = epochs[-1]
        cards += [
            ("steps", f"{last['steps']:,}"),
            ("mean loss of the last epoch", f"{last['total']:.3f}"),
            ("clips/s, last epoch", f"{last['clips_per_second']:,.1f}"),
            ("of it waiting for data", f"{100 * last['waiting_share']:.1f} %"),
            ("in the epochs", duration(sum(epoch["seconds"] for epoch in epochs))),
        ]
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    for key, label in (("mAP", "best mAP"), ("rank1", "best Rank-1")):
        if evaluations:
            best = max(evaluations, key=lambda record: record[key])
            cards.append((f"{label} ({best['on']}), after epoch {best['epoch'] + 1}", f"{100 * best[key]:.1f} %"))
    return cards


def _epoch_rows(records: Sequence[Record], epochs: Sequence[Record]) -> list[list[str]]:
    results = {record["epoch"]: record for record in records if record["kind"] == "evaluation"}
    head = ["epoch", "steps", "learning rate", *LossTerms._fields, "seconds", "clips/s", "waiting [%]"]
    rows = [
        [
            str(epoch["epoch"] + 1),
            f"{epoch['steps']:,}",
            f"{epoch['learning_rate']:.2e}",
            *(f"{epoch[term]:.3f}" for term in LossTerms._fields),
            f"{epoch['seconds']:.1f}",
            f"{epoch['clips_per_second']:.1f}",
            f"{100 * epoch['waiting_share']:.1f}",
        ]
        for epoch in reversed(epochs)
    ]
    if results:
        head += ["mAP [%]", "Rank-1 [%]"]
        for row, epoch in zip(rows, reversed(epochs), strict=True):
            result = results.get(epoch["epoch"])
            row += [f"{100 * result[key]:.1f}" if result else "" for key in ("mAP", "rank1")]
    return [head, *rows]
