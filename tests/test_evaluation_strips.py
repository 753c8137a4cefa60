"""Ranked strips: colours of the frames at known pixels, who is shown, and which queries are chosen."""

from __future__ import annotations

import io

import numpy as np
import pytest
from evaluation_dataset import make_prepared
from PIL import Image

from keyreid.model.evaluation import pictures
from keyreid.model.evaluation.measurement import Measurement
from keyreid.model.evaluation.pictures import (
    BLUE,
    BORDER,
    GAP,
    GREEN,
    PAPER,
    RED,
    THUMBNAIL,
    TITLE,
    png_bytes,
    stack_pictures,
)
from keyreid.model.evaluation.protocols import find_protocol
from keyreid.model.evaluation.report import strips
from keyreid.model.evaluation.report.strips import Strip, choose_explained, make_strip, strip_picture
from keyreid.pipeline.store import TrackletStore

CELL = THUMBNAIL[1] + 2 * BORDER + GAP


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TrackletStore:
    return TrackletStore(make_prepared(tmp_path_factory.mktemp("prepared")))


def measured(store) -> Measurement:
    """Under `standard`, with distances such that each query's gallery is ranked in the manifest's order."""
    selection = find_protocol("standard").select(store.tracklets("query", "gallery"))
    distances = np.tile(np.arange(len(selection.gallery), dtype=np.float32), (len(selection.queries), 1))
    return Measurement("trained", find_protocol("standard"), selection, distances)


def frame_colour(picture: Image.Image, place: int) -> tuple[int, ...]:
    """Colour of the frame of the place-th picture, 0 for the query, at its top left, and the same at its bottom."""
    left = GAP + CELL * place + (GAP if place else 0)
    points = [(left, GAP), (left + BORDER - 1, GAP + 20), (left + 20, GAP + THUMBNAIL[0] + 2 * BORDER - 1)]
    colours = {picture.getpixel(point) for point in points}
    assert len(colours) == 1
    return colours.pop()


def test_frames_are_blue_for_the_query_green_for_its_person_and_red_for_others(store):
    row = make_strip(measured(store), 0)  # identity 5 under camera 1
    assert [(t.identity, t.camera) for t in row.nearest] == [(5, 2), (6, 3), (0, 2), (9, 1)]
    picture = strip_picture(store, row)
    assert [frame_colour(picture, place) for place in range(6)] == [BLUE, GREEN, RED, RED, RED, PAPER]


def test_the_query_s_person_under_its_own_camera_is_left_out(store):
    measurement = measured(store)
    for query, tracklet in enumerate(measurement.selection.queries):
        shown = make_strip(measurement, query).nearest
        assert (tracklet.identity, tracklet.camera) not in {(t.identity, t.camera) for t in shown}


def test_distances_stay_beside_their_tracklets(store):
    row = make_strip(measured(store), 0)
    assert row.distances.tolist() == [1, 2, 3, 4]  # 0 was the query's own camera
    assert row.average_precision == 1


def test_captions_say_distance_identity_and_camera(store, monkeypatch):
    written = []
    monkeypatch.setattr(pictures.ImageDraw.ImageDraw, "text", lambda self, xy, text, *rest: written.append(text))
    strip_picture(store, make_strip(measured(store), 1))
    assert written[:4] == ["query, AP 33 %", "id 6 cam 1", "d 0", "id 5 cam 1"]


def test_the_middle_frame_is_shown(store):
    tracklet = store.tracklets("query")[0]
    picture = strip_picture(store, Strip(tracklet, (), np.zeros(0), 1.0, 1))
    encoded, _ = store.read(tracklet.tracklet_id, [2])  # of five frames
    expected = np.array(Image.open(io.BytesIO(encoded[0])).convert("RGB"), float)
    inside = np.array(picture, float)[GAP + BORDER :, GAP + BORDER :][: THUMBNAIL[0], : THUMBNAIL[1]]
    blocks = inside.reshape(32, 5, 16, 5, 3).mean((1, 3))
    assert np.abs(blocks - expected).mean() < 3


def test_never_more_than_ten_are_shown(store, monkeypatch):
    monkeypatch.setattr(strips, "NUM_NEAREST", 2)
    assert len(make_strip(measured(store), 0).nearest) == 2


def test_pictures_are_the_same_bytes_again(store):
    row = make_strip(measured(store), 0)
    assert png_bytes(strip_picture(store, row)) == png_bytes(strip_picture(store, row))


def test_pictures_are_stacked_in_order_under_the_title():
    stacked = stack_pictures("protocol standard", [Image.new("RGB", (80, 2), RED), Image.new("RGB", (80, 4), GREEN)])
    assert stacked.size == (80, TITLE + 6)
    assert stacked.getpixel((0, TITLE + 1)) == RED and stacked.getpixel((0, TITLE + 2)) == GREEN
    assert np.array(stacked)[:TITLE].min() < 100  # something is written


@pytest.mark.parametrize(
    ("first_match", "precision", "count", "chosen"),
    [
        ([1, 3, 1, 2, 0, 1], [0.9, 0.1, 1.0, 0.4, np.nan, 0.5], 4, [1, 3, 5, 2]),  # half each, worst to best
        ([1, 1, 1, 1], [0.4, 0.3, 0.2, 0.1], 3, [3, 1, 0]),  # no failure: successes fill up, spread with both ends
        ([2, 2, 2], [0.3, 0.1, 0.2], 8, [1, 2, 0]),  # fewer than asked for
        ([0, 0], [np.nan, np.nan], 4, []),  # skipped queries have no ranking to show
        ([2, 1, 1, 1], [0.1, 0.5, 0.6, 0.7], 4, [0, 1, 2, 3]),  # one failure: it is shown
    ],
)
def test_choice_mixes_failures_and_successes(first_match, precision, count, chosen):
    assert choose_explained(np.array(first_match), np.array(precision), count) == chosen
