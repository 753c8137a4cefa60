"""Metrics against a plain per-query loop, and the messages of bad input."""

from __future__ import annotations

import numpy as np
import pytest

from keyreid.model.evaluation.metrics import RankMetrics, kept_ranking, rank_metrics
from keyreid.pipeline.errors import KeyReIDError


def published_average_precision(hits):
    """MARS's MATLAB code (compute_AP.m), entry by entry: trapezoids under precision over recall, from (0, 1) on."""
    area, recall, precision, found = 0.0, 0.0, 1.0, 0
    for place, hit in enumerate(hits):
        found += hit
        now = found / sum(hits), found / (place + 1)
        area += (now[0] - recall) * (precision + now[1]) / 2
        recall, precision = now
    return area


def brute_force(distances, query_ids, gallery_ids, query_cameras, gallery_cameras, max_rank, trapezoid):
    """The definition, one query and one gallery entry at a time; at equal distance wrong entries come first."""
    firsts, precisions, penalties, found = [], [], [], []
    for query in range(len(query_ids)):
        entries = [
            (distances[query][entry], gallery_ids[entry] == query_ids[query])
            for entry in range(len(gallery_ids))
            if not (gallery_ids[entry] == query_ids[query] and gallery_cameras[entry] == query_cameras[query])
        ]
        hits = [bool(hit) for _, hit in sorted(entries)]
        ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
        if not ranks:
            found.append((0, float("nan"), float("nan"), 0))
            continue
        firsts.append(ranks[0])
        plain = sum((n + 1) / rank for n, rank in enumerate(ranks)) / len(ranks)
        precisions.append(published_average_precision(hits) if trapezoid else plain)
        penalties.append(len(ranks) / ranks[-1])
        found.append((len(ranks), precisions[-1], penalties[-1], ranks[0]))
    if not firsts:
        return None
    length = min(max_rank, len(gallery_ids))
    cmc = [sum(first <= k for first in firsts) / len(firsts) for k in range(1, length + 1)]
    return np.array(cmc), np.mean(precisions), np.mean(penalties), np.array(found)


def assert_equals_plain_loop(case, max_rank=10, trapezoid=False) -> bool:
    """Whether there was anything to compare: a case without any match is refused."""
    expected = brute_force(*case, max_rank, trapezoid)
    if expected is None:
        with pytest.raises(KeyReIDError, match="has a match in the gallery"):
            rank_metrics(*case, max_rank=max_rank)
        return False
    found = rank_metrics(*case, max_rank=max_rank, trapezoid=trapezoid)
    cmc, precision, penalty, queries = expected
    np.testing.assert_allclose(found.cmc, cmc, atol=1e-12)
    np.testing.assert_allclose([found.mAP, found.mINP], [precision, penalty], atol=1e-12)
    each = found.num_matches, found.average_precision, found.inverse_negative_penalty, found.first_match
    np.testing.assert_allclose(np.array(each).T, queries, atol=1e-12)
    assert (found.num_valid_queries, found.num_queries) == ((queries[:, 0] > 0).sum(), len(case[1]))
    return True


@pytest.mark.parametrize(
    ("pairs", "rows", "counted"),
    [(1 << 20, 512, 64), (7, 512, 64), (1 << 20, 3, 1), (1, 1, 0)],
    ids=["one block", "few pairs", "few rows, some sorted", "one query at a time, sorted"],
)
@pytest.mark.parametrize("trapezoid", [False, True], ids=["plain", "trapezoid"])
def test_random_cases_equal_the_plain_loop(pairs, rows, counted, trapezoid, monkeypatch):
    monkeypatch.setattr("keyreid.model.evaluation.pairs.PAIRS_AT_ONCE", pairs)
    monkeypatch.setattr("keyreid.model.evaluation.pairs.ROWS_AT_ONCE", rows)
    monkeypatch.setattr("keyreid.model.evaluation.metrics.COUNTED_MATCHES", counted)
    rng = np.random.default_rng(0)
    assert sum(assert_equals_plain_loop(random_case(rng), trapezoid=trapezoid) for _ in range(250)) > 170


