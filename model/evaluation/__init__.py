"""Measuring a trained network: descriptors, protocols, metrics and the report."""

from .metrics import RankMetrics, measure_ranking, rank_metrics
from .open_set import OpenSet, identify
from .pairs import Ranking
from .protocols import PROTOCOLS, Protocol, find_protocol
from .query_expansion import QueryExpansion
from .reranking import KReciprocal
from .verification import Verification, verify

__all__ = [
    "PROTOCOLS",
    "KReciprocal",
    "OpenSet",
    "Protocol",
    "QueryExpansion",
    "RankMetrics",
    "Ranking",
    "Verification",
    "find_protocol",
    "identify",
    "measure_ranking",
    "rank_metrics",
    "verify",
]
