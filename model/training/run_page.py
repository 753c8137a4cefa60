"""RUN/training.html: the course of a run in one page that loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import Any

from keyreid.model.html import STYLE, picture, table
from keyreid.pipeline.environment import duration

from .losses import LossTerms
from .metrics_file import Record

CAPTIONS = {
    "evaluation": "Results of the averaged weights, measured on the way; circled: the best.",
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
<p class="soft">Training of KeyRe-ID on $dataset, preset $preset, variant $variant. The page is written anew at every
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
            ("clips a second, last epoch", f"{last['clips_per_second']:,.1f}"),
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
    head = ["epoch", "steps", "learning rate", *LossTerms._fields, "seconds", "clips a second", "waiting [%]"]
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