ADVERSARIAL = {
    "all distances equal": (np.zeros((3, 6)), [1, 2, 1], [1, 1, 2, 2, 3, 0], [1, 1, 2], [1, 2, 2, 1, 1, 2]),
    "one gallery entry, a match": (np.ones((1, 1)), [1], [1], [1], [2]),
    "one gallery entry for a match and a stranger": (np.ones((2, 1)), [1, 2], [1], [1, 1], [2]),
    "duplicates of match and stranger": (np.array([[1, 1, 2, 1, 1, 2.0]]), [1], [1, 1, 1, 2, 2, 2], [1], [2] * 6),
    "nothing but matches": (np.array([[3, 1, 2.0]]), [1], [1, 1, 1], [1], [2, 3, 2]),
    "every match removed but the farthest": (np.array([[0, 0, 9, 5.0]]), [1], [1, 1, 1, 2], [1], [1, 1, 2, 1]),
    "negative and huge distances": (np.array([[-1e300, 1e300, 0.0]]), [1], [2, 1, 1], [1], [2, 2, 2]),
    "float16": (np.array([[1, 2, 2]], np.float16), [1], [1, 2, 1], [1], [2, 2, 2]),
    "no match at all": (np.zeros((1, 2)), [1], [2, 3], [1], [1, 1]),
}  # fmt: skip


