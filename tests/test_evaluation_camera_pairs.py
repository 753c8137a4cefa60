"""Histograms and camera pairs, against loops over every query and every pair."""

from __future__ import annotations

import numpy as np
import pytest

from keyreid.model.evaluation import pairs
from keyreid.model.evaluation.pairs import Ranking
from keyreid.model.evaluation.report.plots import NUM_BINS, camera_pairs, distance_histogram


def random_ranking(seed: int, ties: bool = False) -> Ranking:
    generator = np.random.default_rng(seed)
    distances = generator.random((23, 41)).astype(np.float32)
    sides = ((generator.integers(0, 5, n), generator.integers(1, 5, n)) for n in distances.shape)
    (query_ids, query_cameras), (gallery_ids, gallery_cameras) = sides
    return Ranking(distances.round(1) if ties else distances, query_ids, gallery_ids, query_cameras, gallery_cameras)


def plain_camera_pairs(ranking: Ranking) -> dict[tuple[int, int], list[bool]]:
    """Whether each query that has a match under a gallery camera finds it first there."""
    results: dict[tuple[int, int], list[bool]] = {}
    for query, (identity, camera) in enumerate(zip(ranking.query_ids, ranking.query_cameras, strict=True)):
        for other in set(ranking.gallery_cameras.tolist()) - {camera}:
            matches, wrong = [], [np.inf]
            for entry in np.flatnonzero(ranking.gallery_cameras == other):
                right = ranking.gallery_ids[entry] == identity
                (matches if right else wrong).append(ranking.distances[query, entry])
            if matches:
                results.setdefault((int(camera), int(other)), []).append(min(matches) < min(wrong))
    return results


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [False, True])
def test_camera_pairs_are_those_of_a_loop_over_queries(seed, ties, monkeypatch):
    monkeypatch.setattr(pairs, "ROWS_AT_ONCE", 7)  # several blocks
    ranking = random_ranking(seed, ties)
    matrix, expected = camera_pairs(ranking), plain_camera_pairs(ranking)
    for row, camera in enumerate(matrix.query_cameras):
        for column, other in enumerate(matrix.gallery_cameras):
            answers = expected.get((int(camera), int(other)), [])
            assert (matrix.queries[row, column], matrix.found[row, column]) == (len(answers), sum(answers))
    assert 0 < matrix.found.sum() < matrix.queries.sum()


def test_the_own_camera_has_no_rank():
    matrix = camera_pairs(random_ranking(0))
    same = matrix.query_cameras[:, None] == matrix.gallery_cameras
    assert np.isnan(matrix.rank1[same]).all() and np.isfinite(matrix.rank1[~same]).all()


def test_equal_distances_find_nobody():
    ranking = Ranking(np.zeros((1, 2)), [1], [1, 2], [1], [2, 2])
    assert camera_pairs(ranking).found.tolist() == [[0]] and camera_pairs(ranking).queries.tolist() == [[1]]


def test_a_camera_of_matches_alone_finds_them():
    ranking = Ranking(np.zeros((1, 2)), [1], [1, 2], [1], [2, 3])
    assert camera_pairs(ranking).found.tolist() == [[1, 0]]


@pytest.mark.parametrize("seed", range(2))
def test_histograms_count_every_pair_once_and_in_its_bin(seed, monkeypatch):
    monkeypatch.setattr(pairs, "ROWS_AT_ONCE", 5)
    ranking = random_ranking(seed)
    histogram = distance_histogram(ranking)
    kinds: dict[str, list[float]] = {"matches": [], "others": [], "same_camera": []}
    for (query, entry), distance in np.ndenumerate(ranking.distances):
        same_person = ranking.query_ids[query] == ranking.gallery_ids[entry]
        same_camera = ranking.query_cameras[query] == ranking.gallery_cameras[entry]
        if same_person and same_camera:
            continue  # the protocol removes it
        kinds["matches" if same_person else "same_camera" if same_camera else "others"].append(float(distance))
    for name, values in kinds.items():
        assert values and np.array_equal(getattr(histogram, name), np.histogram(values, histogram.edges)[0])
        assert getattr(histogram, name).sum() == len(values)


def test_a_histogram_of_one_distance_has_bins():
    histogram = distance_histogram(Ranking(np.ones((1, 2)), [1], [1, 2], [1], [2, 2]))
    assert histogram.matches.tolist() == [1] + [0] * (NUM_BINS - 1) and np.diff(histogram.edges).min() > 0
