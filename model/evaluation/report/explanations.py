"""For a few queries: what the network looked at, and which parts decided between the right and the wrong answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ...embedding.descriptors import TrackletDescriptors
from ...embedding.settings import PLAIN, EmbeddingSettings
from ...embedding.tracklets import embed_tracklets
from ...network.keyreid import KeyReID
from ..distances import FEATURES, Contributions, contributions
from ..measurement import Measurement
from .clip_maps import ClipMaps, clip_maps

BATCH_SIZE = 16


@dataclass(frozen=True)
class Answer:
    """A gallery tracklet that a query was compared with.

    Attributes:
        tracklet: which.
        is_match: whether it is the query's person.
        rank: in the query's ranking, from 1.
        distance: as it was ranked.
        contributions: of the features, before any re-ranking.
        maps: of one of its clips.
    """

    tracklet: Tracklet
    is_match: bool
    rank: int
    distance: float
    contributions: Contributions
    maps: ClipMaps


@dataclass(frozen=True)
class Explanation:
    """One query with its nearest match and its nearest wrong tracklet.

    Attributes:
        query: the tracklet.
        position: of the query in the selection.
        visibility: float (P,) in [0, 1], how much of each part its clips show; empty where the network does not say.
        maps: of one of its clips.
        answers: the nearest match, and the nearest wrong tracklet where the gallery has one.
    """

    query: Tracklet
    position: int
    visibility: np.ndarray
    maps: ClipMaps
    answers: tuple[Answer, ...]

    def verdict(self) -> str:
        """Which features decided, in a sentence."""
        if len(self.answers) < 2:
            return "The gallery has nobody else."
        right, wrong = (answer.contributions.values for answer in self.answers)
        margin = wrong - right
        if not margin.any():
            return "Both are equally near, in every feature."
        wins = margin.sum() > 0
        speaking = _named(margin if wins else -margin)
        against = _named(-margin if wins else margin)
        winner, other = ("right", "wrong") if wins else ("wrong", "right")
        text = f"The {winner} one is nearer by {abs(margin.sum()):.3g}. For it speak {_listed(speaking)}"
        return text + (f"; for the {other} one {_listed(against)}." if against else ".")


def explain(
    model: KeyReID,
    store: TrackletStore,
    measurement: Measurement,
    queries: Sequence[int],
    settings: EmbeddingSettings = PLAIN,
) -> list[Explanation]:
    """Embed the queries and their nearest answers again, a few tracklets, and take the distances apart.

    Args:
        model: the network that `measurement` is of, in eval mode.
        store: where frames and heatmaps are.
        measurement: says which answers are nearest.
        queries: positions of queries that have a match.
        settings: as `measurement` was made.
    """
    selection = measurement.selection
    nearest = [_nearest(measurement, query) for query in queries]
    wanted = {selection.queries[query] for query in queries}
    wanted |= {selection.gallery[entry] for answers in nearest for entry, _ in answers}
    tracklets = sorted(wanted, key=lambda tracklet: tracklet.tracklet_id)
    descriptors = embed_tracklets(
        model, store, tracklets, batch_size=BATCH_SIZE, fingerprint="", label="embed (shown)", settings=settings
    )
    maps = {}
    with progress_bar(len(tracklets), "attention", "tracklets") as bar:
        for tracklet in tracklets:
            maps[tracklet.tracklet_id] = clip_maps(model, store, tracklet, settings.cameras)
            bar.update()
    found = []
    for query, answers in zip(queries, nearest, strict=True):
        tracklet = selection.queries[query]
        row = descriptors.rows([tracklet])[0]
        compared = tuple(_answer(descriptors, measurement, query, entry, rank, maps) for entry, rank in answers)
        found.append(Explanation(tracklet, query, descriptors.visibility[row], maps[tracklet.tracklet_id], compared))
    return found


def _nearest(measurement: Measurement, query: int) -> list[tuple[int, int]]:
    """Gallery position and rank of the nearest match and of the nearest wrong tracklet."""
    ranking = measurement.nearest(query)
    is_match = measurement.ranking.gallery_ids[ranking] == measurement.ranking.query_ids[query]
    places = [np.flatnonzero(kind)[:1] for kind in (is_match, ~is_match)]
    return [(int(ranking[place]), int(place) + 1) for found in places for place in found]


def _answer(
    descriptors: TrackletDescriptors,
    measurement: Measurement,
    query: int,
    entry: int,
    rank: int,
    maps: dict[int, ClipMaps],
) -> Answer:
    asked, tracklet = measurement.selection.queries[query], measurement.selection.gallery[entry]
    left, right = descriptors.rows([asked, tracklet])
    return Answer(
        tracklet,
        tracklet.identity == asked.identity,
        rank,
        float(measurement.distances[query, entry]),
        contributions(descriptors, left, right, measurement.comparison.distance),
        maps[tracklet.tracklet_id],
    )


def _named(margin: np.ndarray, count: int = 3) -> list[str]:
    order = [place for place in np.argsort(-margin, kind="stable")[:count] if margin[place] > 0]
    return [f"{FEATURES[place]} ({margin[place]:.3g})" for place in order]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
