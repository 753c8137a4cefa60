"""Pictures of frames: ranked strips for papers and searches, numbers laid over a frame, and their files."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from keyreid.pipeline.store import TrackletStore

from ..data.decode import decode_frame

GREEN, RED, BLUE, GREY = (26, 152, 80), (215, 48, 39), (69, 117, 180), (150, 150, 150)
INK, PAPER = (34, 34, 34), (255, 255, 255)
THUMBNAIL = (160, 80)  # height and width inside the frame of a ranked strip
BORDER, GAP, LINE, TITLE = 5, 8, 15, 28  # pixels
CELL = (144, 72)  # height and width of a picture in a page, which shows it smaller
CELL_GAP = 4  # pixels between the pictures of a strip over which numbers are laid
QUALITY = 60
WARM = colormaps["inferno"]


class Framed(NamedTuple):
    """A tracklet in a ranked strip: its middle frame, the colour around it, and lines of text below."""

    picture: np.ndarray
    colour: tuple[int, int, int]
    lines: tuple[str, ...]


def draw_strip(query: Framed, found: Sequence[Framed], places: int) -> Image.Image:
    """The query, then what was found from near to far, in a picture that has room for so many places."""
    width = THUMBNAIL[1] + 2 * BORDER
    height = THUMBNAIL[0] + 2 * BORDER + LINE * len(query.lines)
    picture = Image.new("RGB", ((width + GAP) * (places + 1) + 2 * GAP, height + 2 * GAP), PAPER)
    _draw_framed(picture, GAP, query)
    for place, one in enumerate(found, 1):
        _draw_framed(picture, 2 * GAP + place * (width + GAP), one)
    return picture


def _draw_framed(picture: Image.Image, left: int, one: Framed) -> None:
    draw = ImageDraw.Draw(picture)
    right, bottom = left + THUMBNAIL[1] + 2 * BORDER - 1, GAP + THUMBNAIL[0] + 2 * BORDER - 1
    draw.rectangle((left, GAP, right, bottom), outline=one.colour, width=BORDER)
    picture.paste(Image.fromarray(one.picture), (left + BORDER, GAP + BORDER))
    font = ImageFont.load_default(size=11)
    for number, text in enumerate(one.lines):
        draw.text((left, bottom + 3 + number * LINE), text, INK, font)


def stack_pictures(title: str, pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures, one below the other, under a title."""
    stacked = Image.new("RGB", (pictures[0].width, TITLE + sum(picture.height for picture in pictures)), PAPER)
    ImageDraw.Draw(stacked).text((GAP, GAP), title, INK, ImageFont.load_default(size=14))
    top = TITLE
    for picture in pictures:
        stacked.paste(picture, (0, top))
        top += picture.height
    return stacked


def middle_frame(store: TrackletStore, tracklet_id: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 (height, width, 3) of a tracklet's middle frame."""
    (encoded,) = store.images(tracklet_id, [store.num_frames(tracklet_id) // 2])
    return small_frame(encoded, size)


def small_frame(encoded: bytes, size: tuple[int, int] = CELL) -> np.ndarray:
    """A frame at another size: uint8 (height, width, 3)."""
    return decode_frame(encoded, size).permute(1, 2, 0).numpy()


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
    strip = Image.new("RGBA", (len(cells) * (width + CELL_GAP) - CELL_GAP, height))
    for place, cell in enumerate(cells):
        strip.paste(Image.fromarray(cell), (place * (width + CELL_GAP), 0))
    return strip


def on_white(strip: Image.Image) -> Image.Image:
    """A strip without transparency, and with a gap below it."""
    page = Image.new("RGB", (strip.width, strip.height + CELL_GAP), "white")
    page.paste(strip, mask=strip.getchannel("A"))
    return page


def png_bytes(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def webp_uri(picture: Image.Image | np.ndarray) -> str:
    """A data: address of a picture, for a self-contained page."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
