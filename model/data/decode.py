"""Image files' bytes -> uint8 RGB frames."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from keyreid.pipeline.errors import FormatError


def decode_frame(encoded: bytes, frame_size: tuple[int, int]) -> Tensor:
    """Decode one frame: JPEG, PNG or whatever Pillow reads; grey becomes RGB, alpha is dropped.

    Args:
        encoded: the image file's bytes.
        frame_size: H, W; a frame of another size is resized (bicubic, antialiased), as the paper does.

    Returns:
        uint8 (3, H, W), RGB.

    Raises:
        FormatError: the bytes are no image.
    """
    try:
        frame = decode_image(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), ImageReadMode.RGB)
    except (RuntimeError, ValueError):
        frame = _decode_with_pillow(encoded)
    if frame.dtype != torch.uint8:
        frame = (frame.to(torch.int32) >> 8).to(torch.uint8)  # a PNG of 16 bits a channel
    if tuple(frame.shape[1:]) == tuple(frame_size):
        return frame
    return resize(frame, list(frame_size), InterpolationMode.BICUBIC, antialias=True)


def _decode_with_pillow(encoded: bytes) -> Tensor:
    try:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
    except (OSError, ValueError) as error:
        raise FormatError(
            f"a frame of {len(encoded)} bytes is not a readable image ({error})",
            "JPEG or PNG",
            "build the shards again: build-shards leaves unreadable frames out",
        ) from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
