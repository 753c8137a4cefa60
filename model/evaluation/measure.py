"""From descriptors to numbers under protocols, and the tables that show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..embedding.descriptors import TrackletDescriptors
from .comparison import PLAIN, Comparison, distances_between
from .metrics import RankMetrics, measure_ranking
from .open_set import OpenSet, identify
from .pairs import Ranking
from .protocols import Protocol, Selection
from .verification import Verification, verify

RANKS = (1, 5, 10, 20)


@dataclass(frozen=True)
class Measurement:
    """What one method reached under one protocol.

    Attributes:
        method: such as "trained" or "colour histogram".
        protocol: label of the protocol; stands beside every number.
        metrics: the numbers.
        distances: float32 (queries, gallery), as `comparison` makes them.
        comparison: distance and re-ranking.
        verification, open_set: figures with thresholds; None where nobody asked for them.
    """

    method: str
    protocol: str
    metrics: RankMetrics
    distances: np.ndarray
    comparison: Comparison = PLAIN
    verification: Verification | None = None
    open_set: OpenSet | None = None

    @property
    def label(self) -> str:
        """The method, with distance and re-ranking where they are not the paper's: for plots."""
        if self.comparison.is_plain:
            return self.method
        reranking = f", {self.comparison.reranking_name}" if self.comparison.reranking else ""
        return f"{self.method} ({self.comparison.distance}{reranking})"

    def to_dict(self) -> dict[str, Any]:
        """The numbers for metrics.json, as shares from 0 to 1."""
        metrics = self.metrics
        return {
            "method": self.method,
            "protocol": self.protocol,
            "distance": self.comparison.distance,
            "reranking": self.comparison.reranking_name,
            **{f"rank{k}": metrics.rank(k) for k in RANKS},
            "mAP": metrics.mAP,
            "mINP": metrics.mINP,
            "num_queries": metrics.num_queries,
            "num_valid_queries": metrics.num_valid_queries,
            "num_gallery": self.distances.shape[1],
            "cmc": metrics.cmc.tolist(),
            **({"verification": self.verification.to_dict()} if self.verification else {}),
            **({"open_set": self.open_set.to_dict()} if self.open_set else {}),
        }


def measure(
    method: str,
    descriptors: TrackletDescriptors,
    protocol: Protocol,
    selection: Selection,
    comparison: Comparison = PLAIN,
    *,
    split: int = 0,
    device: torch.device | str = "cpu",
) -> Measurement:
    """Rank the selection by distance between descriptors; see distances_between for errors."""
    sides = descriptors.rows(selection.queries), descriptors.rows(selection.gallery)
    distances = distances_between(descriptors, *sides, comparison, device)
    return measure_distances(method, distances, protocol, selection, comparison, split=split)


def measure_distances(
    method: str,
    distances: np.ndarray,
    protocol: Protocol,
    selection: Selection,
    comparison: Comparison = PLAIN,
    *,
    split: int = 0,
) -> Measurement:
    """All figures of a matrix of distances.

    Args:
        method: what made them.
        distances: float (queries, gallery) of the selection.
        protocol, selection: who is ranked, and with which cameras.
        comparison: how the distances were made.
        split: the identity split that they belong to.
    """
    identities = ([tracklet.identity for tracklet in side] for side in (selection.queries, selection.gallery))
    ranking = Ranking(distances, *map(np.array, (*identities, selection.query_cameras, selection.gallery_cameras)))
    metrics = measure_ranking(ranking)
    return Measurement(
        method, protocol.label([split]), metrics, distances, comparison, verify(ranking), identify(ranking)
    )
