"""How tracklets are compared, by name: the distance, and what is made of it with the help of the gallery.

Letters: Q queries, G gallery tracklets, N tracklets of both sides, each once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from keyreid.pipeline.errors import SettingsError

from ..embedding.descriptors import TrackletDescriptors
from .distances import Rows, cosine_distances, squared_distances
from .query_expansion import QueryExpansion
from .reranking import KReciprocal
from .visible_parts import visible_distances

DISTANCES = ("euclidean", "cosine", "visible-parts")


@dataclass(frozen=True)
class Comparison:
    """Everything that decides a distance between two tracklets of a gallery.

    Attributes:
        distance: one of DISTANCES; "euclidean" is squared, as in the paper.
        reranking: None, or what makes new distances of all the old ones.

    Raises:
        SettingsError: an unknown distance, or a re-ranking that needs another one.
    """

    distance: str = "euclidean"
    reranking: KReciprocal | QueryExpansion | None = None

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise SettingsError(f"distance is {self.distance!r}", f"one of {', '.join(DISTANCES)}")
        if isinstance(self.reranking, QueryExpansion) and self.reranking.power and self.distance != "cosine":
            raise SettingsError(
                f"query expansion with weights of power {self.reranking.power:g} under distance {self.distance}",
                "--distance cosine, which says how similar two descriptors are",
                "or a power of 0: all neighbours weigh the same",
            )

    @property
    def reranking_name(self) -> str:
        """What stands beside every figure: "none", or the method with its numbers."""
        return str(self.reranking or "none")

    @property
    def is_plain(self) -> bool:
        """Whether it is the paper's."""
        return self == Comparison()


PLAIN = Comparison()


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
