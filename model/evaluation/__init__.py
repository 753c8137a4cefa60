"""Evaluation of a trained network: protocols, metrics with intervals, the report. Importing it alone loads nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .metrics import RankMetrics, measure_ranking, rank_metrics
    from .pairs import Ranking
    from .protocols import PROTOCOLS, Protocol, find_protocol
    from .reranking import KReciprocal
    from .thresholds import OpenSet, Verification, identify, verify

__all__ = [
    "PROTOCOLS",
    "KReciprocal",
    "OpenSet",
    "Protocol",
    "RankMetrics",
    "Ranking",
    "Verification",
    "find_protocol",
    "identify",
    "measure_ranking",
    "rank_metrics",
    "verify",
]

_HOMES = {
    "metrics": ("RankMetrics", "measure_ranking", "rank_metrics"),
    "pairs": ("Ranking",),
    "protocols": ("PROTOCOLS", "Protocol", "find_protocol"),
    "reranking": ("KReciprocal",),
    "thresholds": ("OpenSet", "Verification", "identify", "verify"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
