"""Measuring a trained network: descriptors, protocols, metrics and the report."""

from .metrics import RankMetrics, rank_metrics
from .protocols import PROTOCOLS, Protocol, find_protocol

__all__ = ["PROTOCOLS", "Protocol", "RankMetrics", "find_protocol", "rank_metrics"]
