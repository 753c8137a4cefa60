"""Which tracklets a synthetic dataset has, and how each is rendered from the seed alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context

import numpy as np
from PIL import Image

from ..errors import SettingsError
from ..skeleton import JOINTS, NUM_JOINTS
from .person import LAYERS, Appearance, Canvas, ProjectedBody, View, paint_person, project, sample_appearance, walk
from .scene import Camera, background_crop, encode, expose, paint_occluder, sample_camera, sample_occluder

LOOK_ALIKES = 4  # identities that share a wardrobe
JUNK, DISTRACTOR = -1, 0  # identity numbers, as in MARS

HEIGHT, WIDTH = 256, 128  # pixels of a rendered frame; layouts may write smaller ones
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

# First words of the random streams, so that no two draws share one.
_IDENTITY, _GROUP, _CAMERA, _PASSAGE, _PLAN = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class SyntheticSettings:
    """What a synthetic dataset depends on; equal settings give equal bytes.

    Attributes:
        num_identities: people, half of them in the test split; even.
        num_cameras: 2 to 9.
        tracklets_per_camera: of each person under each camera.
        min_frames, max_frames: length of a tracklet.
        difficulty: 0 (own colours, clean pictures) to 1 (look-alikes, occluders, strangers, strong casts).
        seed: of every draw.
    """

    num_identities: int = 48
    num_cameras: int = 4
    tracklets_per_camera: int = 2
    min_frames: int = 6
    max_frames: int = 12
    difficulty: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        for fine, name, expected in (
            (self.num_identities >= 4 and self.num_identities % 2 == 0, "num_identities", "an even number from 4"),
            (2 <= self.num_cameras <= 9, "num_cameras", "2 to 9"),
            (1 <= self.tracklets_per_camera <= 99, "tracklets_per_camera", "1 to 99"),
            (1 <= self.min_frames <= self.max_frames <= 999, "min_frames and max_frames", "1 <= min <= max <= 999"),
            (0 <= self.difficulty <= 1, "difficulty", "0 to 1"),
            (self.seed >= 0, "seed", "0 or more"),
        ):
            if not fine:
                values = ", ".join(str(getattr(self, part)) for part in name.split(" and "))
                raise SettingsError(f"{name} is {values}", expected)


@dataclass(frozen=True)
class PlannedTracklet:
    """One tracklet to render: person `appearance` (None: nobody) under `camera`, the number-th of its kind."""

    split: str
    identity: int
    appearance: int | None
    camera: int
    number: int
    num_frames: int


@dataclass(frozen=True)
class RenderedTracklet:
    """Encoded frames and their true keypoints, float32 (F, 17, 3), see SyntheticFrame."""

    planned: PlannedTracklet
    encoded: tuple[bytes, ...]
    keypoints: np.ndarray


def plan_tracklets(settings: SyntheticSettings, *, extras: bool) -> list[PlannedTracklet]:
    """The tracklets of the dataset: "train" and "test" by identity; with `extras` also distractors and junk."""
    rng = np.random.default_rng([settings.seed, _PLAN])
    train = set((1 + rng.permutation(settings.num_identities)[: settings.num_identities // 2]).tolist())
    planned = []

    def add(split: str, identity: int, appearance: int | None, camera: int, number: int) -> None:
        num_frames = int(rng.integers(settings.min_frames, settings.max_frames + 1))
        planned.append(PlannedTracklet(split, identity, appearance, camera, number, num_frames))

    if extras:
        num_tests = settings.num_identities // 2 * settings.num_cameras * settings.tracklets_per_camera
        for number in range(1, 2 + num_tests // 30):
            add("test", JUNK, None, int(rng.integers(1, settings.num_cameras + 1)), number)
        for number in range(1, 2 + num_tests // 10):
            stranger = settings.num_identities + number
            add("test", DISTRACTOR, stranger, int(rng.integers(1, settings.num_cameras + 1)), number)
    for identity in range(1, settings.num_identities + 1):
        split = "train" if identity in train else "test"
        for camera in range(1, settings.num_cameras + 1):
            for number in range(1, settings.tracklets_per_camera + 1):
                add(split, identity, identity, camera, number)
    return planned


def render_all(
    settings: SyntheticSettings,
    planned: Iterable[PlannedTracklet],
    *,
    size: tuple[int, int],
    file_format: str,
    workers: int,
) -> Iterator[RenderedTracklet]:
    """Render in the given order; the bytes do not depend on the number of workers.

    Args:
        size: height and width of the written frames.
        file_format: see scene.encode.
    """
    render = partial(render_planned, settings, size=size, file_format=file_format)
    if workers <= 1:
        yield from map(render, planned)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(render, planned, chunksize=4)


def render_planned(
    settings: SyntheticSettings, planned: PlannedTracklet, *, size: tuple[int, int], file_format: str
) -> RenderedTracklet:
    """Render one tracklet; see render_all."""
    of_camera = np.random.default_rng([settings.seed, _CAMERA, planned.camera])
    camera = sample_camera(of_camera, settings.difficulty, HEIGHT, WIDTH)
    rng = np.random.default_rng(
        [settings.seed, _PASSAGE, 1 + planned.identity, planned.camera, planned.number, int(planned.split == "train")]
    )
    appearance = None
    if planned.appearance is not None:
        own = np.random.default_rng([settings.seed, _IDENTITY, planned.appearance])
        group = np.random.default_rng([settings.seed, _GROUP, planned.appearance // LOOK_ALIKES])
        appearance = sample_appearance(own, settings.difficulty, group)
    encoded, keypoints = [], []
    scale = np.array([size[1] / WIDTH, size[0] / HEIGHT, 1.0], np.float32)
    for frame in render_tracklet(appearance, camera, planned.num_frames, settings.difficulty, rng):
        image = frame.image if size == (HEIGHT, WIDTH) else frame.image.resize(size[::-1], Image.Resampling.BOX)
        encoded.append(encode(image, camera, file_format))
        keypoints.append(frame.keypoints * scale)
    return RenderedTracklet(planned, tuple(encoded), np.stack(keypoints))


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
        canvas = Canvas(background_crop(camera, background_start + background_speed * frame, HEIGHT, WIDTH))
        step = phase_step * frame
        body = stranger = None
        people = []  # painted in this order
        if stranger_looks is not None:
            view = replace(stranger_view, x=stranger_view.x + stranger_speed * frame)
            stranger = project(walk(stranger_looks, phase + 1.0 + step), view)
            people.append((stranger, stranger_looks, STRANGER_LAYERS))
        if appearance is not None:
            x, y, height = own_view.x + jitter[0], own_view.y + jitter[1], own_view.height + jitter[2]
            view = replace(own_view, yaw=own_view.yaw + turn * frame, x=x, y=y, height=height)
            body = project(walk(appearance, phase + step), view)
            people.append((body, appearance, LAYERS))
        for one, looks, marks in reversed(people) if stranger_in_front else people:
            paint_person(canvas, one, looks, marks)
        if occluder is not None:
            paint_occluder(canvas, occluder, frame, HEIGHT, WIDTH)
        image, layers = expose(canvas.picture(), camera, gain, rng), canvas.layers()
        yield SyntheticFrame(
            image, seen_keypoints(body, layers, LAYERS), seen_keypoints(stranger, layers, STRANGER_LAYERS)
        )


def seen_keypoints(body: ProjectedBody | None, layers: np.ndarray, own: dict[str, int]) -> np.ndarray:
    """float32 (17, 3): the joints in pixels, and whether each can be seen; all zero without a body.

    `layers` are Canvas.layers, `own` the numbers there of the body's pieces.
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
