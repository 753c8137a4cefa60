"""What belongs to a camera and a tracklet: background, occluders, light, lens."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .person import CLOTHES, Canvas

OCCLUDER_LAYER = 30


@dataclass(frozen=True)
class Camera:
    """One camera.

    Attributes:
        yaw: radians, the usual walking direction, see person.View.
        elevation: radians, how far it looks down.
        gain: light and colour cast, one factor a channel.
        gamma: contrast.
        blur: standard deviation in pixels.
        resolution: share of the pixels that the sensor has; the crop is shrunk and enlarged again.
        noise: standard deviation of the sensor noise, 0 to 255.
        jpeg_quality: of the written files.
        background: picture larger than a crop; tracklets pass before different parts of it.
    """

    yaw: float
    elevation: float
    gain: tuple[float, float, float]
    gamma: float
    blur: float
    resolution: float
    noise: float
    jpeg_quality: int
    background: Image.Image


def sample_camera(rng: np.random.Generator, difficulty: float, height: int, width: int) -> Camera:
    """Draw a camera; differences between cameras grow with the difficulty."""
    light = rng.uniform(1 - 0.35 * difficulty, 1 + 0.25 * difficulty)
    cast = rng.uniform(1 - 0.18 * difficulty, 1 + 0.18 * difficulty, 3)
    red, green, blue = (light * cast).tolist()
    return Camera(
        yaw=rng.uniform(0, 2 * np.pi),
        elevation=rng.uniform(0.0, 0.3),
        gain=(red, green, blue),
        gamma=rng.uniform(1 - 0.25 * difficulty, 1 + 0.25 * difficulty),
        blur=rng.uniform(0.2, 0.4 + 0.9 * difficulty),
        resolution=rng.uniform(1 - 0.45 * difficulty, 1.0),
        noise=rng.uniform(1.0, 2.0 + 6.0 * difficulty),
        jpeg_quality=int(rng.integers(55, 92)),
        background=_background(rng, 3 * height // 2, 3 * width),
    )


def _background(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    base = rng.uniform(60, 190, 3)
    coarse = rng.normal(0, 1, (6, 8, 1)) * 22 + rng.normal(0, 7, (6, 8, 3)) + base
    picture = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(picture)
    horizon = int(height * rng.uniform(0.35, 0.6))
    ground = tuple(int(value) for value in rng.uniform(70, 170, 3))
    draw.rectangle((0, horizon, width, height), fill=ground)
    for _ in range(int(rng.integers(10, 22))):  # doors, windows, cars, posters
        x, y = rng.uniform(-30, width), rng.uniform(-20, height)
        w, h = rng.uniform(8, 90), rng.uniform(8, 110)
        colour = np.array(CLOTHES[rng.integers(len(CLOTHES))]) * 0.7 + base * 0.3
        draw.rectangle((x, y, x + w, y + h), fill=tuple(int(value) for value in colour))
    return picture.filter(ImageFilter.GaussianBlur(1.5))


def background_crop(camera: Camera, offset: float, height: int, width: int) -> Image.Image:
    """The part of the background behind a crop; the offset is 0 to 1 across the picture, wrapping round."""
    span = camera.background.width - width
    fold = abs((offset % 2.0) - 1.0)
    left = int(fold * span)
    top = (camera.background.height - height) // 2
    return camera.background.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class Occluder:
    """A box that stands in the scene before the person: a bin, a bonnet, a pillar.

    Attributes:
        x, y: centre of the box in the first frame, shares of the crop.
        width, height: shares of the crop.
        speed: share of the crop's width that it drifts a frame, against the walking direction.
        colour: RGB.
    """

    x: float
    y: float
    width: float
    height: float
    speed: float
    colour: tuple[int, int, int]


def sample_occluder(rng: np.random.Generator, num_frames: int) -> Occluder:
    """Draw an occluder that crosses the crop within the tracklet, or stays for all of it."""
    r, g, b = CLOTHES[rng.integers(len(CLOTHES))]
    speed = float(rng.choice([-1, 1]) * rng.uniform(0, 1.2) / max(num_frames, 1))
    colour = (int(r * 0.8), int(g * 0.8), int(b * 0.8))
    kind = rng.random()
    if kind < 0.5:  # low and wide: a wall, a car
        x, y, width, height = rng.uniform(0.2, 0.8), rng.uniform(0.72, 1.0), 1.1, 0.5
    elif kind < 0.8:  # tall and narrow: a pillar, a door
        x, y, width, height = rng.uniform(0.0, 1.0), 0.5, rng.uniform(0.2, 0.45), 1.2
    else:
        x, y, width, height = rng.uniform([0.1, 0.3, 0.3, 0.2], [0.9, 0.8, 0.6, 0.4]).tolist()
    return Occluder(x, y, width, height, speed, colour)


def paint_occluder(canvas: Canvas, occluder: Occluder, frame: int, height: int, width: int) -> None:
    x, y = (occluder.x + occluder.speed * frame) * width, occluder.y * height
    half_w, half_h = occluder.width * width / 2, occluder.height * height / 2
    canvas.layer = OCCLUDER_LAYER
    box = [np.array([x + sx * half_w, y + sy * half_h]) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    canvas.polygon(box, occluder.colour)
    r, g, b = occluder.colour
    canvas.polygon(
        [box[0], box[1], (box[1] * 5 + box[2]) / 6, (box[0] * 5 + box[3]) / 6],
        (min(r + 25, 255), min(g + 25, 255), min(b + 25, 255)),
    )


def expose(picture: np.ndarray, camera: Camera, gain: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Light, lens and sensor: uint8 (H, W, 3) as painted -> the crop as filmed.

    Args:
        gain: float (3,), the tracklet's own light on top of the camera's.
    """
    light = np.linspace(0, 1, 256)[:, None] ** camera.gamma * np.asarray(camera.gain) * gain * 255
    table = np.clip(light, 0, 255).astype(np.uint8)
    lit = Image.fromarray(np.stack([table[picture[..., c], c] for c in range(3)], axis=-1))
    height, width = picture.shape[:2]
    if camera.resolution < 0.98:
        small = (max(8, int(width * camera.resolution)), max(16, int(height * camera.resolution)))
        lit = lit.resize(small, Image.Resampling.BILINEAR).resize((width, height), Image.Resampling.BILINEAR)
    lit = lit.filter(ImageFilter.GaussianBlur(camera.blur))
    noise = rng.normal(0, camera.noise, (height, width, 1)) + rng.normal(0, camera.noise * 0.4, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(lit, dtype=np.float32) + noise, 0, 255).astype(np.uint8))


def encode(image: Image.Image, camera: Camera, file_format: str) -> bytes:
    """The file's bytes: "JPEG" at the camera's quality, or "PNG"."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, quality=camera.jpeg_quality, compress_level=3)  # each format takes its own
    return buffer.getvalue()
