"""Which of the people in each frame is the tracklet's own: one choice per tracklet, not one per frame. Then short gaps
between the chosen are filled. docs/selection.md has the reasons and measurements.

A pose is float64 (17, 3): x, y from the crop's centre in crop heights, and confidence; joints under `min_confidence`
count as not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

import numpy as np

from ..skeleton import JOINT_INDEX, NUM_JOINTS

# Where joints lie on an upright body, as shares of its height from the top; wrists and elbows swing too much to tell.
_LEVELS = {"nose": 0.07, "eye": 0.06, "ear": 0.07, "shoulder": 0.18, "hip": 0.50, "knee": 0.73, "ankle": 0.95}
# How far a joint of the same person moves from frame to frame: standard deviations, shares of the crop's height.
_MOTION = {
    "nose": 0.05, "eye": 0.05, "ear": 0.05, "shoulder": 0.05, "hip": 0.05,
    "elbow": 0.08, "knee": 0.08, "wrist": 0.12, "ankle": 0.12,
}  # fmt: skip
# float (17,): of each joint; NaN where it has none.
LEVELS, MOTION = (
    np.array([table.get(name.rpartition("_")[2], np.nan) for name in JOINT_INDEX]) for table in (_LEVELS, _MOTION)
)
MIN_LEVELS = 0.25  # joints that span less of the body than this do not tell its height
UNITS = 1_000_000  # evidence is added in whole millionths: exact in any order, so that rounding never decides


@dataclass(frozen=True, eq=False)
class Person:
    """A person in one frame."""

    score: float  # 0 to 1; other programs' may be more
    keypoints: np.ndarray  # float32 (17, 3): x, y in pixels of the frame, confidence 0 to 1; zeros where not found
    interpolated: bool = False  # not detected, but put between two that were


Frames = Sequence[Sequence[Person] | None]  # the people of each frame; None where the frame could not be read
Sizes = Sequence[tuple[int, int]]  # width and height of each frame in pixels; (0, 0) where it could not be read
Numbers = Sequence[int] | np.ndarray | None  # of the frames, rising; None for 0, 1, 2, ...


@dataclass(frozen=True)
class SelectionSettings:
    """Weights of the evidence; a frame for which nobody is chosen counts 0."""

    person: float = 0.85  # reward of choosing anybody: a doubtful person is better than none
    score: float = 0.2  # times PifPaf's score; small: in the measurements place and continuity told more
    centre: float = 2.75  # cost at the crop's edge, times the distance squared: crops are cut around their person
    size: float = 1.0  # cost of a body half or twice as high as expected, by the logarithm: a crop fits its person
    expected_height: float = 0.85  # of the person's body, in crop heights
    jump: float = 8.0  # cost of two successive choices that have nothing in common: people do not leap
    alike: float = 0.5  # similarity from which two successive choices may be one person, and cost nothing
    reach: int = 8  # frame numbers in which the cost of a jump falls to 0 in a line: the earlier choice is forgotten
    neutral: float = 2.0  # joints of similarity one half added to every comparison: few common joints say little
    min_confidence: float = 0.1  # joints under it count as not found; decoders may give joints that they do not see


@dataclass(frozen=True)
class GapSettings:
    """When and how gaps are filled."""

    max_distance: int = 5  # frame numbers between the two poses that enclose a gap, at most; 1 fills nothing
    decay: float = 0.8  # times the confidence for each frame number to the nearer of the two poses
    max_shift: float = 0.15  # crop heights; a joint that moved further is left out: it swung, or was not the same


def best_scores(frames: Frames) -> list[Person | None]:
    """The authors' rule: the person with the best score in each frame, whoever that is."""
    return [min(people, key=_order) if people else None for people in frames]


def select_people(
    frames: Frames, sizes: Sizes, settings: SelectionSettings | None = None, numbers: Numbers = None
) -> list[Person | None]:
    """Choose at most one person per frame so that the tracklet as one makes sense; None where nobody is chosen.

    The choice maximises the sum of every chosen person's own evidence (see own_evidence) less the cost of each jump
    (see jump_costs) between successive choices, over all choices there are; found by dynamic programming. It depends
    on the tracklet alone, not on the order of the people in a frame. Played backwards it gives the same, exact
    ties of complete choices aside. `reach` is counted in frame numbers.
    """
    settings = settings or SelectionSettings()
    ordered = [sorted(people or (), key=_order) for people in frames]
    candidates = [(frame, person) for frame, people in enumerate(ordered) for person in people]
    poses = [in_crop(person.keypoints, sizes[frame]) for frame, person in candidates]
    times = np.array([frame if numbers is None else numbers[frame] for frame, _ in candidates], np.int64)
    own = [
        own_evidence(person, pose, sizes[frame], settings)
        for (frame, person), pose in zip(candidates, poses, strict=True)
    ]
    result: list[Person | None] = [None] * len(frames)
    for index in _best_chain(np.array(poses).reshape(-1, NUM_JOINTS, 3), times, np.array(own), settings):
        frame, person = candidates[index]
        result[frame] = person
    return result


def own_evidence(person: Person, pose: np.ndarray, size: tuple[int, int], settings: SelectionSettings) -> float:
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


def _order(person: Person) -> tuple[float, bytes]:
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


def fill_gaps(
    chosen: Sequence[Person | None], sizes: Sizes, settings: GapSettings | None = None, numbers: Numbers = None
) -> list[Person | None]:
    """Put poses into the gaps between chosen people that are few frame numbers apart.

    Joints seen at both ends move in a line, in shares of the crop, so that crops may differ in size. Their confidence
    is the smaller of the two ends', decayed; so is the score. Nothing is put before the first person, after the last,
    or into frames that could not be read. A gap whose ends share no joint stays one.
    """
    settings = settings or GapSettings()
    times = range(len(chosen)) if numbers is None else numbers
    result = list(chosen)
    seen = [(frame, person) for frame, person in enumerate(chosen) if person is not None]
    for (start, before), (end, after) in pairwise(seen):
        if times[end] - times[start] > settings.max_distance:
            continue
        ends = _shares(before, sizes[start]), _shares(after, sizes[end])
        score = min(before.score, after.score)
        for frame in range(start + 1, end):
            if min(sizes[frame]) > 0:
                distances = times[frame] - times[start], times[end] - times[frame]
                keypoints = _between(*ends, distances, sizes[frame], settings)
                if keypoints[:, 2].any():
                    result[frame] = Person(score * settings.decay ** min(distances), keypoints, interpolated=True)
    return result


def _shares(person: Person, size: tuple[int, int]) -> np.ndarray:
    """float64 (17, 3): keypoints with x, y as shares of the frame's width and height."""
    return person.keypoints.astype(np.float64) / np.array([*size, 1])


def _between(
    before: np.ndarray, after: np.ndarray, distances: tuple[int, int], size: tuple[int, int], settings: GapSettings
) -> np.ndarray:
    """float32 (17, 3): keypoints in a frame of that size at two distances, after `before` and before `after`."""
    portion = distances[0] / sum(distances)
    shift = (after - before)[:, :2] * np.array([size[0] / size[1], 1])  # in heights of this frame
    confidence = np.minimum(before[:, 2], after[:, 2]) * settings.decay ** min(distances)
    kept = (confidence > 0) & (np.hypot(shift[:, 0], shift[:, 1]) <= settings.max_shift)
    place = (before * (1 - portion) + after * portion)[:, :2] * np.array(size)
    return np.where(kept[:, None], np.column_stack([place, confidence]), 0).astype(np.float32)
