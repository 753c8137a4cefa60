"""Distances against their definitions, whatever the blocks; what they refuse."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from keyreid.model.evaluation import distances as module
from keyreid.model.evaluation.distances import Rows, cosine_distances, squared_distances
from keyreid.pipeline.errors import KeyReIDError


def plain_squared(queries, gallery):
    return ((queries[:, None].astype(float) - gallery[None]) ** 2).sum(-1)


def plain_cosine(queries, gallery):
    return np.array([[1 - q @ g / np.sqrt((q @ q) * (g @ g)) for g in gallery] for q in queries.astype(float)])


DISTANCES = {"euclidean": (squared_distances, plain_squared), "cosine": (cosine_distances, plain_cosine)}


@pytest.mark.parametrize("at_once", [1, 4, 1024])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("name", DISTANCES)
def test_equal_the_definition_whatever_the_blocks(name, kind, at_once, monkeypatch):
    monkeypatch.setattr(module, "ROWS_AT_ONCE", at_once)
    fast, plain = DISTANCES[name]
    rng = np.random.default_rng(2)
    queries, gallery = rng.normal(size=(7, 12)).astype(kind), rng.normal(size=(9, 12)).astype(kind)
    found = fast(queries, gallery)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain(queries, gallery.astype(float)), rtol=1e-6)
    everything = fast(gallery, gallery)  # the same object: one half is computed
    np.testing.assert_allclose(everything, plain(gallery, gallery.astype(float)), rtol=1e-6, atol=1e-12)
    assert np.array_equal(everything, everything.T)


@pytest.mark.parametrize("name", DISTANCES)
def test_rows_and_columns_are_read_where_they_lie(name, tmp_path):
    fast, plain = DISTANCES[name]
    values = np.random.default_rng(3).normal(size=(10, 8)).astype(np.float16)
    queries, gallery, columns = np.array([1, 4, 7]), np.array([0, 2, 3, 9]), slice(2, 7)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["values"] = values
        found = fast(Rows(file["values"], queries, columns), Rows(file["values"], gallery, columns))
    expected = plain(values[queries, columns], values[gallery, columns].astype(float))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_squared_distances_keep_near_neighbours_apart_far_from_the_origin():
    """Where a float32 product would lose every digit of the difference."""
    gallery = np.full((3, 4), 1000, np.float32)
    gallery[1] += 0.25
    gallery[2] += 0.5
    np.testing.assert_allclose(squared_distances(gallery[:1], gallery), [[0, 0.25, 1]])


def test_cosine_does_not_see_the_length():
    query = np.array([[1, 2, 3]], np.float32)
    np.testing.assert_allclose(
        cosine_distances(query, np.concatenate([query, 5 * query, -query])), [[0, 0, 2]], atol=1e-7
    )


def test_descriptors_of_two_models_and_without_direction_are_refused():
    with pytest.raises(KeyReIDError, match=r"query descriptors of shape \(2, 3\) and gallery descriptors of shape"):
        squared_distances(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(KeyReIDError, match="all 0 has no direction"):
        cosine_distances(np.ones((2, 3)), np.zeros((2, 3)))
