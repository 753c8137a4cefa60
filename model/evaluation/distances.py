"""Distances between descriptors, block by block, on a CPU or a GPU.

Letters: Q queries, G gallery tracklets, D numbers of a descriptor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from keyreid.pipeline.errors import KeyReIDError

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
