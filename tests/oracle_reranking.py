"""k-reciprocal re-ranking as published (Zhong et al., CVPR 2017, sections 3.2 to 3.5): dense matrices, plain loops."""

from __future__ import annotations

import numpy as np


def dense_reranking(
    distances: np.ndarray, queries: np.ndarray, gallery: np.ndarray, k1: int = 20, k2: int = 6, share: float = 0.3
) -> np.ndarray:
    """New distances, float (Q, G).

    Args:
        distances: float (N, N), symmetric; squared Euclidean, as published.
        queries, gallery: int64 (Q,) and (G,), rows of `distances`.
        k1, k2, share: k1, k2 and lambda of the paper.
    """
    count = len(distances)
    ranking = np.argsort(distances, axis=1, kind="stable")
    largest = distances.max(axis=1, keepdims=True)
    scaled = distances / np.where(largest > 0, largest, 1).astype(distances.dtype)

    def reciprocal(tracklet: int, k: int) -> np.ndarray:
        """R(p, k): those of the k nearest (and itself) that have the tracklet among theirs."""
        nearest = ranking[tracklet, : k + 1]
        return nearest[(ranking[nearest, : k + 1] == tracklet).any(axis=1)]

    encodings = np.zeros((count, count), distances.dtype)
    for tracklet in range(count):
        members = reciprocal(tracklet, k1)
        expanded = members
        for member in members:  # R*(p, k): the reciprocal neighbours of a member, if over two thirds are known
            its_own = reciprocal(member, round(k1 / 2))
            if 3 * len(np.intersect1d(its_own, members)) > 2 * len(its_own):
                expanded = np.append(expanded, its_own)
        expanded = np.unique(expanded)
        weights = np.exp(-scaled[tracklet, expanded])
        encodings[tracklet, expanded] = weights / weights.sum()
    if k2 > 1:
        encodings = np.stack([encodings[ranking[tracklet, :k2]].mean(axis=0) for tracklet in range(count)])

    result = np.empty((len(queries), len(gallery)), distances.dtype)
    for place, query in enumerate(queries):
        used = np.flatnonzero(encodings[query])  # the others have no smaller weight but 0
        smaller = np.zeros(count, distances.dtype)
        for column in used:
            smaller += np.minimum(encodings[query, column], encodings[:, column])
        jaccard = 1 - smaller / (2 - smaller)
        result[place] = ((1 - share) * jaccard + share * scaled[query])[gallery]
    return result
