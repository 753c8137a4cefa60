"""Which of the people in each frame is the tracklet's own: one choice per tracklet, not one per frame.

A pose is float64 (17, 3): x, y from the crop's centre in crop heights, and confidence; joints under `min_confidence`
count as not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from math import isfinite, log
from typing import Protocol, TypeVar

import numpy as np

from ..errors import SettingsError
from ..skeleton import JOINT_INDEX, NUM_JOINTS

# Where joints lie on an upright body, as shares of its height from the top; wrists and elbows swing too much to tell.
_LEVELS = {"nose": 0.07, "eye": 0.06, "ear": 0.07, "shoulder": 0.18, "hip": 0.50, "knee": 0.73, "ankle": 0.95}
# How far a joint of the same person moves from frame to frame: standard deviations, shares of the crop's height.
_MOTION = {
    "nose": 0.05, "eye": 0.05, "ear": 0.05, "shoulder": 0.05, "hip": 0.05,
    "elbow": 0.08, "knee": 0.08, "wrist": 0.12, "ankle": 0.12,
}  # fmt: skip
MIN_LEVELS = 0.25  # joints that span less of the body than this do not tell its height


def _by_joint(values: dict[str, float]) -> np.ndarray:
    """float (17,): the value of each joint, NaN where it has none."""
    return np.array([values.get(name.rpartition("_")[2], np.nan) for name in JOINT_INDEX])


LEVELS, MOTION = _by_joint(_LEVELS), _by_joint(_MOTION)


class PersonLike(Protocol):
    """A detected person: score 0 to 1; keypoints float32 (17, 3): x, y in pixels of the frame, confidence 0 to 1."""

    @property
    def score(self) -> float: ...

    @property
    def keypoints(self) -> np.ndarray: ...


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
        reach: frame numbers after which the earlier choice is forgotten: the cost of a jump falls to 0 in a line.
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
        positive = ("expected_height", "alike", "reach", "neutral", "min_confidence")
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isfinite(value) and value >= 0):
                raise SettingsError(f"{field.name} is {value}", "a finite number, 0 or more")
            if value == 0 and field.name in positive:
                raise SettingsError(f"{field.name} is 0", "more than 0")


def best_scores(frames: Frames[P]) -> list[P | None]:
    """The authors' rule: the person with the best score in each frame, whoever that is."""
    return [min(people, key=_order) if people else None for people in frames]


def select_people(
    frames: Frames[P],
    sizes: Sizes,
    settings: SelectionSettings | None = None,
    numbers: Sequence[int] | np.ndarray | None = None,
) -> list[P | None]:
    """Choose at most one person per frame so that the tracklet as one makes sense.

    The choice maximises the sum of every chosen person's own evidence (see own_evidence) less the cost of each jump
    (see jump_costs) between successive choices, over all choices there are; found by dynamic programming. It depends
    on the tracklet alone, not on the order of the people in a frame. Played backwards it gives the same, exact
    ties of complete choices aside.

    Args:
        frames: the people of each frame, in time order; None for a frame that could not be read.
        sizes: width and height of each frame in pixels.
        settings: weights; None for the default.
        numbers: rising frame numbers, in which `reach` is counted; None for 0, 1, 2, ...

    Returns:
        One entry per frame: one of its people, or None.

    Raises:
        SettingsError: not one size and number per frame, or numbers that do not rise.
    """
    settings = settings or SelectionSettings()
    numbers = checked_numbers(len(frames), sizes, numbers)
    ordered = [sorted(people or (), key=_order) for people in frames]
    places = [(frame, person) for frame, people in enumerate(ordered) for person in people]
    poses = [in_crop(person.keypoints, sizes[frame]) for frame, person in places]
    times = np.array([numbers[frame] for frame, _ in places], np.int64)
    own = [
        own_evidence(person, pose, sizes[frame], settings) for (frame, person), pose in zip(places, poses, strict=True)
    ]
    result: list[P | None] = [None] * len(frames)
    for index in _best_chain(np.array(poses).reshape(-1, NUM_JOINTS, 3), times, np.array(own), settings):
        frame, person = places[index]
        result[frame] = person
    return result


