"""One method under one protocol: distances in, figures with their intervals out. Loads torch only to make distances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .intervals import RULE_OF_30, Interval, Resampling
from .metrics import RankMetrics, kept_ranking, measure_ranking
from .pairs import Ranking
from .protocols import Protocol, Selection
from .reranking import PLAIN, Comparison
from .thresholds import OpenSet, Verification, identify, verify

if TYPE_CHECKING:
    import torch

    from ..embedding.descriptors import TrackletDescriptors

RANKS = (1, 5, 10, 20)
HEADINGS = {**{f"rank{k}": f"Rank-{k}" for k in RANKS}, "mAP": "mAP", "mINP": "mINP"}


@dataclass(frozen=True)
class Share:
    """A share with what it rests on.

    Attributes:
        value: from 0 to 1; None where nothing sets it.
        interval: 95 % over persons; None where resamples say nothing.
        num_errors: that it rests on, where it is a rate of errors.
        errors: what these are.
        deviation: of a mean over runs: their standard deviation.
    """

    value: float | None
    interval: Interval = None
    num_errors: int | None = None
    errors: str = ""
    deviation: float | None = None

    @property
    def is_rough(self) -> bool:
        """Whether fewer than 30 errors decide it."""
        return self.num_errors is not None and self.num_errors < RULE_OF_30


@dataclass(frozen=True)
class RunScores:
    """A measurement without its distances.

    Attributes:
        method, protocol, comparison, split: as of the Measurement.
        persons: int64 (N,), of each valid query.
        values: float64 (N, HEADINGS), whose means over N are the figures.
        counts: queries, valid queries and gallery tracklets.
    """

    method: str
    protocol: Protocol
    comparison: Comparison
    split: int
    persons: np.ndarray
    values: np.ndarray
    counts: tuple[int, int, int]


@dataclass(frozen=True)
class Measurement:
    """Distances under a protocol, and every figure of them, each computed when it is first asked for.

    Attributes:
        method: such as "trained" or "colour histogram".
        protocol, selection: who is ranked, and with which cameras.
        distances: float (queries, gallery) of the selection, as `comparison` makes them.
        comparison: distance and re-ranking.
        split: the identity split that they belong to.
        weights: fingerprint of the network that made them; "" of a method without one.
    """

    method: str
    protocol: Protocol
    selection: Selection
    distances: np.ndarray
    comparison: Comparison = PLAIN
    split: int = 0
    weights: str = ""

    @property
    def protocol_label(self) -> str:
        """The protocol as it stands next to every figure."""
        return self.protocol.label([self.split])

    @property
    def label(self) -> str:
        """The method, with distance and re-ranking where they are not the paper's: for plots."""
        if self.comparison == PLAIN:
            return self.method
        reranking = f", {self.comparison.reranking_name}" if self.comparison.reranking else ""
        return f"{self.method} ({self.comparison.distance}{reranking})"

    @cached_property
    def ranking(self) -> Ranking:
        """The distances with identities and cameras; KeyReIDError where they do not fit, or are NaN or infinite."""
        chosen = self.selection
        identities = ([tracklet.identity for tracklet in side] for side in (chosen.queries, chosen.gallery))
        return Ranking(self.distances, *map(np.array, (*identities, chosen.query_cameras, chosen.gallery_cameras)))

    @cached_property
    def metrics(self) -> RankMetrics:
        return measure_ranking(self.ranking, trapezoid=self.protocol.trapezoid)

    @cached_property
    def verification(self) -> Verification:
        return verify(self.ranking, resampling=self._resampling)

    @cached_property
    def open_set(self) -> OpenSet:
        return identify(self.ranking, resampling=self._resampling)

    @cached_property
    def _resampling(self) -> Resampling:
        return Resampling.of(self.ranking.query_ids)

    @property
    def num_persons(self) -> int:
        """Persons that intervals are over: those with a valid query."""
        return len(np.unique(self.ranking.query_ids[self.metrics.num_matches > 0]))

    def nearest(self, query: int, count: int | None = None) -> np.ndarray:
        """Gallery positions from near to far, int64, without those that the protocol removes; see kept_ranking."""
        ranking = self.ranking
        identity, camera = ranking.query_ids[query], ranking.query_cameras[query]
        row, ids, cameras = ranking.distances[query], ranking.gallery_ids, ranking.gallery_cameras
        return kept_ranking(row, identity, camera, ids, cameras, count)

    def query_values(self) -> np.ndarray:
        """float64 (Q, ranks of the CMC + 2): what each query adds to the CMC, mAP and mINP; 0 of skipped queries."""
        metrics = self.metrics
        hits = (metrics.first_match[:, None] <= np.arange(1, len(metrics.cmc) + 1)) & (metrics.num_matches > 0)[:, None]
        means = np.nan_to_num(np.stack([metrics.average_precision, metrics.inverse_negative_penalty], axis=1))
        return np.concatenate([hits, means], axis=1)

    @cached_property
    def rank_intervals(self) -> tuple[Interval, ...]:
        """Of the CMC at each rank, then of mAP and mINP."""
        valid = self.metrics.num_matches > 0
        resampling = Resampling.of(self.ranking.query_ids[valid])
        return resampling.intervals(resampling.means(self.query_values()[valid], np.ones(valid.sum())))

    @cached_property
    def rank_figures(self) -> dict[str, Share]:
        """Key of HEADINGS -> figure."""
        metrics, intervals = self.metrics, self.rank_intervals
        first = metrics.first_match[metrics.num_matches > 0]
        figures = {
            f"rank{k}": Share(
                metrics.rank(k), intervals[min(k, len(metrics.cmc)) - 1], int((first > k).sum()), "misses"
            )
            for k in RANKS
        }
        return {**figures, "mAP": Share(metrics.mAP, intervals[-2]), "mINP": Share(metrics.mINP, intervals[-1])}

    @cached_property
    def threshold_figures(self) -> dict[str, Share]:
        """Heading -> figure.

        TMR: true-match rate at a false-match rate, over pairs. DIR: detection and identification rate at a false-alarm
        rate, over queries.
        """
        pairs, queries = self.verification, self.open_set
        return {
            **_at_rates("TMR", pairs.false_match_rates, pairs.true_match_rates, pairs),
            **_at_rates("DIR", queries.false_alarm_rates, queries.detection_rates, queries),
        }

    def scores(self) -> RunScores:
        """What a mean over runs needs."""
        valid, last = self.metrics.num_matches > 0, len(self.metrics.cmc) - 1
        values = self.query_values()[valid][:, [*(min(k - 1, last) for k in RANKS), -2, -1]]
        counts = self.metrics.num_queries, self.metrics.num_valid_queries, self.distances.shape[1]
        persons = self.ranking.query_ids[valid]
        return RunScores(self.method, self.protocol, self.comparison, self.split, persons, values, counts)

    @property
    def counted(self) -> str:
        return f"{self.metrics.num_valid_queries} of {self.metrics.num_queries}"

    def to_dict(self) -> dict[str, Any]:
        """The numbers for metrics.json, as shares from 0 to 1."""
        metrics = self.metrics
        return {
            "method": self.method,
            "protocol": self.protocol_label,
            "distance": self.comparison.distance,
            "reranking": self.comparison.reranking_name,
            **{name: figure.value for name, figure in self.rank_figures.items()},
            "intervals": {name: figure.interval for name, figure in self.rank_figures.items()},
            "num_persons": self.num_persons,
            "num_queries": metrics.num_queries,
            "num_valid_queries": metrics.num_valid_queries,
            "num_gallery": self.distances.shape[1],
            "cmc": metrics.cmc.tolist(),
            "verification": self.verification.to_dict(),
            "open_set": self.open_set.to_dict(),
        }


def measure(
    method: str,
    descriptors: TrackletDescriptors,
    protocol: Protocol,
    selection: Selection,
    comparison: Comparison = PLAIN,
    *,
    split: int = 0,
    weights: str = "",
    device: torch.device | str = "cpu",
) -> Measurement:
    """Rank the selection by distance between descriptors; see distances_between for errors."""
    from .distances import distances_between  # torch

    sides = descriptors.rows(selection.queries), descriptors.rows(selection.gallery)
    distances = distances_between(descriptors, *sides, comparison, device)
    return Measurement(method, protocol, selection, distances, comparison, split, weights)


def _at_rates(name: str, rates: np.ndarray, shares: np.ndarray, found: Verification | OpenSet) -> Mapping[str, Share]:
    rows = zip(rates, shares, found.intervals, found.num_false, strict=True)
    return {
        f"{name} @ {100 * rate:g} %": Share(float(share) if np.isfinite(share) else None, interval, int(count), "false")
        for rate, share, interval, count in rows
    }
