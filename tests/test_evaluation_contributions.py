"""Contributions of the features sum to the distance that rankings use."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_dataset import make_prepared, tiny_model

from keyreid.model.embedding.descriptors import TrackletDescriptors
from keyreid.model.embedding.tracklets import embed_tracklets
from keyreid.model.evaluation.distances import FEATURES, contributions, distances_between
from keyreid.model.evaluation.reranking import DISTANCES, Comparison
from keyreid.pipeline.store import TrackletStore

NETWORKS = [{}, {"part_pooling": "average"}, {"variant": "reference"}]
CASES = [(d, f) for d in DISTANCES for f in NETWORKS if d != "visible-parts" or "variant" not in f]


@pytest.mark.parametrize(("distance", "fields"), CASES, ids=str)
def test_they_sum_to_the_distance(distance, fields, tmp_path):
    store = TrackletStore(make_prepared(tmp_path))
    model = tiny_model(**fields)
    descriptors = embed_tracklets(model, store, store.tracklets("query"), batch_size=4, fingerprint="")
    if descriptors.visibility.shape[1]:
        descriptors.visibility[1, 2] = 0.3
        descriptors.visibility[0, 4] = 0
    left, right = np.array([0, 1]), np.array([1, 2, 3])
    expected = distances_between(descriptors, left, right, Comparison(distance))
    for row, column in np.ndindex(2, 3):
        found = contributions(descriptors, left[row], right[column], distance)
        assert len(found.values) == len(FEATURES) and found.values.min() >= 0
        assert found.total == pytest.approx(expected[row, column], rel=1e-4)


def descriptors_of(visibility: list[list[float]]) -> TrackletDescriptors:
    values = np.array([[0.0] * 7, [1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0]], np.float32)
    ones = np.ones(2, np.int64)
    widths, weights = np.ones(7, np.int64), np.ones(7)
    return TrackletDescriptors(
        values, np.array(visibility), ones, ones, ones, np.array(["gallery"] * len(ones)), widths, weights, ""
    )


def test_a_feature_adds_what_its_own_numbers_differ_by():
    found = contributions(descriptors_of([[1.0] * 6] * 2), 0, 1, "euclidean")
    assert found.values.tolist() == [1, 4, 9, 0, 0, 0, 1] and found.seen.tolist() == [1] * 7


def test_an_unseen_part_adds_nothing_where_parts_must_be_visible():
    visibility = [[1.0, 0.0, 1.0, 1.0, 1.0, 0.5], [1.0] * 6]
    found = contributions(descriptors_of(visibility), 0, 1, "visible-parts")
    assert found.seen.tolist() == [1, 1, 0, 1, 1, 1, 0.5]
    assert found.values == pytest.approx(np.array([1, 4, 0, 0, 0, 0, 0.5]) * 7 / 5.5)
    assert contributions(descriptors_of(visibility), 0, 1, "euclidean").values[2] == 9
