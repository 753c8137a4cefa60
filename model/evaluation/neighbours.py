"""The nearest of each row, ties decided by position."""

from __future__ import annotations

import numpy as np


def nearest(distances: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` smallest numbers of each row, from small to large, equal ones in the order of the columns.

    The same as a stable sort of each row, cut off, without sorting the rest.

    Args:
        distances: float (rows, N), N >= count, without NaN.

    Returns:
        int64 (rows, count).
    """
    last = np.partition(distances, count - 1, axis=1)[:, count - 1 : count]
    rows, columns = np.divmod(np.flatnonzero(distances <= last), distances.shape[1])
    order = np.lexsort((distances[rows, columns], rows))  # stable: columns ascend within equal numbers
    starts = np.searchsorted(rows, np.arange(len(distances)))
    return columns[order][starts[:, None] + np.arange(count)]
