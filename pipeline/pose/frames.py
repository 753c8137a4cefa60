"""Frames as openpifpaf's networks expect them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from .settings import PoseSettings

# ImageNet's, as openpifpaf normalises.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PADDING_VALUE = 124  # grey near the mean, on every padded pixel
LONGEST_OF_HEIGHT = 4  # a picture is at most so many times as wide as the height asked for,
LONGEST = 2048  # or so long where a scale is asked for: one odd frame must not exhaust memory


@dataclass(frozen=True)
class Picture:
    """One frame as the network sees it.

    Attributes:
        frame_size: width and height of the frame in pixels.
        scale: pixels of the picture for a pixel of the frame.
        pixels: uint8 (H, W, 3) RGB; sides of the form 16k + 1, padded at the right and below.
    """

    frame_size: tuple[int, int]
    scale: float
    pixels: torch.Tensor


def make_picture(frame: np.ndarray, settings: PoseSettings) -> Picture:
    """Resize a frame, keeping its aspect ratio, and pad it.

    Args:
        frame: uint8 (H, W, 3) RGB.
        settings: say the size.
    """
    height, width = frame.shape[:2]
    if settings.scale is None:
        assert settings.input_height is not None
        scale = settings.input_height / max(height, width / LONGEST_OF_HEIGHT)
    else:
        scale = min(settings.scale, LONGEST / max(height, width))
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    if (height, width) != (new_height, new_width):
        frame = np.asarray(Image.fromarray(frame).resize((new_width, new_height), Image.Resampling.BILINEAR))
    padded = np.full((_padded(new_height), _padded(new_width), 3), PADDING_VALUE, np.uint8)
    padded[:new_height, :new_width] = frame
    return Picture((width, height), scale, torch.from_numpy(padded))


def normalise(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 (..., H, W, 3) RGB -> float32 (..., 3, H, W), on the same device."""
    mean, std = (torch.tensor(values, device=pictures.device) for values in (MEAN, STD))
    return ((pictures.float() / 255 - mean) / std).movedim(-1, -3)


def _padded(size: int) -> int:
    return (size - 1 + 15) // 16 * 16 + 1
