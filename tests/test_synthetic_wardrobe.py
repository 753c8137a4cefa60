"""The shared wardrobe: a few dull colours, and as much ink on everybody."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from keyreid.pipeline.synthetic.layouts import SyntheticSettings, plan_tracklets, render_planned
from keyreid.pipeline.synthetic.person import LAYERS, Canvas, View, paint_person, project, sample_appearance, walk
from keyreid.pipeline.synthetic.scene import expose, sample_camera
from keyreid.pipeline.synthetic.wardrobe import DULL, INKS, PRINT_CELLS, Dressed, disagree, dress


def person(seed: int) -> Dressed:
    appearance = sample_appearance(np.random.default_rng(seed), 1.0, np.random.default_rng(7))
    return replace(dress(appearance, np.random.default_rng(100 + seed)), bag="none")


def painted(looks: Dressed, yaw: float) -> np.ndarray:
    """uint8 (256, 128, 3)."""
    view = View(yaw=yaw, elevation=0.0, height=220, x=64, y=245)
    canvas = Canvas(Image.new("RGB", (128, 256), (0, 255, 0)))
    paint_person(canvas, project(walk(looks, 0.5), view), view, looks, LAYERS)
    return canvas.finish()[0]


def test_everybody_has_the_same_colours_and_as_much_ink_at_other_places() -> None:
    people = [person(seed) for seed in range(12)]
    for one in people:
        assert {one.top, one.bottom, one.bag_colour, *one.sleeves.values()} <= set(DULL) and one.top_second in INKS
        assert len(set(one.print_cells)) == PRINT_CELLS
    assert len({one.print_cells for one in people}) == len(people)


@pytest.mark.parametrize(("yaw", "seen"), [(0.0, True), (np.pi, True), (np.pi / 2, False)])
def test_a_print_is_seen_from_the_front_and_from_behind(yaw: float, seen: bool) -> None:
    one = person(1)
    other = replace(one, print_cells=person(2).print_cells)
    first, second = painted(one, yaw), painted(other, yaw)
    assert (first != second).any() == seen
    ink = [np.abs(picture.astype(int) - one.top_second).max(axis=2) < 12 for picture in (first, second)]
    assert ink[0].sum() == pytest.approx(ink[1].sum(), rel=0.15)


def test_marks_on_limbs_and_the_cut_are_seen_from_the_side() -> None:
    one = replace(person(1), bottom_style="trousers", hem=0.9)
    for other in (
        replace(one, rings={side: (slot + 1) % 3 for side, slot in one.rings.items()}),
        replace(one, patches={side: ((a + 1) % 3, (b + 1) % 3) for side, (a, b) in one.patches.items()}),
        replace(one, yoke=0.9 - one.yoke),
        replace(one, hem=1.1),
    ):
        assert (painted(one, np.pi / 2) != painted(other, np.pi / 2)).any()


def test_cameras_disagree_by_difficulty() -> None:
    picture = np.full((64, 32, 3), (120, 100, 80), np.uint8)

    def seen(difficulty: float) -> tuple[np.ndarray, np.ndarray]:
        camera = sample_camera(np.random.default_rng(3), difficulty)
        other = disagree(camera, np.random.default_rng(4), difficulty)
        shots = [expose(picture, one, np.ones(3), np.random.default_rng(5)) for one in (camera, other)]
        return np.asarray(shots[0]).astype(int), np.asarray(shots[1]).astype(int)

    easy, hard = seen(0.0), seen(1.0)
    assert np.abs(easy[0] - easy[1]).max() <= 1
    assert np.abs(hard[0] - hard[1]).mean() > 5
    corners = hard[1][[0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=1)
    assert np.ptp(corners) > 20, "light falls from one side"


def test_a_tracklet_follows_from_the_seed_and_the_wardrobe() -> None:
    own = SyntheticSettings(num_identities=4, min_frames=2, max_frames=2, difficulty=1.0, seed=3)
    planned = plan_tracklets(own, extras=False)[0]
    shared = replace(own, wardrobe="shared")
    frames, keypoints = render_planned(shared, planned)
    assert frames == render_planned(shared, planned)[0] != render_planned(own, planned)[0]
    np.testing.assert_array_equal(keypoints[..., :2], render_planned(own, planned)[1][..., :2])  # the same walk
    with Image.open(io.BytesIO(frames[0])) as image:
        assert image.size == (128, 256)
