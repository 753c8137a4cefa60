"""Short gaps in a tracklet's poses, filled between the poses before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np

from ..errors import SettingsError
from .selection import PersonLike, checked_numbers


@dataclass(frozen=True)
class GapSettings:
    """When and how gaps are filled; reasons: docs/selection.md.

    Attributes:
        max_distance: frame numbers between the two poses that enclose a gap, at most; 1 fills nothing.
        decay: confidence is multiplied with it for each frame number to the nearer of the two poses.
        max_shift: a joint that moved further between them is left out, in crop heights: it swung, or was not the same.
    """

    max_distance: int = 5
    decay: float = 0.8
    max_shift: float = 0.15

    def __post_init__(self) -> None:
        for fine, name, expected in (
            (self.max_distance >= 1, "max_distance", "1 or more; 1 fills nothing"),
            (0 < self.decay <= 1, "decay", "more than 0, up to 1"),
            (0 < self.max_shift < inf, "max_shift", "a finite number over 0"),
        ):
            if not fine:
                raise SettingsError(f"{name} is {getattr(self, name)}", expected)


@dataclass(frozen=True)
class Filled:
    """The pose of one frame.

    Attributes:
        score: 0 to 1.
        keypoints: float32 (17, 3): x, y in pixels of the frame, confidence; zeros where a joint was not found.
        interpolated: False for a detected person, True for one that was put between two others.
    """

    score: float
    keypoints: np.ndarray
    interpolated: bool


def fill_gaps(
    chosen: Sequence[PersonLike | None],
    sizes: Sequence[tuple[int, int]],
    settings: GapSettings | None = None,
    numbers: Sequence[int] | np.ndarray | None = None,
) -> list[Filled | None]:
    """Put poses into the gaps between chosen people that are few frames apart.

    Joints seen at both ends move in a line, in shares of the crop, so that crops may differ in size. Their confidence
    is the smaller of the two ends', decayed; so is the score. Nothing is put before the first person, after the last,
    or into frames that could not be read. A gap whose ends share no joint stays one.

    Args:
        chosen: one entry per frame, in time order; see selection.select_people.
        sizes: width and height of each frame in pixels; (0, 0) where it could not be read.
        settings: None for the default.
        numbers: rising frame numbers, in which distances are counted; None for 0, 1, 2, ...

    Returns:
        One entry per frame; None where there is still nobody.

    Raises:
        SettingsError: not one size and number per frame, or numbers that do not rise.
    """
    settings = settings or GapSettings()
    numbers = checked_numbers(len(chosen), sizes, numbers)
    result = [None if person is None else Filled(person.score, person.keypoints, False) for person in chosen]
    seen = [(frame, person) for frame, person in enumerate(chosen) if person is not None]
    for (start, before), (end, after) in pairwise(seen):
        if numbers[end] - numbers[start] > settings.max_distance:
            continue
        ends = _shares(before, sizes[start]), _shares(after, sizes[end])
        score = min(before.score, after.score)
        for frame in range(start + 1, end):
            if min(sizes[frame]) > 0:
                distances = numbers[frame] - numbers[start], numbers[end] - numbers[frame]
                keypoints = _between(*ends, distances, sizes[frame], settings)
                if keypoints[:, 2].any():
                    result[frame] = Filled(score * settings.decay ** min(distances), keypoints, True)
    return result


def _shares(person: PersonLike, size: tuple[int, int]) -> np.ndarray:
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
