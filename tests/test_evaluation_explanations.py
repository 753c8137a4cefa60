"""What a report explains: which queries, which clip, and whether pictures show the numbers."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from evaluation_dataset import make_prepared, tiny_model
from PIL import Image

from keyreid.model.embedding.settings import EmbeddingSettings
from keyreid.model.evaluation.distances import FEATURES, Contributions
from keyreid.model.evaluation.evaluate import Evaluator
from keyreid.model.evaluation.pictures import CELL, CELL_GAP, laid_over
from keyreid.model.evaluation.protocols import find_protocol
from keyreid.model.evaluation.report import plots
from keyreid.model.evaluation.report.clip_maps import clip_maps
from keyreid.model.evaluation.report.explanations import Answer, Explanation, explain
from keyreid.model.evaluation.report.strips import choose_strips, page_strips
from keyreid.model.evaluation.reranking import Comparison
from keyreid.pipeline.skeleton import NUM_PARTS
from keyreid.pipeline.store import TrackletStore

VARIANTS = [{}, {"part_pooling": "average"}, {"variant": "reference"}]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("prepared"))


def explained(prepared: Path, settings: EmbeddingSettings, distance: str = "euclidean", **fields):
    evaluator = Evaluator.on(
        prepared, 0, find_protocol("standard"), comparison=Comparison(distance), description=settings
    )
    model = tiny_model(**fields)
    measurement = evaluator.network("trained", model)
    return measurement, explain(model, evaluator.store, measurement, [0, 1, 2], settings)


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_the_nearest_of_both_kinds_are_explained(prepared, fields):
    measurement, explanations = explained(prepared, EmbeddingSettings(), **fields)
    for one in explanations:
        right, wrong = one.answers
        assert right.is_match and right.tracklet.identity == one.query.identity != wrong.tracklet.identity
        assert right.tracklet.camera != one.query.camera
        assert min(right.rank, wrong.rank) == 1
        assert right.rank == measurement.metrics.first_match[one.position]
        assert len(one.visibility) == (0 if fields.get("variant") == "reference" else NUM_PARTS)


@pytest.mark.parametrize(
    ("distance", "settings"),
    [
        ("euclidean", EmbeddingSettings(flip=True, shifts=2)),
        ("cosine", EmbeddingSettings(cameras="mean")),
        ("visible-parts", EmbeddingSettings(max_clips=1)),
    ],
)
def test_distances_taken_apart_are_those_of_the_ranking(prepared, distance, settings):
    for one in explained(prepared, settings, distance)[1]:
        for answer in one.answers:
            assert answer.contributions.total == pytest.approx(answer.distance, rel=1e-3, abs=1e-6)


def test_the_clip_that_shows_most_is_drawn(prepared):
    store, model = TrackletStore(prepared), tiny_model()
    tracklet = max(store.tracklets("gallery"), key=lambda t: t.num_frames)  # nine frames, three clips
    maps = clip_maps(model, store, tracklet, "known")
    seen = [store.heatmaps(tracklet.tracklet_id, range(first, last)).mean() for first, last in ((0, 4), (4, 8), (8, 9))]
    assert (maps.clip, maps.num_clips) == (1 + int(np.argmax(seen)), 3)
    assert maps.frames[0] == 1 + 4 * (maps.clip - 1)
    assert maps.frame_shares.sum() == pytest.approx(1)


@pytest.mark.parametrize(("fields", "num_maps"), list(zip(VARIANTS, (1, 4, 4), strict=True)), ids=str)
def test_every_part_has_its_column(prepared, fields, num_maps):
    store = TrackletStore(prepared)
    maps = clip_maps(tiny_model(**fields), store, store.tracklets("query")[0], "known")
    assert len(maps.heatmap_strips) == 4 and len(maps.attention_strips) == num_maps
    for strip in (*maps.heatmap_strips, *maps.attention_strips):
        assert strip.size == ((1 + NUM_PARTS) * (CELL[1] + CELL_GAP) - CELL_GAP, CELL[0])
    assert maps.largest_shares.shape == maps.class_shares.shape == (NUM_PARTS,)
    assert (maps.largest_shares > 0).all() and (maps.largest_shares + maps.class_shares <= 1 + 1e-5).all()


def test_warm_colours_are_where_the_values_are():
    frame = np.full((*CELL, 3), 100, np.uint8)
    values = np.zeros((4, 2))
    values[1, 1] = 1
    drawn = laid_over(frame, values, smooth=False).astype(int)
    warmth = drawn[..., 0] - drawn[..., 2]
    inside = warmth[CELL[0] // 4 : CELL[0] // 2, CELL[1] // 2 :]
    assert inside.min() > 50
    warmth[CELL[0] // 4 : CELL[0] // 2, CELL[1] // 2 :] = 0
    assert warmth.max() == 0  # grey elsewhere


def explanation(right: list[float], wrong: list[float]) -> Explanation:
    def answer(values: list[float], is_match: bool) -> Answer:
        found = Contributions(np.array(values), np.ones(len(values)))
        return Answer(None, is_match, 1, found.total, found, None)  # type: ignore[arg-type]

    return Explanation(None, 0, np.zeros(0), None, (answer(right, True), answer(wrong, False)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        (
            [1, 0, 0, 0, 0, 0, 0],
            [2, 3, 0, 0, 0, 0, 0],
            "The right one is nearer by 4. For it speak head (3) and whole body (1).",
        ),
        (
            [5, 0, 1, 0, 0, 0, 0],
            [1, 0, 2, 0, 0, 0, 0],
            "The wrong one is nearer by 3. For it speak whole body (4); for the right one torso (1).",
        ),
        ([1] * 7, [1] * 7, "Both are equally near, in every feature."),
    ],
)
def test_the_verdict_names_what_decided(right, wrong, sentence):
    assert len(right) == len(FEATURES) and explanation(right, wrong).verdict() == sentence


def test_strips_are_the_worst_the_median_and_the_best():
    precision = np.array([np.nan, *np.linspace(1, 0, 100)])
    chosen = choose_strips(precision, 9)
    assert chosen == [100, 99, 98, 52, 51, 50, 3, 2, 1]
    assert choose_strips(precision[:5], 9) == [4, 3, 2, 1]
    assert choose_strips(np.array([np.nan]), 9) == []


def test_strips_come_worst_first_and_know_who_is_right(prepared):
    evaluator = Evaluator.on(prepared, 0, find_protocol("standard"))
    measurement = evaluator.network("trained", tiny_model())
    strips = page_strips(evaluator.store, measurement, [0, 1, 2], [1])
    precision = [strip.average_precision for strip in strips]
    assert precision == sorted(precision) and [strip.is_explained for strip in strips].count(True) == 1
    for strip in strips:
        first = [is_match for _, _, is_match, _ in strip.cells].index(True) + 1
        assert first == strip.first_match


def test_figures_take_the_colour_of_the_page_and_are_the_same_again(prepared):
    measurement = Evaluator.on(prepared, 0, find_protocol("standard")).network("trained", tiny_model())
    draw = plots.cmc([measurement])
    figure = plots.svg(draw, "cmc")
    assert figure.startswith("<svg") and "currentColor" in figure and plots.INK not in figure
    assert not re.search(r"fill: ?(#000000|black)", figure)
    assert figure == plots.svg(draw, "cmc")
    picture, both = plots.png(draw, "a title"), plots.png(plots.cmc([measurement, measurement]), "a title")
    assert Image.open(io.BytesIO(picture)).size == (960, 600) and picture != both
