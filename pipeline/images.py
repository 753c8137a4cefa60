"""Image files of every kind as 8-bit RGB."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

# What Pillow raises for files that are missing, broken, of no kind it knows, or larger than it thinks safe.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)

_PNG_BIT_DEPTH = 24  # offset of the byte that holds it


def read_frame(path: Path) -> np.ndarray:
    """uint8 (H, W, 3) RGB of any image that Pillow reads, to its last pixel.

    Grey of 16 bits keeps its upper eight; transparency is dropped.

    Raises:
        One of UNREADABLE.
    """
    with Image.open(path) as image:
        return np.asarray(_as_rgb(image))


def encoded_frame(path: Path) -> bytes:
    """The file's own bytes where they are an 8-bit grey or RGB JPEG or PNG, else the same picture as RGB PNG.

    Raises:
        One of UNREADABLE.
    """
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        plain = image.mode in ("RGB", "L")
        if plain and (image.format == "JPEG" or (image.format == "PNG" and data[_PNG_BIT_DEPTH] == 8)):
            return data
        buffer = io.BytesIO()
        _as_rgb(image).save(buffer, "PNG", compress_level=3)
        return buffer.getvalue()


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        upper = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255)
        image = Image.fromarray(upper.astype(np.uint8))
    return image.convert("RGB")
