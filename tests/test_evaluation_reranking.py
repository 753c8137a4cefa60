"""Re-ranking against the published dense algorithm."""

from __future__ import annotations

import numpy as np
import pytest
from oracle_reranking import dense_reranking

from keyreid.model.embedding.descriptors import TrackletDescriptors
from keyreid.model.evaluation import reranking
from keyreid.model.evaluation.distances import distances_between, squared_distances
from keyreid.model.evaluation.metrics import rank_metrics
from keyreid.model.evaluation.reranking import Comparison, KReciprocal, nearest
from keyreid.pipeline.errors import SettingsError


def people(num_tracklets: int = 90, seed: int = 0, decimals: int | None = None) -> np.ndarray:
    """Descriptors in clusters of about six; few decimals make duplicates and ties."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_tracklets // 6, 8))
    values = centres[rng.integers(0, len(centres), num_tracklets)] + 0.5 * rng.normal(size=(num_tracklets, 8))
    return (values if decimals is None else values.round(decimals)).astype(np.float32)


def sides(num_tracklets: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(1).permutation(num_tracklets)
    return order[: num_tracklets // 3], order[num_tracklets // 3 :]


SETTINGS = [(20, 6, 0.3), (20, 1, 0.3), (5, 3, 0.0), (7, 2, 0.9), (1, 1, 0.5), (3, 12, 0.3), (89, 6, 0.3)]


@pytest.mark.parametrize("at_once", [7, 256])
@pytest.mark.parametrize(("k1", "k2", "share"), SETTINGS)
def test_equals_the_published_dense_algorithm(
    k1: int, k2: int, share: float, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reranking, "ROWS_AT_ONCE", at_once)
    values = people()
    distances = squared_distances(values, values)
    queries, gallery = sides(len(distances))
    found = KReciprocal(k1, k2, share).apply(distances, queries, gallery)
    expected = dense_reranking(distances.astype(np.float64), queries, gallery, k1, k2, share)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if share < 0.5:
        assert np.abs(found - distances[np.ix_(queries, gallery)] / distances[queries].max(1)[:, None]).max() > 0.1


@pytest.mark.parametrize(
    "values",
    [people(60, 2, decimals=0), np.repeat(people(12, 3), 5, axis=0), np.ones((30, 4), np.float32)],
    ids=["ties", "each five times", "all the same"],
)
def test_equals_it_where_distances_are_equal(values: np.ndarray) -> None:
    distances = squared_distances(values, values)
    queries, gallery = sides(len(distances))
    found = KReciprocal(8, 3, 0.3).apply(distances, queries, gallery)
    np.testing.assert_allclose(found, dense_reranking(distances.astype(float), queries, gallery, 8, 3, 0.3), atol=1e-6)


def test_matches_come_earlier_through_common_neighbours() -> None:
    """What it is for. Each person lies along a line, so that its ends are farther apart than from strangers."""
    rng = np.random.default_rng(5)
    labels, rows = np.repeat(np.arange(12), 10), np.arange(120)
    along = np.tile(np.linspace(-2, 2, 10), 12)[:, None] * rng.normal(size=(12, 8))[labels]
    values = (2 * rng.normal(size=(12, 8))[labels] + along + 0.1 * rng.normal(size=(120, 8))).astype(np.float32)
    distances = squared_distances(values, values)
    reranked = KReciprocal(6, 3).apply(distances, rows, rows)
    before, after = (rank_metrics(d, labels, labels, rows, rows).mAP for d in (distances, reranked))
    assert after > before + 0.05


@pytest.mark.parametrize("count", [1, 4, 30])
@pytest.mark.parametrize("levels", [1, 3, 10**6])
def test_the_nearest_are_a_stable_sort_cut_off(count: int, levels: int) -> None:
    distances = np.random.default_rng(6).integers(0, levels, (20, 30)).astype(np.float32)
    assert np.array_equal(nearest(distances, count), np.argsort(distances, axis=1, kind="stable")[:, :count])


def described(values: np.ndarray) -> TrackletDescriptors:
    numbers = np.arange(len(values))
    none = np.zeros((len(values), 0), np.float32)
    return TrackletDescriptors(
        values, none, numbers, numbers, numbers, numbers.astype(str), np.array([values.shape[1]]), np.ones(1), "test"
    )  # fmt: skip


def test_a_tracklet_on_both_sides_counts_once() -> None:
    """As under mars-official: the queries are in the gallery, and still one row among all."""
    values = people(40)
    queries, gallery = np.array([30, 3, 17]), np.arange(5, 40)
    found = distances_between(described(values), queries, gallery, Comparison("euclidean", KReciprocal(6, 3)))
    rows = np.array([3, *range(5, 40)])
    among = squared_distances(values[rows], values[rows])
    expected = KReciprocal(6, 3).apply(among, np.searchsorted(rows, queries), np.searchsorted(rows, gallery))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_names_hold_every_number() -> None:
    assert Comparison().reranking_name == "none"
    assert Comparison("cosine", KReciprocal()).reranking_name == "k-reciprocal (k1=20, k2=6, lambda=0.3)"


def test_settings_that_mean_nothing_are_refused() -> None:
    ones, rows = np.ones((5, 5), np.float32), np.arange(5)
    with pytest.raises(SettingsError, match=r"k1=20, k2=6 among 5 tracklets; expected at least 21 tracklets"):
        KReciprocal().apply(ones, rows, rows)
    for wrong in ({"k1": 0}, {"k2": 0}, {"share": 1.5}):
        with pytest.raises(SettingsError, match="k1 and k2 of at least 1 and lambda between 0 and 1"):
            KReciprocal(**wrong)
