"""All that a report says, before it is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keyreid.pipeline.environment import package_versions

from ..measure import Measurement
from ..protocols import Protocol

FORMAT_VERSION = 2
PACKAGES = ("torch", "timm", "torchvision", "numpy")


@dataclass(frozen=True)
class Evaluation:
    """What was measured on what.

    Attributes:
        dataset: name, identity split, counts of each split, and what else identifies the data.
        protocol: the first of those under which everything was measured; each measurement names its own.
        checkpoint: path as the user gave it.
        fingerprint: of the network's weights and configuration.
        model: its configuration.
        measurements: the trained network first.
        description: how clips were taken, where not as published; see EmbeddingSettings.
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
            f"{num_queries:,} queries against {num_gallery:,} gallery tracklets" + self._clips(", ")
        )

    def dataset_stamp(self) -> str:
        """What stands beside every table: dataset, and identity split where there are several."""
        split = str(self.dataset["identity_split"])
        return str(self.dataset["name"]) + (f" · identity split {split}" if " of " in split else "")

    def stamp(self) -> str:
        """What stands beside every figure: dataset, protocol, distance and re-ranking."""
        first = self.measurements[0]
        comparison = first.comparison
        names = f"protocol {first.protocol} · distance {comparison.distance} · re-ranking {comparison.reranking_name}"
        return f"{self.dataset_stamp()} · {names}{self._clips(' · ')}"

    def _clips(self, separator: str) -> str:
        return "".join(f"{separator}{name} {value}" for name, value in self.description.items())

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
