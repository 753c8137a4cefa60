"""What each feature adds to the distance of two tracklets: which parts decided."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from keyreid.pipeline.skeleton import PARTS

from ..embedding.descriptors import TrackletDescriptors

FEATURES = ("whole body", *(name.replace("_", " ") for name in PARTS))


@dataclass(frozen=True)
class Contributions:
    """A distance as a sum.

    Attributes:
        values: float64 (F,), what each feature adds, 0 or more, in the order of FEATURES; their sum is the distance.
        seen: float64 (F,), in [0, 1]: how much of the feature both tracklets show; 1 for the whole body.
    """

    values: np.ndarray
    seen: np.ndarray

    @property
    def total(self) -> float:
        return float(self.values.sum())


def contributions(descriptors: TrackletDescriptors, left: int, right: int, distance: str) -> Contributions:
    """The distance of two rows of descriptors taken apart, before any re-ranking.

    euclidean: the squared distance of each feature. cosine: half the squared distance of each feature once both
    descriptors have length 1, which sums to 1 - cosine. visible-parts: the squared distances weighted as
    visible_parts.visible_distances does; what one side does not show adds nothing.

    Args:
        descriptors: with a global feature and parts.
        left, right: rows.
        distance: one of comparison.DISTANCES.
    """
    sides = [np.asarray(descriptors.values[row], np.float64) for row in (left, right)]
    if distance == "cosine":
        sides = [side / np.linalg.norm(side) / np.sqrt(2) for side in sides]
    borders = np.cumsum([0, *descriptors.widths])
    squares = np.array([np.square(sides[0][a:b] - sides[1][a:b]).sum() for a, b in pairwise(borders)])
    seen = np.ones(len(squares))
    if descriptors.visibility.shape[1]:
        seen[1:] = descriptors.visibility[left].astype(float) * descriptors.visibility[right]
    if distance == "visible-parts":
        shared = float((seen * descriptors.weights).sum())
        if shared > 0:
            squares = seen * squares * descriptors.weights.sum() / shared
    return Contributions(squares, seen)
