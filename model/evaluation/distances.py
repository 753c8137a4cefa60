"""Distances between descriptors, block by block, on a CPU or a GPU.

Letters: Q queries, G gallery tracklets, D numbers of a descriptor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from keyreid.pipeline.errors import KeyReIDError, SettingsError
from keyreid.pipeline.skeleton import PARTS

from ..embedding.descriptors import TrackletDescriptors
from .reranking import PLAIN, Comparison

FEATURES = ("whole body", *(name.replace("_", " ") for name in PARTS))
ROWS_AT_ONCE = 1024  # two blocks of 1024 x 19,200 numbers in float64 take 0.3 GB

Measure = Callable[[Tensor, Tensor], Tensor]  # float64 (q, D) and (g, D) -> (q, g)


@dataclass(frozen=True)
class Rows:
    """Some rows of descriptors, and of these some columns, that are read a block at a time and never copied as a whole.

    Attributes:
        values: float16 or float32 (K, D), an array or an HDF5 dataset.
        rows: int64 (Q,), ascending where `values` is on disk.
        columns: of D.
    """

    values: np.ndarray
    rows: np.ndarray
    columns: slice = field(default_factory=lambda: slice(None))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(range(*self.columns.indices(self.values.shape[1])))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, block: slice) -> np.ndarray:
        return self.values[self.rows[block], self.columns]


Descriptors = np.ndarray | Rows


def squared_distances(queries: Descriptors, gallery: Descriptors, device: torch.device | str = "cpu") -> np.ndarray:
    """Squared Euclidean distance of every query to every gallery descriptor (paper, section 4).

    Computed in float64, because |a|^2 + |b|^2 - 2ab loses digits where a and b are close, and rounded at the end.

    Args:
        queries: float (Q, D).
        gallery: float (G, D); the same object as `queries` costs half.
        device: where the products are made.

    Returns:
        float32 (Q, G), not negative.

    Raises:
        KeyReIDError: descriptors of different widths.
    """
    return _in_blocks(queries, gallery, _squared, device)


def cosine_distances(queries: Descriptors, gallery: Descriptors, device: torch.device | str = "cpu") -> np.ndarray:
    """1 - cosine of the angle between every query and every gallery descriptor; else as squared_distances.

    Returns:
        float32 (Q, G), in [0, 2].

    Raises:
        KeyReIDError: descriptors of different widths, or one of length 0, which has no direction.
    """
    return _in_blocks(queries, gallery, _cosine, device)


def _in_blocks(queries: Descriptors, gallery: Descriptors, measure: Measure, device: torch.device | str) -> np.ndarray:
    if not len(queries.shape) == len(gallery.shape) == 2 or queries.shape[1] != gallery.shape[1]:
        raise KeyReIDError(
            f"query descriptors of shape {queries.shape} and gallery descriptors of shape {gallery.shape}",
            "(queries, D) and (gallery tracklets, D) with the same D",
            "embed both with the same model",
        )
    symmetric = queries is gallery
    result = np.empty((len(queries), len(gallery)), np.float32)
    for column in range(0, len(gallery), ROWS_AT_ONCE):
        right = _block(gallery, column, device)
        columns = slice(column, column + len(right))
        for row in range(0, columns.stop if symmetric else len(queries), ROWS_AT_ONCE):
            left = right if symmetric and row == column else _block(queries, row, device)
            block = measure(left, right).float().cpu().numpy()
            result[row : row + len(left), columns] = block
            if symmetric and row < column:
                result[columns, row : row + len(left)] = block.T
    return result


def _block(descriptors: Descriptors, start: int, device: torch.device | str) -> Tensor:
    """float64 (at most ROWS_AT_ONCE, D), on the device."""
    return torch.from_numpy(np.array(descriptors[start : start + ROWS_AT_ONCE])).to(device, torch.float64)


def _squared(left: Tensor, right: Tensor) -> Tensor:
    lengths = left.square().sum(1)[:, None] + right.square().sum(1)
    return torch.addmm(lengths, left, right.T, alpha=-2).clamp_(min=0)


def _cosine(left: Tensor, right: Tensor) -> Tensor:
    lengths = left.norm(dim=1), right.norm(dim=1)
    if not all(bool((side > 0).all()) for side in lengths):
        raise KeyReIDError(
            "a descriptor whose numbers are all 0 has no direction",
            "descriptors of some length for the cosine distance",
            "use --distance euclidean, or look at what was embedded",
        )
    return (1 - (left / lengths[0][:, None]) @ (right / lengths[1][:, None]).T).clamp_(0, 2)


def distances_between(
    descriptors: TrackletDescriptors,
    queries: np.ndarray,
    gallery: np.ndarray,
    comparison: Comparison = PLAIN,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Distance of each query to each gallery tracklet.

    Args:
        descriptors: of all of them.
        queries, gallery: int64 (Q,) and (G,), rows of `descriptors`; re-ranking takes a row on both sides once.
        comparison: how.
        device: where products and neighbours are computed.

    Returns:
        float32 (Q, G), not negative.

    Raises:
        SettingsError: "visible-parts" of descriptors without visibilities, or more neighbours than tracklets.
        KeyReIDError: "cosine" of a descriptor of length 0.
    """
    if comparison.reranking is None:
        return _plain(descriptors, queries, gallery, comparison.distance, device)
    rows, place = np.unique(np.concatenate([queries, gallery]), return_inverse=True)
    everything = _plain(descriptors, rows, rows, comparison.distance, device)
    return comparison.reranking.apply(everything, place[: len(queries)], place[len(queries) :])


def _plain(
    descriptors: TrackletDescriptors,
    queries: np.ndarray,
    gallery: np.ndarray,
    distance: str,
    device: torch.device | str,
) -> np.ndarray:
    if distance == "visible-parts":
        return visible_distances(descriptors, queries, gallery, device)
    left = right = Rows(descriptors.values, queries)
    if not np.array_equal(queries, gallery):
        right = Rows(descriptors.values, gallery)
    return (cosine_distances if distance == "cosine" else squared_distances)(left, right, device)


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
    for start in range(0, len(queries), ROWS_AT_ONCE):
        rows = queries[start : start + ROWS_AT_ONCE]
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
    visible_distances does; what one side does not show adds nothing.

    Args:
        descriptors: with a global feature and parts.
        left, right: rows.
        distance: one of DISTANCES.
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
