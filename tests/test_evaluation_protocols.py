"""Which tracklets each protocol ranks."""

from __future__ import annotations

import numpy as np
import pytest

from keyreid.model.evaluation.metrics import rank_metrics
from keyreid.model.evaluation.protocols import PROTOCOLS, find_protocol
from keyreid.pipeline.errors import SettingsError, SourceError
from keyreid.pipeline.records import Tracklet


def tracklets(*rows: tuple[str, int, int]) -> tuple[Tracklet, ...]:
    """From (split, identity, camera)."""
    return tuple(
        Tracklet(i, split, identity, camera, 0, ("a.jpg",)) for i, (split, identity, camera) in enumerate(rows)
    )


# Identity 2 has no gallery tracklet under another camera, but two queries of different cameras.
DATASET = tracklets(
    ("train", 9, 1), ("query", 1, 1), ("gallery", 1, 2), ("query", 2, 1), ("query", 2, 2), ("gallery", 0, 3),
)  # fmt: skip


def ids(side: tuple[Tracklet, ...]) -> list[int]:
    return [tracklet.tracklet_id for tracklet in side]


def valid_queries(name: str) -> int:
    selection = find_protocol(name).select(DATASET)
    (query_ids, query_cameras), (gallery_ids, gallery_cameras) = (
        np.array([(t.identity, t.camera) for t in side]).T for side in (selection.queries, selection.gallery)
    )
    distances = np.zeros((len(query_ids), len(gallery_ids)))
    return rank_metrics(distances, query_ids, gallery_ids, query_cameras, gallery_cameras).num_valid_queries


def test_standard_ranks_the_gallery_alone_and_skips_queries_without_a_match():
    selection = find_protocol("standard").select(DATASET)
    assert (ids(selection.queries), ids(selection.gallery)) == ([1, 3, 4], [2, 5])
    assert valid_queries("standard") == 1


def test_mars_official_puts_the_queries_into_the_gallery_so_that_all_count():
    selection = find_protocol("mars-official").select(DATASET)
    assert (ids(selection.queries), ids(selection.gallery)) == ([1, 3, 4], [1, 2, 3, 4, 5])
    assert valid_queries("mars-official") == 3


def test_a_tracklet_on_both_sides_is_described_once():
    assert ids(find_protocol("mars-official").select(DATASET).tracklets) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_order_is_that_of_the_tracklet_ids(name):
    assert find_protocol(name).select(DATASET[::-1]) == find_protocol(name).select(DATASET)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("query", "no query tracklets with readable frames; expected at least one .protocol standard.; give it"),
        ("gallery", "no gallery tracklets with readable frames; expected at least one .protocol standard."),
    ],
)
def test_a_missing_side_is_refused(left_out, message):
    with pytest.raises(SourceError, match=message):
        find_protocol("standard").select([t for t in DATASET if t.split != left_out])


def test_an_unknown_name_is_refused_with_the_nearest():
    message = "unknown protocol 'mars-oficial'; expected one of standard, mars-official, .* did you mean mars-official?"
    with pytest.raises(SettingsError, match=message):
        find_protocol("mars-oficial")