def checked_numbers(count: int, sizes: Sizes, numbers: Sequence[int] | np.ndarray | None) -> Sequence[int] | np.ndarray:
    """The numbers of so many frames; refuses sizes and numbers that do not fit."""
    if len(sizes) != count:
        raise SettingsError(f"{len(sizes)} sizes for {count} frames", "one width and height per frame")
    if numbers is None:
        return range(count)
    if len(numbers) != count:
        raise SettingsError(f"{len(numbers)} frame numbers for {count} frames", "one per frame")
    for earlier, later in pairwise(numbers):
        if later <= earlier:
            raise SettingsError(f"frame number {later} comes after {earlier}", "numbers that rise within a tracklet")
    return numbers


def own_evidence(person: PersonLike, pose: np.ndarray, size: tuple[int, int], settings: SelectionSettings) -> float:
    """What a person's score, place and size (see off_centre) say: more than 0 is better than nobody."""
    height = body_height(pose, settings.min_confidence)
    misfit = 0.0 if height is None else min(2.0, abs(log(max(height, 1e-3) / settings.expected_height)) / log(2))
    centre = off_centre(pose, size, settings.min_confidence)
    return settings.person + settings.score * person.score - settings.centre * centre**2 - settings.size * misfit


def jump_costs(pose: np.ndarray, earlier: np.ndarray, gaps: np.ndarray, settings: SelectionSettings) -> np.ndarray:
    """float (N,): cost of choosing a pose right after each of N earlier ones, `gaps` (N,) frame numbers before."""
    fade = np.maximum(0, 1 - (gaps - 1) / settings.reach)
    alike = similarities(pose, earlier, settings.min_confidence, settings.neutral)
    return settings.jump * np.maximum(0, 1 - alike / settings.alike) * fade


def _order(person: PersonLike) -> tuple[float, bytes]:
    """Ranks the people of a frame by what they are, so that their order does not matter even where two are equal."""
    return -person.score, np.ascontiguousarray(person.keypoints, np.float32).tobytes()


def _best_chain(poses: np.ndarray, times: np.ndarray, own: np.ndarray, settings: SelectionSettings) -> list[int]:
    """The candidates whose sum of own evidence less jump costs is greatest, at most one per frame, in time order.

    totals[i] is the best sum of a chain that ends in candidate i. Jumps over more than `reach` frames are free.

    Args:
        poses: (N, 17, 3), sorted by frame.
        times: int (N,), the frame number of each.
        own: float (N,), the evidence of each.
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


def in_crop(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pose of keypoints (17, 3) in pixels of a frame of some width and height."""
    pose = np.array(keypoints, np.float64)
    pose[:, :2] = (pose[:, :2] - np.array(size) / 2) / size[1]
    return pose


def off_centre(pose: np.ndarray, size: tuple[int, int], min_confidence: float) -> float:
    """How far the body is from the middle of a frame of some width and height: 0 there, 1 at the edge or beyond.

    Sideways alone: up and down say nothing where half the body is hidden.
    """
    weights = np.where(pose[:, 2] >= min_confidence, pose[:, 2], 0)
    if not weights.any():
        return 1.0
    half_width = size[0] / size[1] / 2
    return min(1.0, abs(float((weights * pose[:, 0]).sum() / weights.sum())) / half_width)


def body_height(pose: np.ndarray, min_confidence: float) -> float | None:
    """Height of the body in crop heights, also of one that is partly hidden; None where the joints do not tell."""
    found = (pose[:, 2] >= min_confidence) & ~np.isnan(LEVELS)
    if not found.any():
        return None
    span = np.ptp(LEVELS[found])
    return float(np.ptp(pose[found, 1]) / span) if span >= MIN_LEVELS else None


def similarities(pose: np.ndarray, others: np.ndarray, min_confidence: float, neutral: float) -> np.ndarray:
    """float (N,): how alike one pose is to each of `others` (N, 17, 3): 1 the same, 0 elsewhere; symmetric.

    The mean over joints found in both of a Gaussian of their distance, as in COCO's OKS. `neutral` joints of
    similarity one half are added, so that few common joints say little.
    """
    both = (pose[:, 2] >= min_confidence) & (others[:, :, 2] >= min_confidence)
    squared = ((others[:, :, :2] - pose[:, :2]) ** 2).sum(axis=2)
    alike = np.exp(-squared / (2 * MOTION**2))
    return (np.where(both, alike, 0).sum(axis=1) + neutral / 2) / (both.sum(axis=1) + neutral)
