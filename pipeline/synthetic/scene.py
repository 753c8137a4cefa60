"""What belongs to a camera and a tracklet: background, occluders, light, lens; and a tracklet's frames of all that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..skeleton import JOINTS, NUM_JOINTS
from .person import (
    CLOTHES,
    LAYERS,
    Appearance,
    Canvas,
    Colour,
    Points,
    View,
    paint_person,
    project,
    sample_appearance,
    walk,
)

HEIGHT, WIDTH = 256, 128  # pixels of a rendered frame; layouts may write smaller ones
STRANGER_LAYERS = {name: 10 + number for name, number in LAYERS.items()}
OCCLUDER_LAYER = 30

# The pieces on the map where a joint counts as seen; a joint behind anything else is hidden.
_SEEN_ON = {
    "shoulder": ("trunk", "{side}_arm", "backpack", "head"),
    "hip": ("trunk", "{side}_leg", "{side}_arm"),
    "elbow": ("{side}_arm",),
    "wrist": ("{side}_arm",),
    "knee": ("{side}_leg",),
    "ankle": ("{side}_leg",),
}


@dataclass(frozen=True)
class Camera:
    """What all crops of one camera have in common."""

    yaw: float  # radians, the usual walking direction, see person.View
    elevation: float  # radians, how far it looks down
    gain: tuple[float, float, float]  # light and colour cast, one factor per channel
    gamma: float  # contrast
    blur: float  # standard deviation in pixels
    resolution: float  # share of the pixels that the sensor has; the crop is shrunk and enlarged again
    noise: float  # standard deviation of the sensor noise, 0 to 255
    jpeg_quality: int
    background: Image.Image  # larger than a crop; tracklets pass before different parts of it
    saturation: float = 1.0  # 0 makes it grey
    slope: tuple[float, float] = (
        0.0,
        0.0,
    )  # light across the crop, to the right and down: the factor rises from 1 - s to 1 + s


def sample_camera(rng: np.random.Generator, difficulty: float) -> Camera:
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
        background=_background(rng, 3 * HEIGHT // 2, 3 * WIDTH),
    )


def _background(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    base = rng.uniform(60, 190, 3)
    coarse = rng.normal(0, 1, (6, 8, 1)) * 22 + rng.normal(0, 7, (6, 8, 3)) + base
    picture = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
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


def background_crop(camera: Camera, offset: float) -> Image.Image:
    """The part of the background behind a crop; the offset is 0 to 1 across the picture, wrapping round."""
    left = int(abs((offset % 2.0) - 1.0) * (camera.background.width - WIDTH))
    top = (camera.background.height - HEIGHT) // 2
    return camera.background.crop((left, top, left + WIDTH, top + HEIGHT))


@dataclass(frozen=True)
class Occluder:
    """A box that stands in the scene before the person: a bin, a bonnet, a pillar. Lengths are shares of the crop."""

    x: float  # centre of the box in the first frame
    y: float
    width: float
    height: float
    speed: float  # share of the crop's width that it drifts per frame, against the walking direction
    colour: Colour


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


def paint_occluder(canvas: Canvas, occluder: Occluder, frame: int) -> None:
    x, y = (occluder.x + occluder.speed * frame) * WIDTH, occluder.y * HEIGHT
    half_w, half_h = occluder.width * WIDTH / 2, occluder.height * HEIGHT / 2
    box = [np.array([x + sx * half_w, y + sy * half_h]) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    upper = [box[0], box[1], (box[1] * 5 + box[2]) / 6, (box[0] * 5 + box[3]) / 6]
    r, g, b = (min(channel + 25, 255) for channel in occluder.colour)
    canvas.layer = OCCLUDER_LAYER
    canvas.polygon(box, occluder.colour)
    canvas.polygon(upper, (r, g, b))


def expose(picture: np.ndarray, camera: Camera, gain: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Light, lens and sensor: uint8 (H, W, 3) as painted -> the crop as filmed.

    Args:
        gain: float (3,), the tracklet's own light on top of the camera's.
    """
    if camera.saturation != 1 or camera.slope != (0, 0):
        picture = _tone(picture, camera)
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


