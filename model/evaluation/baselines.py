"""What a trained network has to beat: a colour histogram, and its own twin with random weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from matplotlib.colors import rgb_to_hsv
from torch.nn import functional

from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.skeleton import NUM_PARTS
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
NUM_COLOURS = HUE_BINS * SATURATION_BINS
BINS = NUM_COLOURS + BRIGHTNESS_BINS
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
    """A colour descriptor for each tracklet: the mean histogram of stripes, over frames spread evenly over it.

    The square root of a histogram that sums to 1 makes Euclidean distance the Hellinger distance.
    """
    rows = []
    for tracklet_id, chosen in _spread_frames(store, tracklets, "colour histograms"):
        counts = np.zeros((STRIPES, BINS))
        for frame in _frames(store, tracklet_id, chosen):
            counts += colour_histograms(frame, STRIPE_WEIGHTS)
        rows.append(np.sqrt(counts / counts.sum()).ravel())
    return TrackletDescriptors.of(tracklets, np.stack(rows).astype(np.float32), "colour histogram")


def describe_part_colours(store: TrackletStore, tracklets: Sequence[Tracklet]) -> TrackletDescriptors:
    """A colour descriptor for each tracklet that the keypoints guide: a histogram per body part.

    A pixel counts as much as the part's heatmap has there; frames as above. A part that no frame shows has the
    histogram of the stripes' pixels and visibility 0; compare with the distance "visible-parts". There is no global
    feature: its width and weight are 0.
    """
    rows, seen = [], []
    for tracklet_id, chosen in _spread_frames(store, tracklets, "part histograms"):
        heatmaps = torch.from_numpy(store.heatmaps(tracklet_id, chosen)).float() / 255
        weights: np.ndarray = functional.interpolate(heatmaps, FRAME_SIZE, mode="bilinear").double().numpy()
        counts = np.zeros((NUM_PARTS, BINS))
        whole = np.zeros(BINS)
        for frame, weight in zip(_frames(store, tracklet_id, chosen), weights, strict=True):
            counts += colour_histograms(frame, weight)
            whole += colour_histograms(frame, STRIPE_WEIGHTS).sum(0)
        shown = counts.sum(1) > 0
        counts[~shown] = whole
        rows.append(np.sqrt(counts / counts.sum(1, keepdims=True)).ravel())
        seen.append(shown)
    return TrackletDescriptors.of(
        tracklets,
        np.stack(rows).astype(np.float32),
        "part histogram",
        visibility=np.stack(seen).astype(np.float32),
        widths=np.array([0] + NUM_PARTS * [BINS]),
        weights=np.array([0.0] + NUM_PARTS * [1.0]),
    )


def _spread_frames(store: TrackletStore, tracklets: Sequence[Tracklet], label: str) -> Iterator[tuple[int, list[int]]]:
    """Each tracklet's number with frames spread evenly over it."""
    with progress_bar(len(tracklets), label, "tracklets") as bar:
        for tracklet in tracklets:
            count = store.num_frames(tracklet.tracklet_id)
            chosen = np.linspace(0, count - 1, min(count, FRAMES_OF_A_TRACKLET)).round().astype(int)
            yield tracklet.tracklet_id, chosen.tolist()
            bar.update()


def _frames(store: TrackletStore, tracklet_id: int, chosen: list[int]) -> Iterator[np.ndarray]:
    """uint8 (*FRAME_SIZE, 3), with their channels stretched."""
    for image in store.images(tracklet_id, chosen):
        yield stretch_channels(decode_frame(image, FRAME_SIZE).permute(1, 2, 0).numpy())


def stretch_channels(frame: np.ndarray) -> np.ndarray:
    """Spread each channel over its whole range, which takes out most of a camera's light and colour cast.

    Args:
        frame: uint8 (H, W, 3), RGB.

    Returns:
        uint8, same shape; a channel of one value becomes 0.
    """
    low, high = np.percentile(frame.reshape(-1, 3), (DARKEST, BRIGHTEST), axis=0)
    return (255 * np.clip((frame - low) / np.maximum(high - low, 1), 0, 1)).astype(np.uint8)


def stripe_weights() -> np.ndarray:
    """float64 (STRIPES, *FRAME_SIZE): each stripe's pixels; those near the middle column weigh more."""
    height, width = FRAME_SIZE
    places = (np.arange(width) + 0.5) / width - 0.5
    stripe = np.arange(height) * STRIPES // height
    return (stripe == np.arange(STRIPES)[:, None])[..., None] * np.exp(-0.5 * (places / CENTRE_WIDTH) ** 2)


STRIPE_WEIGHTS = stripe_weights()


def colour_histograms(frame: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Histograms of hue with saturation, and of brightness, in regions of a frame.

    Args:
        frame: uint8 (H, W, 3), RGB.
        weights: float64 (R, H, W), how much each pixel counts for each region.

    Returns:
        float64 (R, BINS): NUM_COLOURS and then BRIGHTNESS_BINS sums of weights.
    """
    hue, saturation, brightness = np.moveaxis(rgb_to_hsv(frame / 255.0), -1, 0)
    colours = (_bin(hue, HUE_BINS) * SATURATION_BINS + _bin(saturation, SATURATION_BINS)).ravel()
    lights = NUM_COLOURS + _bin(brightness, BRIGHTNESS_BINS).ravel()
    pixels = np.concatenate([colours, lights])
    return np.stack([np.bincount(pixels, np.tile(region.ravel(), 2), BINS) for region in weights])


def _bin(values: np.ndarray, bins: int) -> np.ndarray:
    """Bin of values in [0, 1], the upper edge included."""
    return np.minimum((values * bins).astype(np.int64), bins - 1)
