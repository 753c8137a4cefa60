"""Pairs of tracklets that could be taken for one person: their distances, those of one person apart from the others.

Letters: K tracklets, n pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.errors import KeyReIDError

from ..embedding.descriptors import TrackletDescriptors
from ..evaluation.comparison import Comparison, distances_between

ROWS_AT_ONCE = 512
DISTRACTOR = 0  # MARS's identity for many people: two of its tracklets may be of one person or not


@dataclass(frozen=True)
class Pairs:
    """Pairs of two tracklets, each pair once.

    Attributes:
        matching: float32 (n,), distances of all pairs of one person.
        matching_person: int64 (n,), number of that person, see PairCounts.
        wrong: float32 (n,), the smallest distances of pairs of two people, ascending.
        wrong_people: int64 (n, 2), their numbers.
        counts: how many wrong pairs there are.
    """

    matching: np.ndarray
    matching_person: np.ndarray
    wrong: np.ndarray
    wrong_people: np.ndarray
    counts: PairCounts


@dataclass(frozen=True)
class PairCounts:
    """Counts wrong pairs where people count more than once, without walking over the pairs.

    Attributes:
        people: int64 (K,), number of each tracklet's person; each distractor tracklet is a person of its own.
        identities: int64 (K,), as labelled.
        cameras: int64 (K,): pairs of one camera do not count. A number for each tracklet makes all pairs count.
    """

    people: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray

    @classmethod
    def of(cls, descriptors: TrackletDescriptors, across_cameras: bool) -> PairCounts:
        """Of all tracklets; with `across_cameras` pairs of one camera do not count."""
        identities, places = descriptors.identities, np.arange(len(descriptors.identities))
        own = np.where(identities == DISTRACTOR, identities.max(initial=0) + 1 + places, identities)
        people = np.unique(own, return_inverse=True)[1].reshape(-1)
        return cls(people, identities, descriptors.cameras if across_cameras else places)

    @property
    def num_people(self) -> int:
        return int(self.people.max(initial=-1)) + 1

    def wrong(self, times: np.ndarray) -> float:
        """Wrong pairs where each person counts `times`, float64 (num_people,): a pair counts their product."""
        weights = times[self.people]
        everybody, each = (
            sum((np.bincount(part, weights) ** 2).sum() * sign for part, sign in zip(parts, (1, -1), strict=True))
            for parts in self._parts
        )
        return float(everybody - each) / 2

    @cached_property
    def _parts(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """For all tracklets, and for those of each identity: number of the group, and of the group's camera.

        The sum of products over the pairs of a group and two cameras is half of its sum squared less those of its
        cameras.
        """
        found = []
        for group in (np.zeros_like(self.identities), self.identities):
            both = np.column_stack([group, self.cameras])
            numbers = np.unique(group, return_inverse=True)[1], np.unique(both, axis=0, return_inverse=True)[1]
            found.append((numbers[0].reshape(-1), numbers[1].reshape(-1)))
        return tuple(found)


def find_pairs(
    descriptors: TrackletDescriptors,
    comparison: Comparison,
    *,
    across_cameras: bool,
    keep: int,
    device: torch.device | str = "cpu",
) -> Pairs:
    """All matching pairs, and the `keep` nearest wrong ones; memory holds a few times `keep` pairs.

    Raises:
        KeyReIDError: distances that are NaN or infinite.
    """
    counts = PairCounts.of(descriptors, across_cameras)
    rows = np.arange(len(descriptors.identities))
    matching, matching_person = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    wrong: np.ndarray = np.zeros(0, np.float32)
    wrong_people: np.ndarray = np.zeros((0, 2), np.int64)
    with progress_bar(len(rows), "pairs", "tracklets") as bar:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            block = rows[start : start + ROWS_AT_ONCE]
            distances = distances_between(descriptors, block, rows[start:], comparison, device)
            if not np.isfinite(distances).all():
                raise KeyReIDError(
                    "distances that are NaN or infinite", "finite numbers", "embed again, with a sound network"
                )
            first, second = np.nonzero(np.triu(counts.cameras[block][:, None] != counts.cameras[rows[start:]], k=1))
            distances, first, second = distances[first, second], first + start, second + start
            same = counts.identities[first] == counts.identities[second]
            known = counts.identities[first] != DISTRACTOR
            matching.append(distances[same & known])
            matching_person.append(counts.people[first[same & known]])
            wrong = np.concatenate([wrong, distances[~same]])
            people = np.column_stack([counts.people[first[~same]], counts.people[second[~same]]])
            wrong_people = np.concatenate([wrong_people, people])
            if len(wrong) > keep:
                nearest = np.argpartition(wrong, keep - 1)[:keep]
                wrong, wrong_people = wrong[nearest], wrong_people[nearest]
            bar.update(len(block))
    order = np.argsort(wrong, kind="stable")
    return Pairs(np.concatenate(matching), np.concatenate(matching_person), wrong[order], wrong_people[order], counts)
