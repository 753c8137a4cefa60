"""The visibility-aware distance: against one pair, one part at a time, and its edges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from evaluation_dataset import make_prepared, save_tiny_model, tiny_model

from keyreid.cli.evaluate import main
from keyreid.model.embedding.descriptors import TrackletDescriptors
from keyreid.model.embedding.file import load_descriptors
from keyreid.model.embedding.tracklets import embed_tracklets
from keyreid.model.evaluation import distances as module
from keyreid.model.evaluation.distances import distances_between
from keyreid.model.evaluation.reranking import DISTANCES, PLAIN, Comparison
from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.store import TrackletStore

VISIBLE = Comparison("visible-parts")
QUERIES, GALLERY = np.array([5, 0, 2]), np.array([1, 3, 4, 6])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("prepared"))


def described(global_weight: float = 0.25, part_weight: float = 1 / 6, seed: int = 0) -> TrackletDescriptors:
    """Seven tracklets with a global feature of 5 numbers and six parts of 3, each at length 1."""
    generator = np.random.default_rng(seed)
    widths, weights = np.array([5, *[3] * 6]), np.array([global_weight, *[part_weight] * 6])
    features = [generator.normal(size=(7, width)) for width in widths]
    values = [w**0.5 * f / np.linalg.norm(f, axis=1, keepdims=True) for w, f in zip(weights, features, strict=True)]
    visibility = generator.random((7, 6)) * (generator.random((7, 6)) < 0.7)
    numbers = np.arange(7)
    return TrackletDescriptors(
        np.hstack(values),
        visibility,
        numbers,
        numbers,
        numbers,
        np.array(["gallery"] * len(numbers)),
        widths,
        weights,
        "test",
    )


def one_pair(d: TrackletDescriptors, query: int, entry: int) -> float:
    """sum(w) * sum(w v d) / sum(w v), feature by feature, with unweighted distances."""
    total = weight = 0.0
    start = 0
    for feature, (width, factor) in enumerate(zip(d.widths, d.weights, strict=True)):
        difference = d.values[query, start : start + width] - d.values[entry, start : start + width]
        distance = float((difference**2).sum()) / factor
        both = 1.0 if feature == 0 else float(d.visibility[query, feature - 1] * d.visibility[entry, feature - 1])
        total += factor * both * distance
        weight += factor * both
        start += width
    return float(d.weights.sum()) * total / weight


@pytest.mark.parametrize("at_once", [1, 2, 1024], ids=["row by row", "two rows", "one block"])
def test_is_the_weighted_mean_over_what_both_saw(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", at_once)
    d = described()
    found = distances_between(d, QUERIES, GALLERY, VISIBLE)
    expected = [[one_pair(d, query, entry) for entry in GALLERY] for query in QUERIES]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.abs(found - distances_between(d, QUERIES, GALLERY)).max() > 0.1


def test_is_the_plain_distance_where_everything_is_visible() -> None:
    d = replace(described(), visibility=np.ones((7, 6)))
    plain, visible = (distances_between(d, QUERIES, GALLERY, comparison) for comparison in (PLAIN, VISIBLE))
    np.testing.assert_allclose(visible, plain, rtol=1e-6)


@pytest.mark.parametrize("side", ["query", "gallery"])
def test_a_part_that_one_side_did_not_see_has_no_say(side: str) -> None:
    d = described()
    row = QUERIES[0] if side == "query" else GALLERY[0]
    visibility, values = d.visibility.copy(), d.values.copy()
    visibility[row, 2] = 0
    before = distances_between(replace(d, visibility=visibility), QUERIES, GALLERY, VISIBLE)
    values[row, 5 + 2 * 3 : 5 + 3 * 3] = 9
    changed = replace(d, visibility=visibility, values=values)
    assert np.array_equal(distances_between(changed, QUERIES, GALLERY, VISIBLE), before)
    assert not np.array_equal(distances_between(replace(d, values=values), QUERIES, GALLERY, VISIBLE), before)


def test_without_a_common_part_the_global_feature_decides() -> None:
    visibility = np.ones((7, 6))
    visibility[QUERIES, :3], visibility[GALLERY, 3:] = 0, 0
    d = replace(described(), visibility=visibility)
    alone = replace(d, values=d.values[:, :5], visibility=np.zeros((7, 0)), widths=d.widths[:1], weights=d.weights[:1])
    factor = d.weights.sum() / d.weights[0]
    found = distances_between(d, QUERIES, GALLERY, VISIBLE)
    np.testing.assert_allclose(found, factor * distances_between(alone, QUERIES, GALLERY), rtol=1e-6)


def test_with_nothing_in_common_at_all_it_is_the_plain_distance() -> None:
    visibility = described().visibility.copy()
    visibility[QUERIES[1]] = 0
    d = replace(described(global_weight=0.0), visibility=visibility)
    plain, visible = (distances_between(d, QUERIES, GALLERY, comparison) for comparison in (PLAIN, VISIBLE))
    np.testing.assert_allclose(visible[1], plain[1], rtol=1e-6)
    assert not np.allclose(visible[0], plain[0])


def test_an_unknown_distance_and_missing_visibilities_are_refused() -> None:
    with pytest.raises(SettingsError, match="distance is 'manhattan'; expected one of euclidean, cosine, visible-part"):
        Comparison("manhattan")
    blind = replace(described(), visibility=np.zeros((7, 0)))
    with pytest.raises(SettingsError, match=r"nothing of which parts were seen; expected visibilities: the aligned"):
        distances_between(blind, QUERIES, GALLERY, VISIBLE)


@pytest.mark.parametrize(
    ("fields", "widths", "weights"),
    [
        ({}, [24, *[96] * 6], [1.0, *[1 / 6] * 6]),
        ({"part_pooling": "average", "global_weight": 0.25}, [24, *[24] * 6], [0.25, *[1 / 6] * 6]),
        ({"variant": "reference"}, [24, *[96] * 6], [1.0, *[1 / 36] * 6]),
    ],
    ids=["aligned", "average", "reference"],
)
def test_descriptors_say_where_features_lie(
    prepared: Path, fields: dict[str, Any], widths: list[int], weights: list[float]
) -> None:
    store = TrackletStore(prepared)
    found = embed_tracklets(tiny_model(**fields), store, store.tracklets("query"), batch_size=4, fingerprint="test")
    assert found.widths.tolist() == widths and found.weights == pytest.approx(weights)
    assert found.visibility.shape == (4, 0 if fields.get("variant") else 6)
    if not fields.get("variant"):  # features have length 1, so each has its weight as squared length
        lengths = [float((found.values[0, a:b] ** 2).sum()) for a, b in zip(*_borders(widths), strict=True)]
        assert lengths == pytest.approx(weights, rel=1e-5)


def _borders(widths: list[int]) -> tuple[list[int], list[int]]:
    ends = np.cumsum(widths).tolist()
    return [0, *ends[:-1]], ends


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu"])


def test_one_file_of_descriptors_serves_both_distances(prepared: Path, tmp_path: Path) -> None:
    weights, file = save_tiny_model(tmp_path / "weights"), tmp_path / "d.h5"
    plain = call(weights, prepared, "--descriptors", file)
    visible = call(weights, prepared, "--descriptors", file, "--distance", "visible-parts")
    assert visible.exit_code == 0, visible.output
    assert "embed:" in plain.stderr and "embed:" not in visible.stderr
    assert "\ntrained  standard  visible-parts" in visible.stdout
    descriptors = load_descriptors(file)
    assert descriptors.visibility.shape == (9, 6) and (descriptors.visibility > 0).any()
    with h5py.File(file) as stored:
        assert stored["visibility"].shape == (9, 6)


def test_the_numbers_say_which_distance_they_belong_to(prepared: Path, tmp_path: Path) -> None:
    weights = save_tiny_model(tmp_path / "weights")
    result = call(weights, prepared, "--distance", "visible-parts", "--baselines", "--json", "--report", tmp_path)
    assert result.exit_code == 0, result.output
    assert '"distance": "visible-parts"' in result.stdout and '"distance": "euclidean"' in result.stdout  # the colours
    assert "<td>visible-parts</td>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_reference_variant_is_refused_before_any_work(prepared: Path, tmp_path: Path) -> None:
    weights = save_tiny_model(tmp_path / "weights", variant="reference")
    result = call(weights, prepared, "--distance", "visible-parts")
    assert result.exit_code == 1 and "embed (" not in result.stderr
    assert "the network, of variant 'reference', says nothing of which parts were seen" in result.stderr


def test_help_offers_each_distance() -> None:
    assert f"[{'|'.join(DISTANCES)}]" in CliRunner().invoke(main, ["--help"]).stdout
