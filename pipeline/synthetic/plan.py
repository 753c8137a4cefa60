"""Which tracklets a synthetic dataset has, and how each is rendered from the seed alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
from PIL import Image

from ..errors import SettingsError
from .appearance import sample_appearance
from .scene import Camera, encode, sample_camera
from .tracklets import HEIGHT, WIDTH, render_tracklet

LOOK_ALIKES = 4  # identities that share a wardrobe
JUNK, DISTRACTOR = -1, 0  # identity numbers, as in MARS

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
        checks = [
            (self.num_identities >= 4 and self.num_identities % 2 == 0, "num_identities", "an even number from 4"),
            (2 <= self.num_cameras <= 9, "num_cameras", "2 to 9"),
            (1 <= self.tracklets_per_camera <= 99, "tracklets_per_camera", "1 to 99"),
            (1 <= self.min_frames <= self.max_frames <= 999, "min_frames and max_frames", "1 <= min <= max <= 999"),
            (0 <= self.difficulty <= 1, "difficulty", "0 to 1"),
            (self.seed >= 0, "seed", "0 or more"),
        ]
        for fine, name, expected in checks:
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
    """Encoded frames and their true keypoints, float32 (F, 17, 3), see tracklets.SyntheticFrame."""

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
        file_format: "JPEG" or "PNG".
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
    camera = _camera(settings, planned.camera)
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


def _camera(settings: SyntheticSettings, number: int) -> Camera:
    rng = np.random.default_rng([settings.seed, _CAMERA, number])
    return sample_camera(rng, settings.difficulty, HEIGHT, WIDTH)
