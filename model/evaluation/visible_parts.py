"""Distances that compare a part only where both tracklets saw it (as part-based re-ID does: PCB, ISP, BPBReID)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from keyreid.pipeline.errors import SettingsError

from ..embedding.descriptors import TrackletDescriptors
from .distances import Rows, squared_distances

QUERIES_AT_ONCE = 1024  # a few float64 blocks of 1024 x 11,310 distances take 0.4 GB


def visible_distances(
    descriptors: TrackletDescriptors, queries: np.ndarray, gallery: np.ndarray, device: torch.device | str = "cpu"
) -> np.ndarray:
    """The weighted mean of the features' distances times the sum of all weights: sum(w) * sum(w v d) / sum(w v).

    w is a feature's factor in the Euclidean distance, v the product of the two tracklets' visibilities, and 1 for the
    global feature. So the distance is the Euclidean one where everything is visible, and a part that one side did not
    see has no say. A pair that shares nothing (no common part, and a global factor of 0) has the Euclidean distance: an
    unseen part's feature speaks of the whole body.

    Args:
        descriptors: of all of them.
        queries, gallery: int64 (Q,) and (G,), rows of `descriptors`.
        device: where the products are made.

    Returns:
        float32 (Q, G), not negative.

    Raises:
        SettingsError: the descriptors have no visibilities.
    """
    if not descriptors.visibility.shape[1]:
        raise no_visibilities("the descriptors say")
    result = np.empty((len(queries), len(gallery)), np.float32)
    gallery_seen = _with_global(descriptors.visibility[gallery])
    borders = np.cumsum([0, *descriptors.widths])
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        rows = queries[start : start + QUERIES_AT_ONCE]
        seen = _with_global(descriptors.visibility[rows])
        total, weight = (np.zeros((len(rows), len(gallery))) for _ in range(2))
        for feature, (first, last) in enumerate(pairwise(borders)):
            # The root of the feature's weight is in the values.
            left, right = (Rows(descriptors.values, side, slice(int(first), int(last))) for side in (rows, gallery))
            both = np.outer(seen[:, feature], gallery_seen[:, feature])
            total += both * squared_distances(left, right, device)
            weight += both * descriptors.weights[feature]
        shared = weight > 0
        mean = np.divide(total, weight, out=np.zeros_like(total), where=shared) * descriptors.weights.sum()
        if not shared.all():
            everything = squared_distances(Rows(descriptors.values, rows), Rows(descriptors.values, gallery), device)
            mean = np.where(shared, mean, everything)
        result[start : start + len(rows)] = mean
    return result


def no_visibilities(whose: str) -> SettingsError:
    """The error for a network, or a file of descriptors, that does not say which parts were seen."""
    return SettingsError(
        f"distance is 'visible-parts', and {whose} nothing of which parts were seen",
        "visibilities: the aligned variant gives them, the authors' code does not",
        "leave --distance at euclidean",
    )


def _with_global(visibility: np.ndarray) -> np.ndarray:
    """float64 (K, 1 + P): the global feature, which is always seen, before the parts."""
    return np.column_stack([np.ones(len(visibility)), visibility])
