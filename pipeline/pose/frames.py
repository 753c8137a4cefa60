"""Frames as openpifpaf's networks expect them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

# ImageNet's, as openpifpaf normalises.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PADDING_VALUE = 124  # grey near the mean, on every padded pixel


def prepare_frame(frame: np.ndarray, height: int) -> torch.Tensor:
    """Resize to a height, keeping the aspect ratio, and pad at the right and below to sides of the form 16k + 1.

    Args:
        frame: uint8 (H, W, 3) RGB.
        height: pixels.

    Returns:
        float32 (3, H', W'), normalised.
    """
    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    if frame.shape[:2] != (height, width):
        frame = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
    padded = np.full((_padded(height), _padded(width), 3), PADDING_VALUE, np.uint8)
    padded[:height, :width] = frame
    return normalise(torch.from_numpy(padded))


def normalise(picture: torch.Tensor) -> torch.Tensor:
    """uint8 (..., H, W, 3) RGB -> float32 (..., 3, H, W)."""
    scaled = (picture.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return scaled.movedim(-1, -3)


def _padded(size: int) -> int:
    return (size - 1 + 15) // 16 * 16 + 1
