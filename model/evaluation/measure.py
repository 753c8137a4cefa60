"""From descriptors to numbers under a protocol, and the table that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .descriptors import TrackletDescriptors
from .metrics import RankMetrics, rank_metrics
from .protocols import Protocol, Selection
from .visible_parts import distances_between

RANKS = (1, 5, 10, 20)


@dataclass(frozen=True)
class Measurement:
    """What one method reached.

    Attributes:
        method: such as "trained" or "colour histogram".
        protocol: name of the protocol; stands beside every number.
        metrics: the numbers.
        distances: float32 (queries, gallery), squared Euclidean.
        distance: how they were computed, one of visible_parts.DISTANCES.
    """

    method: str
    protocol: str
    metrics: RankMetrics
    distances: np.ndarray
    distance: str = "plain"

    @property
    def label(self) -> str:
        """The method, with the distance where that is not the plain one."""
        return self.method if self.distance == "plain" else f"{self.method} ({self.distance})"

    def to_dict(self) -> dict[str, Any]:
        """The numbers for metrics.json, as shares from 0 to 1."""
        metrics = self.metrics
        return {
            "method": self.method,
            "protocol": self.protocol,
            "distance": self.distance,
            **{f"rank{k}": metrics.rank(k) for k in RANKS},
            "mAP": metrics.mAP,
            "mINP": metrics.mINP,
            "num_queries": metrics.num_queries,
            "num_valid_queries": metrics.num_valid_queries,
            "num_gallery": self.distances.shape[1],
            "cmc": metrics.cmc.tolist(),
        }


def measure(
    method: str,
    descriptors: TrackletDescriptors,
    protocol: Protocol,
    selection: Selection,
    distance: str = "plain",
) -> Measurement:
    """Rank the selection by distance between descriptors; see distances_between for errors."""
    queries, gallery = descriptors.rows(selection.queries), descriptors.rows(selection.gallery)
    distances = distances_between(descriptors, queries, gallery, distance)
    metrics = rank_metrics(
        distances,
        descriptors.identities[queries],
        descriptors.identities[gallery],
        descriptors.cameras[queries],
        descriptors.cameras[gallery],
    )
    return Measurement(method, protocol.name, metrics, distances, distance)


def table_rows(measurements: Sequence[Measurement]) -> list[list[str]]:
    """Cells of the table, the header first; shares in percent."""
    header = ["method", "protocol", *(f"Rank-{k}" for k in RANKS), "mAP", "mINP", "queries"]
    rows = [header]
    for one in measurements:
        shares = [*(one.metrics.rank(k) for k in RANKS), one.metrics.mAP, one.metrics.mINP]
        queries = f"{one.metrics.num_valid_queries} of {one.metrics.num_queries}"
        rows.append([one.label, one.protocol, *(f"{100 * share:.1f}" for share in shares), queries])
    return rows


def text_table(measurements: Sequence[Measurement]) -> str:
    """The table for a terminal: names to the left, numbers to the right."""
    rows = table_rows(measurements)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(w) if c < 2 else cell.rjust(w) for c, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
