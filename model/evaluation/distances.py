"""Squared Euclidean distances between descriptors, block by block."""

from __future__ import annotations

import numpy as np

from keyreid.pipeline.errors import KeyReIDError

ROWS_AT_ONCE = 1024  # two blocks of 1024 x 19,200 numbers in float64 take 0.3 GB


def squared_distances(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Distance of every query to every gallery descriptor (paper, section 4: squared Euclidean).

    Computed in float64, because |a|^2 + |b|^2 - 2ab loses digits where a and b are close, and rounded at the end.

    Args:
        queries: float (Q, D).
        gallery: float (G, D).

    Returns:
        float32 (Q, G), not negative.

    Raises:
        KeyReIDError: descriptors of different widths.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise KeyReIDError(
            f"query descriptors of shape {queries.shape} and gallery descriptors of shape {gallery.shape}",
            "(queries, D) and (gallery tracklets, D) with the same D",
            "describe both with the same model",
        )
    result = np.empty((len(queries), len(gallery)), np.float32)
    for column in range(0, len(gallery), ROWS_AT_ONCE):
        right = gallery[column : column + ROWS_AT_ONCE].astype(np.float64)
        right_norms = np.einsum("gd,gd->g", right, right)
        for row in range(0, len(queries), ROWS_AT_ONCE):
            left = queries[row : row + ROWS_AT_ONCE].astype(np.float64)
            block = np.einsum("qd,qd->q", left, left)[:, None] + right_norms - 2 * left @ right.T
            result[row : row + len(left), column : column + len(right)] = np.maximum(block, 0)
    return result
