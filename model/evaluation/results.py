"""What keyreid-eval found: of one run, the content of metrics.json; of several, mean and deviation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keyreid.pipeline.commit import read_json
from keyreid.pipeline.environment import package_versions
from keyreid.pipeline.errors import FormatError, SettingsError

from .intervals import Resampling
from .measurement import HEADINGS, Measurement, RunScores, Share
from .protocols import Protocol
from .reranking import Comparison

FORMAT_VERSION = 2
PACKAGES = ("torch", "timm", "torchvision", "numpy")
COUNTS = ("num_queries", "num_valid_queries", "num_gallery")


@dataclass(frozen=True)
class RunResults:
    """What was measured on what.

    Attributes:
        dataset: name, identity split, counts of each split, and what else identifies the data.
        checkpoint: path as the user gave it.
        fingerprint: of the network's weights and configuration.
        model: its configuration.
        measurements: the trained network first; pictures are of the first one's protocol.
        description: how clips were taken, where not as published; see EmbeddingSettings.
    """

    dataset: Mapping[str, Any]
    checkpoint: str
    fingerprint: str
    model: Mapping[str, Any]
    measurements: tuple[Measurement, ...]
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def protocol(self) -> Protocol:
        """The first of those under which everything was measured."""
        return self.measurements[0].protocol

    def headline(self) -> str:
        """One line for a terminal: what was ranked against what."""
        num_queries, num_gallery = self.measurements[0].distances.shape
        return (
            f"{self.dataset['name']} (identity split: {self.dataset['identity_split']}), "
            f"protocol {self.measurements[0].protocol_label}: "
            f"{num_queries:,} queries against {num_gallery:,} gallery tracklets" + self._clips(", ")
        )

    def dataset_stamp(self) -> str:
        """What stands next to every table: dataset, and identity split where there are several."""
        split = str(self.dataset["identity_split"])
        return str(self.dataset["name"]) + (f" · identity split {split}" if " of " in split else "")

    def stamp(self) -> str:
        """What stands next to every figure: dataset, protocol, distance and re-ranking."""
        first = self.measurements[0]
        distance, reranking = first.comparison.distance, first.comparison.reranking_name
        names = f"protocol {first.protocol_label} · distance {distance} · re-ranking {reranking}"
        return f"{self.dataset_stamp()} · {names}{self._clips(' · ')}"

    def _clips(self, separator: str) -> str:
        return "".join(f"{separator}{name} {value}" for name, value in self.description.items())

    def to_dict(self) -> dict[str, Any]:
        """The content of metrics.json."""
        protocol = self.protocol
        return {
            "format_version": FORMAT_VERSION,
            "protocol": {"name": protocol.name, "summary": protocol.summary, "comparable": protocol.comparable},
            "dataset": dict(self.dataset),
            "checkpoint": self.checkpoint,
            "model_fingerprint": self.fingerprint,
            "model": dict(self.model),
            "description": dict(self.description),
            "results": [one.to_dict() for one in self.measurements],
            "versions": package_versions(*PACKAGES),
        }


@dataclass(frozen=True)
class Summary:
    """One method under one protocol, over several runs.

    Attributes:
        method, protocol_label, comparison: as of a Measurement.
        rank_figures: means, with the deviation of a sample (divided by n - 1) where there is more than one number.
        num_persons: of all runs together.
        num_runs, identity_splits: of how many runs, on which splits.
        mean_over: "identity splits" or "runs".
        counts: COUNTS -> each number that runs have.
    """

    method: str
    protocol_label: str
    comparison: Comparison
    rank_figures: dict[str, Share]
    num_persons: int
    num_runs: int
    identity_splits: tuple[int, ...]
    mean_over: str
    counts: dict[str, list[int]]

    @property
    def counted(self) -> str:
        valid, every = (", ".join(map(str, self.counts[name])) for name in ("num_valid_queries", "num_queries"))
        return f"{valid} of {every}"

    def to_dict(self) -> dict[str, Any]:
        figures = self.rank_figures.items()
        return {
            "method": self.method,
            "protocol": self.protocol_label,
            "distance": self.comparison.distance,
            "reranking": self.comparison.reranking_name,
            "num_runs": self.num_runs,
            "identity_splits": list(self.identity_splits),
            "mean_over": self.mean_over,
            **{name: figure.value for name, figure in figures},
            "intervals": {name: figure.interval for name, figure in figures},
            "deviations": {name: figure.deviation for name, figure in figures if figure.deviation is not None},
            "num_persons": self.num_persons,
            **{name: found[0] if len(found) == 1 else found for name, found in self.counts.items()},
        }


def summarise(runs: Sequence[Sequence[RunScores]]) -> list[Summary]:
    """Mean, deviation and interval of each method under each protocol.

    Under a protocol of several identity splits they are over the splits, and a split's figure is the mean of its runs;
    under the others they are over the runs. The interval is over persons, each drawn in all runs alike: it says what
    other persons would change, the deviation what other runs would.

    Args:
        runs: for each run its measurements; methods and protocols in the same order in all runs.
    """
    return [_summary(scores) for scores in zip(*runs, strict=True)]


def _summary(scores: Sequence[RunScores]) -> Summary:
    first, split = scores[0], np.array([one.split for one in scores])
    splits = tuple(np.unique(split).tolist())
    groups = [split == one for one in splits] if first.protocol.num_splits else list(np.eye(len(split), dtype=bool))
    drawn = Resampling.of(np.concatenate([one.persons for one in scores]))
    draws, start = [], 0
    for one in scores:
        own = Resampling(drawn.person[start : start + len(one.persons)], drawn.times)
        draws.append(own.means(one.values, np.ones(len(one.values))))
        start += len(one.persons)
    intervals = drawn.intervals(np.mean([np.mean(np.array(draws)[group], axis=0) for group in groups], axis=0))
    values = np.array([one.values.mean(axis=0) for one in scores])  # (runs, headings)
    means = np.array([values[group].mean(axis=0) for group in groups])
    deviations = means.std(axis=0, ddof=1).tolist() if len(means) > 1 else [None] * len(HEADINGS)
    rows = zip(HEADINGS, means.mean(axis=0).tolist(), intervals, deviations, strict=True)
    return Summary(
        first.method,
        first.protocol.label(splits),
        first.comparison,
        {name: Share(mean, interval, deviation=deviation) for name, mean, interval, deviation in rows},
        drawn.num_persons,
        len(scores),
        splits,
        "identity splits" if first.protocol.num_splits else "runs",
        {name: sorted({one.counts[place] for one in scores}) for place, name in enumerate(COUNTS)},
    )


def read_metrics(path: Path, model_fingerprint: str) -> dict[str, Any]:
    """The content of a metrics.json.

    Args:
        path: the file, or the folder of the report.
        model_fingerprint: of the weights and configuration that it must be of.

    Raises:
        FormatError: no such file, another kind of file, or another version.
        SettingsError: it was measured with other weights or another configuration.
    """
    path = path / "metrics.json" if path.is_dir() else path
    if not path.is_file():
        raise FormatError(f"there is no {path}", "metrics.json of keyreid-eval --report")
    content = read_json(path, sealed=False)  # keyreid-eval --json > metrics.json is one, too
    if content.get("format_version") != FORMAT_VERSION or not content.get("results"):
        raise FormatError(
            f"{path} is not a metrics.json of version {FORMAT_VERSION}", "", "measure again with keyreid-eval"
        )
    if content.get("model_fingerprint") != model_fingerprint:
        raise SettingsError(
            f"{path} was measured with other weights or another configuration "
            f"(fingerprint {content.get('model_fingerprint')})",
            f"fingerprint {model_fingerprint}",
            "measure this network with keyreid-eval --report",
        )
    return content
