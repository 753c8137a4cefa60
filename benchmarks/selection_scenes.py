"""Tracklets in which choosing a person is hard: a second person, and things that hide the first one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from keyreid.pipeline.synthetic.person import (
    LAYERS,
    Canvas,
    Points,
    View,
    paint_person,
    project,
    sample_appearance,
    walk,
)
from keyreid.pipeline.synthetic.scene import (
    STRANGER_LAYERS,
    WIDTH,
    Camera,
    SyntheticFrame,
    background_crop,
    expose,
    paint_occluder,
    render_tracklet,
    sample_camera,
    sample_occluder,
    seen_keypoints,
)

SEED_BASE = 9_100_000  # far from the seeds of datasets and of the demo network's training
NUM_FRAMES = 24


@dataclass(frozen=True)
class Scene:
    """A kind of tracklet.

    Attributes:
        name: in the table.
        difficulty: of camera and people, see render_tracklet.
        second: the second person: "none", "beside" as keyreid-prep synthesize draws them, "crossing" the whole crop, or
            "far behind": crossing, half as high.
        occluder: whether something else hides the person for a while; with "crossing" and "far behind" alone.
    """

    name: str
    difficulty: float
    second: str
    occluder: bool = False


SCENES = (
    Scene("beside", 0.6, "beside"),
    Scene("beside, hard", 1.0, "beside"),
    Scene("crossing", 0.6, "crossing"),
    Scene("crossing and occluder, hard", 1.0, "crossing", occluder=True),
    Scene("far behind and occluder", 0.6, "far behind", occluder=True),
    Scene("alone, hard", 1.0, "none"),
)


def draw_tracklets(scene: Scene, seed: int, count: int) -> Iterator[list[SyntheticFrame]]:
    """Yield `count` tracklets of a scene, every one with a second person or every one without."""
    number, drawn = 0, 0
    while drawn < count:
        rng = np.random.default_rng([SEED_BASE, seed, SCENES.index(scene), number])
        number += 1
        camera = sample_camera(rng, scene.difficulty)
        if scene.second in ("crossing", "far behind"):
            frames = _crossing(scene, camera, rng)
        else:
            appearance = sample_appearance(rng, scene.difficulty, rng)
            frames = render_tracklet(appearance, camera, NUM_FRAMES, scene.difficulty, rng)
        first = next(frames)
        there = bool(first.stranger.any())  # x and y are there even while the stranger is outside
        if there == (scene.second != "none"):
            drawn += 1
            yield [first, *frames]


def _crossing(scene: Scene, camera: Camera, rng: np.random.Generator) -> Iterator[SyntheticFrame]:
    """Somebody walks through the crop from one side to the other; if not far, as often before the person as behind."""
    people = [sample_appearance(rng, scene.difficulty, rng) for _ in range(2)]
    height, ground = rng.uniform(205, 235), rng.uniform(240, 250)
    yaw, side, phase, step = camera.yaw + rng.normal(0, 0.4), rng.choice([-1, 1]), rng.uniform(0, 6), 0.6
    own = View(yaw, camera.elevation, height, WIDTH / 2 + rng.normal(0, 4), ground)
    far = scene.second == "far behind"
    smaller = height * (rng.uniform(0.4, 0.6) if far else rng.uniform(0.85, 1.05))
    level = ground + (-0.2 * height if far else rng.uniform(-12, 10))
    other = replace(own, yaw=yaw + np.pi, height=smaller, y=level)
    start, duration = rng.uniform(-0.1, 0.4), rng.uniform(0.4, 1.0)  # shares of the tracklet
    in_front = not far and rng.random() < 0.5
    occluder = sample_occluder(rng, NUM_FRAMES) if scene.occluder else None
    jitter = np.zeros(3)
    for frame in range(NUM_FRAMES):
        jitter = 0.8 * jitter + rng.normal(0, 1, 3) * np.array([1.6, 2.2, 2.5]) * (0.3 + scene.difficulty)
        progress = (frame / NUM_FRAMES - start) / duration
        x, y, size = own.x + jitter[0], own.y + jitter[1], own.height + jitter[2]
        views = [replace(own, x=x, y=y, height=size), replace(other, x=WIDTH * (0.5 + side * (0.75 - 1.5 * progress)))]
        bodies = [
            project(walk(person, phase + number + step * frame), view)
            for number, (person, view) in enumerate(zip(people, views, strict=True))
        ]
        canvas = Canvas(background_crop(camera, 0.02 * frame))
        for number in (0, 1) if in_front else (1, 0):
            paint_person(canvas, bodies[number], views[number], people[number], (LAYERS, STRANGER_LAYERS)[number])
        if occluder is not None:
            paint_occluder(canvas, occluder, frame)
        yield _frame(canvas, camera, bodies, rng)


def _frame(canvas: Canvas, camera: Camera, bodies: list[Points], rng: np.random.Generator) -> SyntheticFrame:
    picture, layers = canvas.finish()
    person, stranger = (
        seen_keypoints(body, layers, own) for body, own in zip(bodies, (LAYERS, STRANGER_LAYERS), strict=True)
    )
    return SyntheticFrame(expose(picture, camera, np.ones(3), rng), person, stranger)
