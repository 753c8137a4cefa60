"""The two baselines: a colour histogram and the untrained twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation_dataset import make_prepared, tiny_config

from keyreid.model.evaluation.baselines import (
    BRIGHTNESS_BINS,
    FRAME_SIZE,
    HUE_BINS,
    SATURATION_BINS,
    STRIPES,
    colour_histogram,
    describe_colours,
    stretch_channels,
    untrained_twin,
)
from keyreid.model.evaluation.measurement import measure
from keyreid.model.evaluation.protocols import find_protocol
from keyreid.pipeline.store import TrackletStore


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TrackletStore:
    return TrackletStore(make_prepared(tmp_path_factory.mktemp("prepared")))


def frame(upper: tuple[int, int, int], lower: tuple[int, int, int]) -> np.ndarray:
    image = np.empty((*FRAME_SIZE, 3), np.uint8)
    image[: FRAME_SIZE[0] // 2], image[FRAME_SIZE[0] // 2 :] = upper, lower
    return image


def test_a_flat_stripe_fills_one_colour_bin_and_one_brightness_bin():
    histogram = colour_histogram(frame((255, 0, 0), (0, 0, 0)))
    num_colours = HUE_BINS * SATURATION_BINS
    colours = histogram[: STRIPES * num_colours].reshape(STRIPES, num_colours)
    brightness = histogram[STRIPES * num_colours :].reshape(STRIPES, BRIGHTNESS_BINS)
    assert histogram.sum() == pytest.approx(1)
    share = 1 / (2 * STRIPES)
    assert colours[:3, SATURATION_BINS - 1] == pytest.approx(share)  # hue 0, full saturation
    assert colours[3:, 0] == pytest.approx(share)  # black has neither
    assert brightness[:3, -1] == pytest.approx(share) and brightness[3:, 0] == pytest.approx(share)
    assert np.count_nonzero(histogram) == 2 * STRIPES


def test_clothes_swapped_top_to_bottom_are_another_person():
    red_over_blue, blue_over_red = frame((200, 0, 0), (0, 0, 200)), frame((0, 0, 200), (200, 0, 0))
    assert np.abs(colour_histogram(red_over_blue) - colour_histogram(blue_over_red)).sum() == pytest.approx(1)


def test_the_middle_of_the_frame_counts_more_than_its_edges():
    plain = frame((200, 0, 0), (200, 0, 0))
    edge, middle = plain.copy(), plain.copy()
    edge[:, :8], middle[:, 20:28] = (0, 200, 0), (0, 200, 0)
    reference = colour_histogram(plain)
    assert np.abs(colour_histogram(middle) - reference).sum() > 2 * np.abs(colour_histogram(edge) - reference).sum()


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
