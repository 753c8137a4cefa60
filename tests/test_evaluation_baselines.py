"""The baselines: colour histograms of stripes and of parts, and the untrained twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_dataset import make_prepared, tiny_config
from prepared_dataset import as_frames, prepare

from keyreid.model.evaluation.baselines import (
    BINS,
    FRAME_SIZE,
    NUM_COLOURS,
    SATURATION_BINS,
    STRIPE_WEIGHTS,
    colour_histograms,
    describe_colours,
    describe_part_colours,
    stretch_channels,
    untrained_twin,
)
from keyreid.model.evaluation.measurement import measure
from keyreid.model.evaluation.protocols import find_protocol
from keyreid.model.evaluation.reranking import Comparison
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.shards import TrackletFrames
from keyreid.pipeline.skeleton import NUM_PARTS, PARTS
from keyreid.pipeline.store import TrackletStore

STANDARD, VISIBLE_PARTS = find_protocol("standard"), Comparison("visible-parts")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TrackletStore:
    return TrackletStore(make_prepared(tmp_path_factory.mktemp("prepared")))


def frame(upper: tuple[int, int, int], lower: tuple[int, int, int]) -> np.ndarray:
    image = np.empty((*FRAME_SIZE, 3), np.uint8)
    image[: FRAME_SIZE[0] // 2], image[FRAME_SIZE[0] // 2 :] = upper, lower
    return image


def of_stripes(image: np.ndarray) -> np.ndarray:
    return colour_histograms(image, STRIPE_WEIGHTS)


def test_a_flat_region_fills_one_colour_bin_and_one_brightness_bin():
    histograms = colour_histograms(frame((255, 0, 0), (0, 0, 0)), np.full((2, *FRAME_SIZE), [[[1.0]], [[0.5]]]))
    half = FRAME_SIZE[0] * FRAME_SIZE[1] / 2
    red, black = SATURATION_BINS - 1, 0  # hue 0, full saturation; neither
    assert histograms[0, [red, BINS - 1, black, NUM_COLOURS]].tolist() == 4 * [half]
    assert histograms[1, [red, BINS - 1, black, NUM_COLOURS]].tolist() == 4 * [half / 2]
    assert np.count_nonzero(histograms) == 8


def test_clothes_swapped_top_to_bottom_are_another_person():
    red_over_blue, blue_over_red = frame((200, 0, 0), (0, 0, 200)), frame((0, 0, 200), (200, 0, 0))
    difference = np.abs(of_stripes(red_over_blue) - of_stripes(blue_over_red)).sum()
    assert difference == pytest.approx(2 * STRIPE_WEIGHTS.sum())  # no colour in common; brightness is the same


def test_the_middle_of_the_frame_counts_more_than_its_edges():
    plain = frame((200, 0, 0), (200, 0, 0))
    edge, middle = plain.copy(), plain.copy()
    edge[:, :8], middle[:, 20:28] = (0, 200, 0), (0, 200, 0)
    reference = of_stripes(plain)
    assert np.abs(of_stripes(middle) - reference).sum() > 2 * np.abs(of_stripes(edge) - reference).sum()


def test_a_camera_s_light_and_colour_cast_are_taken_out():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*FRAME_SIZE, 3)).astype(np.uint8)
    seen_elsewhere = (image * [0.5, 0.7, 0.6] + [10, 40, 25]).astype(np.uint8)
    difference = stretch_channels(image).astype(int) - stretch_channels(seen_elsewhere)
    assert np.abs(difference).max() <= 4  # what rounding to whole numbers costs
    assert stretch_channels(np.full((4, 4, 3), 9, np.uint8)).max() == 0


def test_colours_find_striped_people_again(store):
    """The people of the test dataset differ in colour and cameras hardly change them: this baseline must work."""
    selection = find_protocol("standard").select(store.tracklets("query", "gallery"))
    descriptors = describe_colours(store, selection.tracklets)
    lengths = np.square(descriptors.values).sum(1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)  # Hellinger: the root of a histogram that sums to 1
    assert measure("colour", descriptors, find_protocol("standard"), selection).metrics.rank(1) == 1


# Identity -> colours of left arm, right arm, left leg, right leg: permuted, so that each stripe has the same colours.
LIMBS = ("left_arm", "right_arm", "left_leg", "right_leg")
RED, BLUE = (200, 30, 30), (30, 30, 200)
PEOPLE = {1: (RED, BLUE, RED, BLUE), 2: (BLUE, RED, RED, BLUE), 3: (RED, BLUE, BLUE, RED), 4: (BLUE, RED, BLUE, RED)}


def permuted_people(tmp_path: Path, hidden: dict[int, tuple[str, ...]] | None = None) -> TrackletStore:
    """Each person as a query in camera 1 and in the gallery of camera 2, which is brighter; head and torso are grey.

    Args:
        tmp_path: folder of the dataset.
        hidden: tracklet -> parts that the frames do not show.
    """

    def draw(tracklet: Tracklet) -> TrackletFrames:
        out_of_sight = (hidden or {}).get(tracklet.tracklet_id, ())
        colours = dict(zip(LIMBS, PEOPLE[tracklet.identity], strict=True))
        image = np.full((64, 32, 3), 110)
        heatmaps = np.zeros((tracklet.num_frames, NUM_PARTS, 64, 32), np.uint8)
        for part, name in enumerate(PARTS):
            rows = slice(36, 60) if "leg" in name else slice(14, 30) if "arm" in name else slice(2, 12)
            columns = slice(6, 12) if "left" in name else slice(20, 26) if "right" in name else slice(12, 20)
            if name in colours and name not in out_of_sight:
                image[rows, columns] = colours[name]
            heatmaps[:, part, rows, columns] = 0 if name in out_of_sight else 255
        return as_frames(tracklet, tracklet.num_frames * [image + 10 * tracklet.camera], heatmaps)

    rows = [(split, identity, camera, 2) for split, camera in (("query", 1), ("gallery", 2)) for identity in PEOPLE]
    return TrackletStore(prepare(tmp_path, rows, draw, name="permuted", frames_per_shard=8))


def test_parts_tell_apart_whom_stripes_cannot(tmp_path):
    store = permuted_people(tmp_path)
    selection = STANDARD.select(store.tracklets("query", "gallery"))
    stripes, parts = (make(store, selection.tracklets) for make in (describe_colours, describe_part_colours))
    assert measure("colour histogram", stripes, STANDARD, selection).metrics.rank(1) == 0  # all are equally near
    guided = measure("part histogram", parts, STANDARD, selection, VISIBLE_PARTS)
    assert (guided.metrics.rank(1), guided.metrics.mAP) == (1, 1)
    distances = guided.distances[0] / guided.distances[0, 3]  # of the last, all four limbs have another colour
    np.testing.assert_allclose(distances, [0, 0.5, 0.5, 1], atol=0.02)


def test_a_part_that_one_side_did_not_see_has_no_say(tmp_path):
    arms, gone = ("left_arm", "right_arm"), tuple(PARTS)
    store = permuted_people(tmp_path, {4: arms, 7: gone})
    selection = STANDARD.select(store.tracklets("query", "gallery"))
    descriptors = describe_part_colours(store, selection.tracklets)
    assert descriptors.visibility[4].tolist() == [name not in arms for name in PARTS]
    distances = measure("part histogram", descriptors, STANDARD, selection, VISIBLE_PARTS).distances
    np.testing.assert_allclose(distances[:, 0] / distances[2, 0], [0, 0, 1, 1], atol=0.02)  # legs decide
    assert np.isfinite(distances).all() and not descriptors.visibility[7].any()
    assert (distances[:, 3] > 0).all()  # nothing in common: not near for that


def test_the_untrained_twin_is_random_reproducible_and_of_the_same_shape():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = untrained_twin(tiny_config()), untrained_twin(tiny_config()), untrained_twin(tiny_config(), 1)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [model.state_dict()["global_head.classifier.weight"] for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not one.training


def test_the_untrained_twin_of_a_pretrained_network_is_random_too():
    config = tiny_config().model_copy(update={"pretrained": "no/such/file.pth"})
    assert untrained_twin(config).config == config
