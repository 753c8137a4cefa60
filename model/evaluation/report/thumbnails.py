"""Small pictures of frames, and of numbers laid over them."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ...data.decode import decode_frame

CELL = (144, 72)  # height and width of a picture in pixels; a page shows it smaller
GAP = 4  # pixels between the pictures of a strip
QUALITY = 60
WARM = colormaps["inferno"]


def middle_frame(store: TrackletStore, tracklet: Tracklet) -> np.ndarray:
    """uint8 (height, width, 3) of CELL's size."""
    encoded = store.images(tracklet.tracklet_id, [store.num_frames(tracklet.tracklet_id) // 2])[0]
    return small_frame(encoded)


def small_frame(encoded: bytes) -> np.ndarray:
    """A frame at CELL's size: uint8 (height, width, 3)."""
    return decode_frame(encoded, CELL).permute(1, 2, 0).numpy()


def laid_over(frame: np.ndarray, values: np.ndarray, smooth: bool) -> np.ndarray:
    """A grey frame with warm colours where `values` are high.

    Args:
        frame: uint8 (height, width, 3).
        values: float (rows, columns) in [0, 1], stretched over the frame.
        smooth: interpolate; otherwise every value is a rectangle.

    Returns:
        uint8, as `frame`.
    """
    height, width = frame.shape[:2]
    kind = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    stretched = np.array(Image.fromarray(values.astype(np.float32)).resize((width, height), kind))
    grey = np.repeat(0.75 * frame.mean(axis=2, keepdims=True), 3, axis=2)
    share = 0.85 * np.sqrt(np.clip(stretched, 0, 1))[..., None]
    colour = 255 * WARM(0.25 + 0.75 * stretched)[..., :3]
    return ((1 - share) * grey + share * colour).round().astype(np.uint8)


def side_by_side(cells: list[np.ndarray]) -> Image.Image:
    """Pictures of one size in a row, with a transparent gap between them."""
    height, width = cells[0].shape[:2]
    strip = Image.new("RGBA", (len(cells) * (width + GAP) - GAP, height))
    for place, cell in enumerate(cells):
        strip.paste(Image.fromarray(cell), (place * (width + GAP), 0))
    return strip


def on_white(strip: Image.Image) -> Image.Image:
    """A strip without transparency, and with a gap below it."""
    page = Image.new("RGB", (strip.width, strip.height + GAP), "white")
    page.paste(strip, mask=strip.getchannel("A"))
    return page


def webp_uri(picture: Image.Image | np.ndarray) -> str:
    """A data: address of a picture, for a page that loads nothing."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
