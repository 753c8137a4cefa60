"""How tracklets are compared, by name; and re-ranking by k-reciprocal encoding (Zhong et al., CVPR 2017), sparse.

Letters: N tracklets of both sides, Q queries, G gallery tracklets.

Two tracklets that are among each other's nearest are likely the same person. Each tracklet is encoded by the distances
to such reciprocal neighbours, a vector of N numbers of which some dozens are not 0; tracklets are then compared by how
much their vectors overlap (Jaccard distance). The dense N x N matrices of the published algorithm are sparse here; the
definition is the published one, with ties decided by position and whole numbers where it compares shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.errors import SettingsError

DISTANCES = ("euclidean", "cosine", "visible-parts")
ROWS_AT_ONCE = 256  # copies of distances: 256 x 11,310 float64 take 23 MB


@dataclass(frozen=True)
class KReciprocal:
    """New distances: share * old + (1 - share) * Jaccard distance of the k-reciprocal encodings.

    The old distances of each tracklet are divided by its largest one, as published. For Euclidean ones pass squares, as
    published.

    Attributes:
        k1: neighbours of which reciprocal ones are taken.
        k2: nearest tracklets whose encodings are averaged; 1: no averaging.
        share: of the old distance, lambda in the paper, in [0, 1].
    """

    k1: int = 20
    k2: int = 6
    share: float = 0.3

    def __post_init__(self) -> None:
        if self.k1 < 1 or self.k2 < 1 or not 0 <= self.share <= 1:
            raise SettingsError(
                f"re-ranking with k1={self.k1}, k2={self.k2}, lambda={self.share:g}",
                "k1 and k2 of at least 1 and lambda between 0 and 1",
            )

    def __str__(self) -> str:
        return f"k-reciprocal (k1={self.k1}, k2={self.k2}, lambda={self.share:g})"

    def apply(self, distances: np.ndarray, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """New distances between queries and gallery.

        Args:
            distances: float32 (N, N), symmetric: among all tracklets of both sides, each once.
            queries, gallery: int64 (Q,) and (G,), rows of `distances`.

        Returns:
            float32 (Q, G), not negative.

        Raises:
            SettingsError: fewer tracklets than neighbours.
        """
        count = max(self.k1 + 1, self.k2)
        if len(distances) < count:
            raise SettingsError(
                f"re-ranking with k1={self.k1}, k2={self.k2} among {len(distances)} tracklets",
                f"at least {count} tracklets",
                "choose a smaller --k1",
            )
        blocks = range(0, len(distances), ROWS_AT_ONCE)
        neighbours = np.concatenate([nearest(distances[start : start + ROWS_AT_ONCE], count) for start in blocks])
        largest = np.concatenate([distances[start : start + ROWS_AT_ONCE].max(axis=1) for start in blocks])
        largest = np.where(largest > 0, largest, 1).astype(np.float64)
        encodings = self._encode(distances, neighbours, largest)
        if self.k2 > 1:
            encodings = _adjacency(neighbours[:, : self.k2]).astype(np.float64) @ encodings / self.k2
        return self._mix(distances, largest, encodings.tocsr(), queries, gallery)

    def _encode(self, distances: np.ndarray, neighbours: np.ndarray, largest: np.ndarray) -> csr_matrix:
        """float64 (N, N): each row's weights of its expanded reciprocal neighbours; rows sum to 1."""
        reciprocal = _reciprocal(neighbours[:, : self.k1 + 1])
        half = _reciprocal(neighbours[:, : round(self.k1 / 2) + 1])
        sizes = np.diff(half.indptr)
        # A neighbour's own reciprocal neighbours join where more than two thirds of them are known already.
        common = (reciprocal @ half.T).multiply(reciprocal).tocoo()
        joins = 3 * common.data > 2 * sizes[common.col]
        joined = csr_matrix((common.data[joins], (common.row[joins], common.col[joins])), reciprocal.shape) @ half
        expanded = (reciprocal + joined).tocoo()
        weights = np.exp(-distances[expanded.row, expanded.col].astype(np.float64) / largest[expanded.row])
        encodings = csr_matrix((weights, (expanded.row, expanded.col)), reciprocal.shape)
        sums = np.asarray(encodings.sum(axis=1)).ravel()
        encodings.data /= np.repeat(sums, np.diff(encodings.indptr))
        return encodings

    def _mix(
        self,
        distances: np.ndarray,
        largest: np.ndarray,
        encodings: csr_matrix,
        queries: np.ndarray,
        gallery: np.ndarray,
    ) -> np.ndarray:
        result = np.empty((len(queries), len(gallery)), np.float32)
        columns = encodings[gallery].tocsc()  # who in the gallery has a weight at each place
        with progress_bar(len(queries), "re-rank", "queries") as bar:
            for place, query in enumerate(queries):
                own = slice(encodings.indptr[query], encodings.indptr[query + 1])
                overlap = _overlap(encodings.indices[own], encodings.data[own], columns)
                old = distances[query, gallery] / largest[query]
                result[place] = self.share * old + (1 - self.share) * (1 - overlap / (2 - overlap))
                bar.update()
        return result


@dataclass(frozen=True)
class Comparison:
    """Everything that decides a distance between two tracklets of a gallery.

    Attributes:
        distance: one of DISTANCES; "euclidean" is squared, as in the paper.
        reranking: None, or what makes new distances of all the old ones.

    Raises:
        SettingsError: an unknown distance.
    """

    distance: str = "euclidean"
    reranking: KReciprocal | None = None

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise SettingsError(f"distance is {self.distance!r}", f"one of {', '.join(DISTANCES)}")

    @property
    def reranking_name(self) -> str:
        """What stands next to every figure: "none", or the method with its numbers."""
        return str(self.reranking or "none")


PLAIN = Comparison()


def _adjacency(neighbours: np.ndarray) -> csr_matrix:
    """int32 (N, N): 1 where the column is among the row's neighbours."""
    count, k = neighbours.shape
    starts = np.arange(0, count * k + 1, k)
    return csr_matrix((np.ones(count * k, np.int32), neighbours.ravel(), starts), (count, count))


def _reciprocal(neighbours: np.ndarray) -> csr_matrix:
    """int32 (N, N): 1 where each is among the other's neighbours."""
    adjacency = _adjacency(neighbours)
    return adjacency.multiply(adjacency.T).tocsr()


def _overlap(places: np.ndarray, weights: np.ndarray, columns: csr_matrix) -> np.ndarray:
    """float64 (G,): sum of the smaller of two weights over all places, of one tracklet against each of the gallery."""
    starts, sizes = columns.indptr[places], np.diff(columns.indptr)[places]
    positions = np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
    smaller = np.minimum(np.repeat(weights, sizes), columns.data[positions])
    return np.bincount(columns.indices[positions], smaller, columns.shape[0])


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
