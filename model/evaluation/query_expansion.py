"""Query expansion: a query together with its nearest gallery tracklets makes a better query.

Chum et al., "Total Recall" (ICCV 2007): the average of query and neighbours; Radenović et al. (TPAMI 2019): neighbours
weighted by similarity ** power.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keyreid.pipeline.errors import SettingsError

from .neighbours import nearest


@dataclass(frozen=True)
class QueryExpansion:
    """Distances from the weighted mean of a query's descriptor and those of its nearest gallery tracklets.

    The mean is never made: with weights w that sum to 1, the squared distance of sum(w x) to g is the weighted mean of
    the squared distances of each x to g, less sum(w w' d(x, x')) / 2. So it works on any matrix of distances, and is
    exact for squared Euclidean ones; for the cosine distance, of descriptors brought to length 1, it is half of that.

    Neighbours are taken from the whole gallery, whatever their identity and camera, but not the query itself.

    Attributes:
        neighbours: of each query, at least 1.
        power: of the similarity, 1 - the cosine distance, that weighs a neighbour; 0: all weigh like the query.
    """

    neighbours: int = 5
    power: float = 0.0

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.power < 0:
            raise SettingsError(
                f"query expansion with {self.neighbours} neighbours and power {self.power:g}",
                "at least 1 neighbour, and a power of 0 or more",
            )

    def __str__(self) -> str:
        return f"query expansion ({self.neighbours} neighbours, power {self.power:g})"

    def apply(self, distances: np.ndarray, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """New distances between queries and gallery.

        Args:
            distances: float32 (N, N), symmetric.
            queries, gallery: int64 (Q,) and (G,), rows of `distances`.

        Returns:
            float32 (Q, G), not negative.

        Raises:
            SettingsError: a gallery of no more tracklets than neighbours.
        """
        if len(gallery) <= self.neighbours:
            raise SettingsError(
                f"{self.neighbours} neighbours in a gallery of {len(gallery)}", "fewer neighbours than tracklets"
            )
        result = np.empty((len(queries), len(gallery)), np.float32)
        for place, query in enumerate(queries):
            near = distances[query, gallery].astype(np.float64)
            near[gallery == query] = np.inf
            chosen = gallery[nearest(near[None], self.neighbours)[0]]
            weights = np.append(1.0, np.clip(1 - distances[query, chosen].astype(np.float64), 0, 1) ** self.power)
            weights /= weights.sum()
            members = np.append(query, chosen)
            among = distances[np.ix_(members, members)].astype(np.float64)
            mean = weights @ distances[members][:, gallery].astype(np.float64)
            result[place] = np.maximum(mean - weights @ among @ weights / 2, 0)
        return result
