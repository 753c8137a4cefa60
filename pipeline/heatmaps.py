"""Keypoints to part heatmaps (method, part 2).

tests/test_heatmaps.py holds the plain per-pixel loop that this must agree with.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .shards import HEATMAP_HEIGHT, HEATMAP_WIDTH
from .skeleton import NUM_PARTS, PART_JOINT_INDICES

MIN_CONFIDENCE = 0.1  # joints at or below it leave no trace
FRAME_SIZE = (256, 128)  # height and width that heatmaps are resized to before they are stretched, as in the paper
MIN_MAX_EPSILON = 1e-6
CHUNK_BYTES = 16 << 20  # of float32 planes at once: what caches hold is fastest; a larger frame is rendered alone


def render_part_heatmaps(keypoints: Tensor | np.ndarray, size: tuple[int, int]) -> Tensor:
    """Draw the part heatmaps of frames of one size, at that size.

    A joint is a Gaussian with peak 1 centred on its truncated pixel, cut at a window of int(width / 11) pixels on each
    side, standard deviation a quarter of the window; a part is the maximum over its joints.

    Args:
        keypoints: float (..., 17, 3): x, y in pixels of the frame, confidence 0 to 1.
        size: height and width of the frame in pixels.

    Returns:
        float32 (..., 6, height, width), 0 to 1, on their device.
    """
    return torch.stack(list(_parts(torch.as_tensor(keypoints), size)), dim=-3)


def _parts(keypoints: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Yield float32 (..., height, width) of each part; a joint's heatmap is the product of two curves."""
    height, width = size
    radius = int(width / 11)
    columns = _curves(keypoints[..., 0], width, radius)
    rows = _curves(keypoints[..., 1], height, radius) * (keypoints[..., 2] > MIN_CONFIDENCE)[..., None]
    scratch = None  # of the joints after a part's first: memory that is used again is faster than new memory
    for joints in PART_JOINT_INDICES:
        heatmap = rows[..., joints[0], :, None] * columns[..., joints[0], None, :]
        scratch = torch.empty_like(heatmap) if scratch is None else scratch
        for joint in joints[1:]:
            torch.mul(rows[..., joint, :, None], columns[..., joint, None, :], out=scratch)
            torch.maximum(heatmap, scratch, out=heatmap)
        yield heatmap


def _curves(centre: Tensor, length: int, radius: int) -> Tensor:
    """float32 (..., 17, length): the Gaussian along one axis, zero outside its window."""
    deviation = (2 * radius + 1) / 4
    distance = torch.arange(length, device=centre.device) - centre.trunc()[..., None]
    return torch.where(distance.abs() <= radius, torch.exp(-(distance**2) / (2 * deviation**2)), 0.0).float()


def stretch_heatmaps(heatmaps: Tensor) -> Tensor:
    """Stretch each part of each frame, float32 (..., H, W), to 0 to 1, in place; parts without a joint stay 0."""
    low, high = heatmaps.amin(dim=(-2, -1), keepdim=True), heatmaps.amax(dim=(-2, -1), keepdim=True)
    return heatmaps.sub_(low).div_(high - low + MIN_MAX_EPSILON)


def stored_heatmaps(keypoints: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The heatmaps that shards hold: rendered, stretched, the mean over 4x4 pixels, in 256 steps.

    Args:
        keypoints: float32 (F, 17, 3), see render_part_heatmaps.
        sizes: int (F, 2), width and height of each frame.

    Returns:
        uint8 (F, 6, 64, 32), 255 for 1.0.
    """
    joints = torch.from_numpy(keypoints)
    result = torch.zeros((len(joints), NUM_PARTS, HEATMAP_HEIGHT, HEATMAP_WIDTH), dtype=torch.uint8)
    for width, height in np.unique(sizes, axis=0).tolist():
        rows = torch.from_numpy(np.flatnonzero((sizes == (width, height)).all(axis=1)))
        frame_bytes = 4 * (2 * height * width + NUM_PARTS * FRAME_SIZE[0] * FRAME_SIZE[1])
        for chunk in rows.split(max(1, CHUNK_BYTES // frame_bytes)):
            heatmaps = torch.empty((len(chunk), NUM_PARTS, *FRAME_SIZE))
            for part, heatmap in enumerate(_parts(joints[chunk], (height, width))):
                if (height, width) != FRAME_SIZE:
                    heatmap = functional.interpolate(heatmap[:, None], size=FRAME_SIZE, mode="bilinear")[:, 0]
                heatmaps[:, part] = heatmap
            cells = functional.avg_pool2d(stretch_heatmaps(heatmaps), FRAME_SIZE[0] // HEATMAP_HEIGHT)
            result[chunk] = cells.mul_(255).round_().to(torch.uint8)
    return result.numpy()
