"""What a trained network has to beat: a colour histogram, and its own twin with random weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.colors import rgb_to_hsv

from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..data.decode import decode_frame
from ..embedding.descriptors import TrackletDescriptors
from ..network.build import build_model
from ..network.config import ModelConfig
from ..network.keyreid import KeyReID

# Six stripes are about head, chest, hip, thigh, calf and foot. Hue and saturation are binned together, because hue
# means nothing where saturation is low; brightness on its own, as cameras disagree most about it.
FRAME_SIZE = (96, 48)
STRIPES = 6
HUE_BINS, SATURATION_BINS, BRIGHTNESS_BINS = 12, 4, 8
FRAMES_OF_A_TRACKLET = 8
# Standard deviation of a pixel's weight, as a share of the width: the trunk fills the middle third of a crop. This and
# stretch_channels were measured on synthetic people: docs/evaluation.md.
CENTRE_WIDTH = 0.1
DARKEST, BRIGHTEST = 2, 98  # percentiles that become 0 and 255


def untrained_twin(config: ModelConfig, seed: int = 0) -> KeyReID:
    """The same network with random weights; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(config, load_backbone=False).eval()


def describe_colours(store: TrackletStore, tracklets: Sequence[Tracklet]) -> TrackletDescriptors:
    """A colour descriptor for each tracklet: the mean histogram of frames spread evenly over it.

    The square root of a histogram that sums to 1 makes Euclidean distance the Hellinger distance.
    """
    rows = []
    with progress_bar(len(tracklets), "colour histograms", "tracklets") as bar:
        for tracklet in tracklets:
            count = store.num_frames(tracklet.tracklet_id)
            chosen = np.linspace(0, count - 1, min(count, FRAMES_OF_A_TRACKLET)).round().astype(int)
            images = store.images(tracklet.tracklet_id, chosen.tolist())
            frames = [decode_frame(image, FRAME_SIZE).permute(1, 2, 0).numpy() for image in images]
            rows.append(np.sqrt(np.mean([colour_histogram(stretch_channels(frame)) for frame in frames], axis=0)))
            bar.update()
    return TrackletDescriptors.of(tracklets, np.stack(rows).astype(np.float32), "colour histogram")


def stretch_channels(frame: np.ndarray) -> np.ndarray:
    """Spread each channel over its whole range, which takes out most of a camera's light and colour cast.

    Args:
        frame: uint8 (H, W, 3), RGB.

    Returns:
        uint8, same shape; a channel of one value becomes 0.
    """
    low, high = np.percentile(frame.reshape(-1, 3), (DARKEST, BRIGHTEST), axis=0)
    return (255 * np.clip((frame - low) / np.maximum(high - low, 1), 0, 1)).astype(np.uint8)


def colour_histogram(frame: np.ndarray) -> np.ndarray:
    """Histograms of hue with saturation, and of brightness, in horizontal stripes; sums to 1.

    Args:
        frame: uint8 (H, W, 3), RGB; H is a multiple of STRIPES.

    Returns:
        float64 (STRIPES * (HUE_BINS * SATURATION_BINS + BRIGHTNESS_BINS),).
    """
    height, width = frame.shape[:2]
    hue, saturation, brightness = np.moveaxis(rgb_to_hsv(frame / 255.0), -1, 0)
    colour = _bin(hue, HUE_BINS) * SATURATION_BINS + _bin(saturation, SATURATION_BINS)
    stripe = np.repeat(np.arange(height) * STRIPES // height, width)
    places = (np.arange(width) + 0.5) / width - 0.5
    weight = np.tile(np.exp(-0.5 * (places / CENTRE_WIDTH) ** 2), height)
    num_colours = HUE_BINS * SATURATION_BINS
    histograms = [
        np.bincount(stripe * bins + values.ravel(), weight, STRIPES * bins)
        for values, bins in ((colour, num_colours), (_bin(brightness, BRIGHTNESS_BINS), BRIGHTNESS_BINS))
    ]
    return np.concatenate(histograms) / (2 * weight.sum())


def _bin(values: np.ndarray, bins: int) -> np.ndarray:
    """Bin of values in [0, 1], the upper edge included."""
    return np.minimum((values * bins).astype(np.int64), bins - 1)
