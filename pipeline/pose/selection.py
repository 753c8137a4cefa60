"""Which of the people in each frame is the tracklet's own: one choice for the whole tracklet, not one a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isfinite, log
from typing import TypeVar

import numpy as np

from ..errors import SettingsError
from ..skeleton import NUM_JOINTS
from .evidence import PersonLike, body_height, off_centre, similarities, stack_poses

P = TypeVar("P", bound=PersonLike)
Frames = Sequence[Sequence[P] | None]  # the people of each frame; None where the frame could not be read
Sizes = Sequence[tuple[int, int]]  # width and height of each frame; anything where it could not be read
UNITS = 1_000_000  # evidence is added in whole millionths: exact in any order, so that rounding never decides


@dataclass(frozen=True)
class SelectionSettings:
    """Weights of the evidence; a frame for which nobody is chosen counts 0. Reasons: docs/selection.md.

    Attributes:
        person: reward of choosing anybody: a doubtful person is better than none.
        score: times PifPaf's score; small: in the measurements place and continuity told more.
        centre: cost at the crop's edge, growing with the square of the distance: crops are cut around their person.
        size: cost of a body half or twice as high as expected, growing with the logarithm: a crop fits its person.
        expected_height: of the person's body, in crop heights.
        jump: cost of two successive choices that have nothing in common: people do not leap.
        alike: similarity from which two successive choices may be one person, and cost nothing.
        reach: frames after which the earlier choice is forgotten: the cost of a jump falls to 0 in a line.
        neutral: joints of similarity one half added to every comparison: few common joints say little.
        min_confidence: joints under it count as not found; decoders may be told to give joints that they do not see.
    """

    person: float = 0.85
    score: float = 0.2
    centre: float = 2.75
    size: float = 1.0
    expected_height: float = 0.85
    jump: float = 8.0
    alike: float = 0.5
    reach: int = 8
    neutral: float = 2.0
    min_confidence: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isfinite(value) and value >= 0):
                raise SettingsError(f"{field.name} is {value}", "a finite number, 0 or more")
        for name in ("expected_height", "alike", "reach", "neutral", "min_confidence"):
            if getattr(self, name) == 0:
                raise SettingsError(f"{name} is 0", "more than 0")


def best_scores(frames: Frames[P]) -> list[P | None]:
    """The authors' rule: the person with the best score in each frame, whoever that is."""
    return [min(people, key=_order) if people else None for people in frames]


def select_people(frames: Frames[P], sizes: Sizes, settings: SelectionSettings | None = None) -> list[P | None]:
    """Choose at most one person a frame so that the whole tracklet makes sense.

    The choice maximises the sum of every chosen person's own evidence (see own_evidence) less the cost of each jump
    (see jump_costs) between successive choices, over all choices there are; found by dynamic programming. It depends
    on the tracklet alone, not on the order of the people in a frame. Played backwards it gives the same, exact
    ties of whole choices aside.

    Args:
        frames: the people of each frame, in time order; None for a frame that could not be read.
        sizes: width and height of each frame in pixels.
        settings: weights; None for the default.

    Returns:
        One entry a frame: one of its people, or None.

    Raises:
        SettingsError: not one size a frame.
    """
    settings = settings or SelectionSettings()
    if len(sizes) != len(frames):
        raise SettingsError(f"{len(sizes)} sizes for {len(frames)} frames", "one width and height a frame")
    ordered = [sorted(people or (), key=_order) for people in frames]
    poses = [stack_poses(people, size) for people, size in zip(ordered, sizes, strict=True)]
    places = [(frame, person) for frame, people in enumerate(ordered) for person in people]
    flat, times = np.concatenate([np.zeros((0, NUM_JOINTS, 3)), *poses]), np.array([frame for frame, _ in places], int)
    own = [
        own_evidence(person, pose, sizes[frame], settings) for (frame, person), pose in zip(places, flat, strict=True)
    ]
    result: list[P | None] = [None] * len(frames)
    for index in best_chain(flat, times, np.array(own), settings):
        frame, person = places[index]
        result[frame] = person
    return result


def own_evidence(person: PersonLike, pose: np.ndarray, size: tuple[int, int], settings: SelectionSettings) -> float:
    """What a person's score, place and size say: more than 0 is better than nobody.

    Args:
        person: as detected.
        pose: float (17, 3), the same person's, see evidence.in_crop.
        size: width and height of the frame in pixels.
        settings: weights.
    """
    height = body_height(pose, settings.min_confidence)
    misfit = 0.0 if height is None else min(2.0, abs(log(max(height, 1e-3) / settings.expected_height)) / log(2))
    centre = off_centre(pose, size, settings.min_confidence)
    return settings.person + settings.score * person.score - settings.centre * centre**2 - settings.size * misfit


def jump_costs(pose: np.ndarray, earlier: np.ndarray, gaps: np.ndarray, settings: SelectionSettings) -> np.ndarray:
    """float (N,): cost of choosing a pose right after each of N earlier ones.

    Args:
        pose: float (17, 3), see evidence.in_crop.
        earlier: float (N, 17, 3).
        gaps: int (N,), how many frames earlier; 1 is the frame before.
        settings: weights.
    """
    fade = np.maximum(0, 1 - (gaps - 1) / settings.reach)
    alike = similarities(pose, earlier, settings.min_confidence, settings.neutral)
    return settings.jump * np.maximum(0, 1 - alike / settings.alike) * fade


def _order(person: PersonLike) -> tuple[float, bytes]:
    """Ranks the people of a frame by what they are, so that their order does not matter even where two are equal."""
    return -person.score, np.ascontiguousarray(person.keypoints, np.float32).tobytes()


def best_chain(poses: np.ndarray, times: np.ndarray, own: np.ndarray, settings: SelectionSettings) -> list[int]:
    """The candidates whose sum of own evidence less jump costs is greatest, at most one a frame, in time order.

    totals[i] is the best sum of a chain that ends in candidate i. Jumps over more than `reach` frames are free.

    Args:
        poses: float (N, 17, 3), see evidence.in_crop, sorted by frame.
        times: int (N,), the frame of each.
        own: float (N,), the evidence of each.
        settings: weights.
    """
    totals, previous = np.rint(own * UNITS).astype(np.int64), np.full(len(own), -1)
    for index, frame in enumerate(times):
        near, now = np.searchsorted(times, [frame - settings.reach, frame])
        options = totals[:now].copy()
        costs = jump_costs(poses[index], poses[near:now], frame - times[near:now], settings)
        options[near:] -= np.rint(costs * UNITS).astype(np.int64)
        if options.max(initial=0) > 0:
            previous[index] = options.argmax()
            totals[index] += options.max()
    chain: list[int] = []
    index = int(totals.argmax()) if totals.max(initial=0) > 0 else -1
    while index >= 0:
        chain.append(index)
        index = int(previous[index])
    return chain[::-1]
