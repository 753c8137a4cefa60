"""Image files' bytes -> uint8 RGB frames: one by one on the host, in batch on a CUDA device."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, decode_jpeg
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from keyreid.pipeline.errors import FormatError


def decode_frame(encoded: bytes, frame_size: tuple[int, int]) -> Tensor:
    """Decode one frame and resize it; uint8 (3, H, W), see decode_image_bytes and resize_frames."""
    return resize_frames(decode_image_bytes(encoded), frame_size)


def decode_clip(encoded: Sequence[bytes], frame_size: tuple[int, int]) -> Tensor:
    """Decode the frames of one clip; uint8 (T, 3, H, W), see decode_frame."""
    return torch.stack([decode_frame(image, frame_size) for image in encoded])


def decode_image_bytes(encoded: bytes) -> Tensor:
    """Decode one frame: JPEG, PNG or whatever Pillow reads; grey becomes RGB, alpha is dropped.

    Args:
        encoded: the image file's bytes.

    Returns:
        uint8 (3, h, w), RGB, of the image's own size.

    Raises:
        FormatError: the bytes are no image.
    """
    try:
        frame = decode_image(as_tensor(encoded), ImageReadMode.RGB)
    except (RuntimeError, ValueError):
        frame = _decode_with_pillow(encoded)
    if frame.dtype != torch.uint8:
        frame = (frame.to(torch.int32) >> 8).to(torch.uint8)  # a PNG of 16 bits a channel
    return frame


def resize_frames(frames: Tensor, frame_size: tuple[int, int]) -> Tensor:
    """Resize frames of one size (bicubic, antialiased), as the paper does; untouched where nothing is to do.

    Args:
        frames: uint8 (..., 3, h, w) on any device.
        frame_size: H, W.
    """
    if tuple(frames.shape[-2:]) == tuple(frame_size):
        return frames
    return resize(frames, list(frame_size), InterpolationMode.BICUBIC, antialias=True)


def is_plain_jpeg(encoded: bytes) -> bool:
    """Whether an image is a JPEG file of the usual kind (grey or YCbCr), which a device's decoder reads."""
    if not encoded.startswith(b"\xff\xd8"):
        return False
    try:
        with Image.open(io.BytesIO(encoded)) as image:  # reads the header alone
            return image.mode in ("L", "RGB") and image.info.get("adobe_transform", 1) == 1
    except (OSError, ValueError):
        return False


def decode_jpegs(encoded: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Decode JPEG files in batch on a device: nvJPEG on CUDA, whose values may differ by a little from the host's.

    A file that the device refuses is decoded on the host.

    Args:
        encoded: uint8 (bytes,) in host memory.
        device: where to decode.

    Returns:
        For each file uint8 (3, h, w), RGB, on the device.

    Raises:
        FormatError: the bytes are no image.
    """
    try:
        return decode_jpeg(list(encoded), ImageReadMode.RGB, device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        if len(encoded) == 1:
            return [decode_image_bytes(encoded[0].numpy().tobytes()).to(device)]
    return [decode_jpegs([image], device)[0] for image in encoded]


def as_tensor(encoded: bytes) -> Tensor:
    """uint8 (bytes,), a copy."""
    return torch.frombuffer(bytearray(encoded), dtype=torch.uint8)


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