@pytest.mark.parametrize("trapezoid", [False, True], ids=["plain", "trapezoid"])
@pytest.mark.parametrize("case", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_adversarial_cases_equal_the_plain_loop(case, trapezoid):
    assert_equals_plain_loop(tuple(map(np.asarray, case)), trapezoid=trapezoid)


def random_case(rng: np.random.Generator):
    """Few identities and cameras, coarse distances (ties), distractors of identity 0."""
    num_queries, num_gallery = int(rng.integers(1, 20)), int(rng.integers(1, 40))
    distances = rng.integers(0, rng.integers(1, 30), (num_queries, num_gallery)).astype(np.float32)
    query_ids, gallery_ids = rng.integers(1, 6, num_queries), rng.integers(0, 6, num_gallery)
    return distances, query_ids, gallery_ids, rng.integers(1, 4, num_queries), rng.integers(1, 4, num_gallery)


def test_flags_are_counted_where_bytes_would_overflow():
    """300 words of eight flags, all true: more than the 255 that a byte can count."""
    near = np.arange(2400, dtype=np.float32)[None]
    metrics = rank_metrics(near, [1], np.append(np.zeros(2399), 1), [1], np.full(2400, 2))
    assert metrics.first_match.tolist() == [2400]


def one_query(distances, gallery_ids, gallery_cameras) -> RankMetrics:
    """Query of identity 7 under camera 1."""
    return rank_metrics(np.array([distances]), [7], gallery_ids, [1], gallery_cameras)


def test_worked_example_by_hand():
    # Nearest is the query's own camera (removed), then wrong, right, wrong, right: ranks 2 and 4.
    metrics = one_query([0, 1, 2, 3, 4], [7, 3, 7, 0, 7], [1, 2, 2, 1, 3])
    assert metrics.cmc.tolist() == [0, 1, 1, 1, 1]
    assert metrics.mAP == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert metrics.mINP == pytest.approx(2 / 4)
    assert metrics.first_match.tolist() == [2]
    assert metrics.rank(1) == 0 and metrics.rank(20) == 1


@pytest.mark.parametrize("gallery_ids", [[7, 3, 3], [3, 7, 3], [3, 3, 7]], ids=["first", "second", "third"])
def test_ties_count_against_the_query_whatever_the_order_of_the_gallery(gallery_ids):
    assert one_query([5, 5, 5], gallery_ids, [2, 2, 2]).first_match.tolist() == [3]


def test_distractors_never_match_and_count_as_wrong():
    metrics = one_query([0, 1, 2], [0, 0, 7], [1, 2, 3])
    assert metrics.first_match.tolist() == [3]


def test_a_query_without_a_match_is_skipped_and_counted():
    metrics = rank_metrics(np.array([[0.0, 1.0], [0.0, 1.0]]), [7, 8], [7, 8], [1, 2], [2, 2])
    assert (metrics.num_queries, metrics.num_valid_queries) == (2, 1)
    assert np.isnan(metrics.average_precision[1]) and metrics.first_match.tolist() == [1, 0]
    assert metrics.mAP == 1


def test_camera_ids_repeated_for_each_frame_are_refused():
    """The misalignment of docs/evaluation.md cannot happen: four frames a tracklet give four times the cameras."""
    cameras = np.repeat([1, 2, 3], 4)
    with pytest.raises(KeyReIDError, match="12 gallery cameras for 3 columns of distances; expected 3, one for each"):
        rank_metrics(np.zeros((2, 3)), [1, 2], [1, 2, 3], [1, 1], cameras)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_ids": [1]}, "1 query identities for 2 rows of distances; expected 2, one for each query tracklet"),
        ({"query_cameras": [1, 1, 1]}, "3 query cameras for 2 rows"),
        ({"gallery_ids": [1]}, "1 gallery identities for 2 columns"),
        ({"gallery_ids": [[1], [2]]}, r"an array of shape \(2, 1\) as gallery identities for 2 columns"),
        ({"distances": np.zeros(4)}, r"distances of shape \(4,\); expected \(queries, gallery tracklets\)"),
        ({"distances": np.zeros((2, 0)), "gallery_ids": [], "gallery_cameras": []}, r"shape \(2, 0\).*neither of them"),
        ({"distances": np.array([[0, 1], [0, np.nan]])}, "1 of 4 distances are NaN or infinite .first: query 1, gall"),
        ({"distances": np.array([[0, np.inf], [0, 1]])}, "1 of 4 distances are NaN or infinite .first: query 0, gall"),
        ({"gallery_ids": [8, 9]}, "none of the 2 queries has a match in the gallery in another camera"),
        ({"gallery_cameras": [1, 1]}, "none of the 2 queries has a match"),
        ({"max_rank": 0}, "max_rank 0; expected 1 or more"),
    ],
)
def test_bad_input_is_refused_with_what_was_found(changes, message):
    good = {
        "distances": np.zeros((2, 2)),
        "query_ids": [1, 2],
        "gallery_ids": [1, 2],
        "query_cameras": [1, 1],
        "gallery_cameras": [2, 2],
    }
    assert rank_metrics(**good).num_valid_queries == 2
    with pytest.raises(KeyReIDError, match=message):
        rank_metrics(**{**good, **changes})


def test_rank_zero_is_refused():
    with pytest.raises(KeyReIDError, match="Rank-0; expected a rank of 1 or more"):
        one_query([0], [7], [2]).rank(0)


def test_kept_ranking_is_what_the_metrics_ranked():
    rng = np.random.default_rng(1)
    for _ in range(50):
        distances, query_ids, gallery_ids, query_cameras, gallery_cameras = random_case(rng)
        try:
            metrics = rank_metrics(distances, query_ids, gallery_ids, query_cameras, gallery_cameras)
        except KeyReIDError:
            continue
        for query, first in enumerate(metrics.first_match):
            order = kept_ranking(distances[query], query_ids[query], query_cameras[query], gallery_ids, gallery_cameras)
            row, cameras = distances[query], query_cameras[query]
            for count in (1, 3, len(gallery_ids)):
                found = kept_ranking(row, query_ids[query], cameras, gallery_ids, gallery_cameras, count)
                assert np.array_equal(found, order[:count])
            hits = np.flatnonzero(gallery_ids[order] == query_ids[query])
            assert first == (hits[0] + 1 if len(hits) else 0)
