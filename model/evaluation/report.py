"""One self-contained page about an evaluation, and the same numbers as metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from keyreid.model.html import STYLE, picture, table
from keyreid.pipeline.commit import commit_file, write_json
from keyreid.pipeline.environment import package_versions

from .measure import Measurement
from .page import PAGE
from .protocols import Protocol
from .tables import table_rows

FORMAT_VERSION = 2
PACKAGES = ("torch", "timm", "torchvision", "numpy")


@dataclass(frozen=True)
class Evaluation:
    """All that a report says.

    Attributes:
        dataset: name, identity split, counts of each split, and what else identifies the data.
        protocol: the first of those under which everything was measured; each measurement names its own.
        checkpoint: path as the user gave it.
        fingerprint: of the network's weights and configuration.
        model: its configuration.
        measurements: the trained network first.
        description: how clips were taken, where not as published; see DescriptionSettings.
    """

    dataset: Mapping[str, Any]
    protocol: Protocol
    checkpoint: str
    fingerprint: str
    model: Mapping[str, Any]
    measurements: tuple[Measurement, ...]
    description: Mapping[str, Any] = field(default_factory=dict)

    def headline(self) -> str:
        """One line for a terminal: what was ranked against what."""
        num_queries, num_gallery = self.measurements[0].distances.shape
        return (
            f"{self.dataset['name']} (identity split: {self.dataset['identity_split']}), "
            f"protocol {self.measurements[0].protocol}: "
            f"{num_queries:,} queries against {num_gallery:,} gallery tracklets"
            + "".join(f", {name} {value}" for name, value in self.description.items())
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of metrics.json."""
        return {
            "format_version": FORMAT_VERSION,
            "protocol": {
                "name": self.protocol.name,
                "summary": self.protocol.summary,
                "comparable": self.protocol.comparable,
            },
            "dataset": dict(self.dataset),
            "checkpoint": self.checkpoint,
            "model_fingerprint": self.fingerprint,
            "model": dict(self.model),
            "description": dict(self.description),
            "results": [one.to_dict() for one in self.measurements],
            "versions": package_versions(*PACKAGES),
        }


def write_report(folder: Path, evaluation: Evaluation, cmc_png: bytes, rankings: Sequence[tuple[str, bytes]]) -> Path:
    """Write report.html, metrics.json and cmc.png into the folder.

    Args:
        folder: made where it is missing.
        evaluation: the numbers.
        cmc_png: the CMC plot.
        rankings: a caption and a PNG for each query shown.

    Returns:
        The path of report.html.
    """
    write_json(folder / "metrics.json", evaluation.to_dict())
    commit_file(folder / "cmc.png", lambda partial: write_bytes(partial, cmc_png))
    page = report_page(evaluation, cmc_png, rankings).encode()
    commit_file(folder / "report.html", lambda partial: write_bytes(partial, page))
    return folder / "report.html"


def report_page(evaluation: Evaluation, cmc_png: bytes, rankings: Sequence[tuple[str, bytes]]) -> str:
    """The page as HTML; pictures are inside it, so that it loads nothing."""
    dataset = evaluation.dataset
    best = evaluation.measurements[0].metrics
    facts = {
        "checkpoint": evaluation.checkpoint,
        "weights and configuration": f"fingerprint {evaluation.fingerprint}",
        "data": f"fingerprint {dataset['fingerprint']}",
        **package_versions(*PACKAGES),
    }
    strips = [
        f"<figure><figcaption>{escape(caption)}</figcaption>{picture(png, caption)}</figure>"
        for caption, png in rankings
    ]
    return PAGE.substitute(
        style=STYLE,
        title=escape(f"{dataset['name']}, protocol {evaluation.measurements[0].protocol}"),
        protocol=escape(evaluation.measurements[0].protocol),
        summary=escape(evaluation.protocol.summary),
        rank1=f"{100 * best.rank(1):.1f}",
        mean_precision=f"{100 * best.mAP:.1f}",
        queries=f"{best.num_valid_queries} of {best.num_queries}",
        metrics=table(table_rows(evaluation.measurements)),
        cmc=picture(cmc_png, "CMC plot"),
        rankings="\n".join(strips),
        counts=table(_count_rows(dataset)),
        split=escape(str(dataset["identity_split"])),
        model=table([["setting", "value"], *([key, str(value)] for key, value in evaluation.model.items())]),
        facts=table([["", ""], *([key, value] for key, value in facts.items())]),
    )


def _count_rows(dataset: Mapping[str, Any]) -> list[list[str]]:
    counts = dataset["counts"]
    columns = list(next(iter(counts.values())))
    return [["split", *columns], *([split, *(str(row[name]) for name in columns)] for split, row in counts.items())]


def write_bytes(path: Path, content: bytes) -> None:
    """For commit_file."""
    path.write_bytes(content)
