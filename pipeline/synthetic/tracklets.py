"""One tracklet: a person walks past a camera; the frames and the true keypoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..skeleton import JOINTS, NUM_JOINTS
from .appearance import Appearance, sample_appearance
from .canvas import Canvas
from .gait import ProjectedBody, View, project, walk
from .person import LAYERS, paint_person
from .scene import Camera, Occluder, background_crop, expose, paint_occluder, sample_occluder

HEIGHT, WIDTH = 256, 128
STRANGER_LAYERS = {name: 10 + number for name, number in LAYERS.items()}

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
class SyntheticFrame:
    """One crop.

    Attributes:
        image: RGB, 128 wide and 256 high.
        keypoints: float32 (17, 3): x, y in pixels; 1 where the joint can be seen, 0 where it is hidden or outside.
        stranger: the same for a second person; all zero where there is none.
    """

    image: Image.Image
    keypoints: np.ndarray
    stranger: np.ndarray


@dataclass(frozen=True)
class Passage:
    """How a tracklet goes: drawn once, then every frame follows from it."""

    view: View
    turn: float
    phase: float
    phase_step: float
    stranger: Appearance | None
    stranger_view: View
    stranger_speed: float
    stranger_in_front: bool
    occluder: Occluder | None
    background_start: float
    background_speed: float
    gain: np.ndarray


def render_tracklet(
    appearance: Appearance | None,
    camera: Camera,
    num_frames: int,
    difficulty: float,
    rng: np.random.Generator,
) -> Iterator[SyntheticFrame]:
    """Yield the frames of one tracklet.

    Args:
        appearance: the person; None for a false detection (background, perhaps a passer-by at the edge).
        camera: where.
        num_frames: how many.
        difficulty: 0 to 1: more occluders, strangers, jitter and turning.
        rng: all draws of this tracklet.
    """
    passage = _sample_passage(camera, num_frames, difficulty, rng)
    jitter = np.zeros(3)
    for frame in range(num_frames):
        jitter = 0.8 * jitter + rng.normal(0, 1, 3) * np.array([1.6, 2.2, 2.5]) * (0.3 + difficulty)
        offset = passage.background_start + passage.background_speed * frame
        canvas = Canvas(background_crop(camera, offset, HEIGHT, WIDTH))
        view = replace(
            passage.view,
            yaw=passage.view.yaw + passage.turn * frame,
            x=passage.view.x + jitter[0],
            y=passage.view.y + jitter[1],
            height=passage.view.height + jitter[2],
        )
        stranger = _stranger_body(passage, frame)
        if stranger is not None and not passage.stranger_in_front:
            _paint_stranger(canvas, passage, stranger)
        body = None
        if appearance is not None:
            body = project(walk(appearance, passage.phase + passage.phase_step * frame), view)
            paint_person(canvas, body, appearance, LAYERS)
        if stranger is not None and passage.stranger_in_front:
            _paint_stranger(canvas, passage, stranger)
        if passage.occluder is not None:
            paint_occluder(canvas, passage.occluder, frame, HEIGHT, WIDTH)
        image = expose(canvas.picture(), camera, passage.gain, rng)
        layers = canvas.layers()
        yield SyntheticFrame(
            image, seen_keypoints(body, layers, LAYERS), seen_keypoints(stranger, layers, STRANGER_LAYERS)
        )


def _sample_passage(camera: Camera, num_frames: int, difficulty: float, rng: np.random.Generator) -> Passage:
    away = np.pi if rng.random() < 0.3 * difficulty else 0.0  # some walk the other way
    yaw = camera.yaw + away + rng.normal(0, 0.25 + 0.35 * difficulty)
    view = View(yaw, camera.elevation, rng.uniform(205, 235), WIDTH / 2 + rng.normal(0, 4), rng.uniform(240, 250))
    stranger = None
    if rng.random() < 0.4 * difficulty:
        stranger = sample_appearance(rng, 0.0, rng)
    side = float(rng.choice([-1.0, 1.0]))
    stranger_view = View(
        yaw + rng.normal(0, 0.6) + (np.pi if rng.random() < 0.4 else 0.0),
        camera.elevation,
        view.height * rng.uniform(0.8, 1.05),
        WIDTH / 2 + side * rng.uniform(0.35, 0.55) * WIDTH,
        view.y + rng.uniform(-12, 10),
    )
    return Passage(
        view=view,
        turn=float(rng.normal(0, 0.04)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        phase_step=float(rng.uniform(0.45, 0.75)),
        stranger=stranger,
        stranger_view=stranger_view,
        stranger_speed=float(-side * rng.uniform(0, 0.5) * WIDTH / max(num_frames, 1)),
        stranger_in_front=bool(rng.random() < 0.35),
        occluder=sample_occluder(rng, num_frames) if rng.random() < 0.6 * difficulty else None,
        background_start=float(rng.uniform(0, 2)),
        background_speed=float(rng.uniform(-0.03, 0.03)),
        gain=rng.uniform(1 - 0.12 * difficulty, 1 + 0.12 * difficulty) * rng.uniform(0.96, 1.04, 3),
    )


def _stranger_body(passage: Passage, frame: int) -> ProjectedBody | None:
    if passage.stranger is None:
        return None
    view = replace(passage.stranger_view, x=passage.stranger_view.x + passage.stranger_speed * frame)
    return project(walk(passage.stranger, passage.phase + 1.0 + passage.phase_step * frame), view)


def _paint_stranger(canvas: Canvas, passage: Passage, body: ProjectedBody) -> None:
    assert passage.stranger is not None
    paint_person(canvas, body, passage.stranger, STRANGER_LAYERS)


def seen_keypoints(body: ProjectedBody | None, layers: np.ndarray, own: dict[str, int]) -> np.ndarray:
    """float32 (17, 3): the joints in pixels, and whether each can be seen.

    Args:
        body: the person, or None: all zero.
        layers: map of painted layers, see Canvas.layers.
        own: the person's own layers, see person.LAYERS.
    """
    height, width = layers.shape
    result = np.zeros((NUM_JOINTS, 3), np.float32)
    if body is None:
        return result
    for index, name in enumerate(JOINTS):
        x, y, near = body.points[name]
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
            seen = near > body.points["head"][2] - 0.012 and (patch == own["head"]).any()
        result[index, 2] = float(seen)
    return result