def _tone(picture: np.ndarray, camera: Camera) -> np.ndarray:
    """uint8 (H, W, 3) with the camera's saturation and its light across the crop."""
    height, width = picture.shape[:2]
    grey = picture.mean(axis=2, keepdims=True)
    across = np.add.outer(camera.slope[1] * np.linspace(-1, 1, height), camera.slope[0] * np.linspace(-1, 1, width))
    toned = (grey + camera.saturation * (picture - grey)) * (1 + across)[..., None]
    return np.clip(toned, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class SyntheticFrame:
    """One crop and what is true of it."""

    image: Image.Image  # RGB, 128 wide and 256 high
    keypoints: np.ndarray  # float32 (17, 3): x, y in pixels; 1 where the joint can be seen, 0 where hidden or outside
    stranger: np.ndarray  # the same for a second person; all zero where there is none


def render_tracklet(
    appearance: Appearance | None, camera: Camera, num_frames: int, difficulty: float, rng: np.random.Generator
) -> Iterator[SyntheticFrame]:
    """Yield the frames of one tracklet; how it goes is drawn once, then every frame follows from it.

    Args:
        appearance: the person; None for a false detection (background, perhaps a passer-by at the edge).
        difficulty: 0 to 1: more occluders, strangers, jitter and turning.
    """
    away = np.pi if rng.random() < 0.3 * difficulty else 0.0  # some walk the other way
    yaw = camera.yaw + away + rng.normal(0, 0.25 + 0.35 * difficulty)
    own_view = View(yaw, camera.elevation, rng.uniform(205, 235), WIDTH / 2 + rng.normal(0, 4), rng.uniform(240, 250))
    stranger_looks = sample_appearance(rng, 0.0, rng) if rng.random() < 0.4 * difficulty else None
    side = float(rng.choice([-1.0, 1.0]))
    stranger_view = View(
        yaw + rng.normal(0, 0.6) + (np.pi if rng.random() < 0.4 else 0.0),
        camera.elevation,
        own_view.height * rng.uniform(0.8, 1.05),
        WIDTH / 2 + side * rng.uniform(0.35, 0.55) * WIDTH,
        own_view.y + rng.uniform(-12, 10),
    )
    turn = rng.normal(0, 0.04)
    phase, phase_step = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 0.75)
    stranger_speed = -side * rng.uniform(0, 0.5) * WIDTH / max(num_frames, 1)
    stranger_in_front = rng.random() < 0.35
    occluder = sample_occluder(rng, num_frames) if rng.random() < 0.6 * difficulty else None
    background_start, background_speed = rng.uniform(0, 2), rng.uniform(-0.03, 0.03)
    gain = rng.uniform(1 - 0.12 * difficulty, 1 + 0.12 * difficulty) * rng.uniform(0.96, 1.04, 3)
    jitter = np.zeros(3)
    for frame in range(num_frames):
        jitter = 0.8 * jitter + rng.normal(0, 1, 3) * np.array([1.6, 2.2, 2.5]) * (0.3 + difficulty)
        canvas = Canvas(background_crop(camera, background_start + background_speed * frame))
        step = phase_step * frame
        body = stranger = None
        people = []  # painted in this order
        if stranger_looks is not None:
            view = replace(stranger_view, x=stranger_view.x + stranger_speed * frame)
            stranger = project(walk(stranger_looks, phase + 1.0 + step), view)
            people.append((stranger, view, stranger_looks, STRANGER_LAYERS))
        if appearance is not None:
            x, y, height = own_view.x + jitter[0], own_view.y + jitter[1], own_view.height + jitter[2]
            view = replace(own_view, yaw=own_view.yaw + turn * frame, x=x, y=y, height=height)
            body = project(walk(appearance, phase + step), view)
            people.append((body, view, appearance, LAYERS))
        for person in reversed(people) if stranger_in_front else people:
            paint_person(canvas, *person)
        if occluder is not None:
            paint_occluder(canvas, occluder, frame)
        picture, layers = canvas.finish()
        own, other = seen_keypoints(body, layers, LAYERS), seen_keypoints(stranger, layers, STRANGER_LAYERS)
        yield SyntheticFrame(expose(picture, camera, gain, rng), own, other)


def seen_keypoints(body: Points | None, layers: np.ndarray, own: dict[str, int]) -> np.ndarray:
    """float32 (17, 3): the joints in pixels, and whether each can be seen; all zero without a body.

    `layers` is the canvas's map, `own` the numbers there of the body's pieces.
    """
    height, width = layers.shape
    result = np.zeros((NUM_JOINTS, 3), np.float32)
    if body is None:
        return result
    for index, name in enumerate(JOINTS):
        x, y, near = body[name]
        result[index, :2] = x, y
        column, row = int(x), int(y)
        if not (0 <= column < width and 0 <= row < height):
            continue
        side, _, joint = name.rpartition("_")
        if joint in _SEEN_ON:
            pieces = [piece.format(side=side) for piece in _SEEN_ON[joint]]
            seen = layers[row, column] in [own[piece] for piece in pieces]
        else:  # on the head: turned towards the camera, or on its rim
            patch = layers[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            seen = near > body["head"][2] - 0.012 and (patch == own["head"]).any()
        result[index, 2] = float(seen)
    return result
