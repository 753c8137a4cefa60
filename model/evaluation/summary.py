"""Several runs: mean and deviation of every figure, over identity splits or over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .protocols import Protocol
from .tables import FIGURES


@dataclass(frozen=True)
class RunResult:
    """What one run reached with one method under one protocol.

    Attributes:
        split: the identity split that the run was trained and measured on.
        protocol: under which.
        figures: Measurement.to_dict().
    """

    split: int
    protocol: Protocol
    figures: Mapping[str, Any]


def summarise(runs: Sequence[Sequence[RunResult]]) -> list[dict[str, Any]]:
    """Mean and standard deviation of each method under each protocol.

    Under a protocol of several identity splits they are over the splits, and a split's figure is the mean of its runs;
    under the others they are over the runs. The deviation is that of a sample (divided by n - 1), and is left out for
    one number.

    Args:
        runs: for each run its results; methods and protocols in the same order in all runs.

    Returns:
        Results as Measurement.to_dict has them, as far as they have a mean; `deviations` of the same figures, and
        what the mean is over.
    """
    return [_summary(results) for results in zip(*runs, strict=True)]


def _summary(results: Sequence[RunResult]) -> dict[str, Any]:
    first, splits = results[0], sorted({result.split for result in results})
    values = {name: np.array([result.figures[name] for result in results]) for name in FIGURES}
    if first.protocol.num_splits:
        member = np.array([result.split for result in results])
        values = {name: np.array([found[member == one].mean() for one in splits]) for name, found in values.items()}
    count = len(values["mAP"])
    queries = {name: sorted({result.figures[name] for result in results}) for name in _COUNTS}
    return {
        **{name: first.figures[name] for name in ("method", "distance", "reranking")},
        "protocol": first.protocol.label(splits),
        "num_runs": len(results),
        "identity_splits": splits,
        "mean_over": "identity splits" if first.protocol.num_splits else "runs",
        **{name: float(found.mean()) for name, found in values.items()},
        "deviations": {name: float(found.std(ddof=1)) for name, found in values.items()} if count > 1 else {},
        **{name: found[0] if len(found) == 1 else found for name, found in queries.items()},
    }


_COUNTS = ("num_queries", "num_valid_queries", "num_gallery")
