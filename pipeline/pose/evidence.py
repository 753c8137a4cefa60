"""What speaks for a detected person being the one that a tracklet's crops were cut around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

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


def in_crop(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float64 (17, 3): x, y from the crop's centre in crop heights, and the confidence unchanged.

    Args:
        keypoints: float (17, 3), pixels of the frame.
        size: width and height of the frame in pixels.
    """
    width, height = size
    relative = np.array(keypoints, np.float64)
    relative[:, :2] = (relative[:, :2] - np.array([width, height]) / 2) / height
    return relative


def off_centre(pose: np.ndarray, size: tuple[int, int], min_confidence: float) -> float:
    """How far the body is from the crop's middle, sideways: 0 in the middle, 1 at the edge or beyond.

    Up and down say nothing where half the body is hidden.

    Args:
        pose: float (17, 3), see in_crop.
        size: width and height of the frame in pixels.
        min_confidence: joints under it count as not found.
    """
    weights = np.where(pose[:, 2] >= min_confidence, pose[:, 2], 0)
    if not weights.any():
        return 1.0
    half_width = size[0] / size[1] / 2
    return min(1.0, abs(float((weights * pose[:, 0]).sum() / weights.sum())) / half_width)


def body_height(pose: np.ndarray, min_confidence: float) -> float | None:
    """Height of the body in crop heights, also of one that is partly hidden; None where the joints do not tell.

    Args:
        pose: float (17, 3), see in_crop.
        min_confidence: joints under it count as not found.
    """
    found = (pose[:, 2] >= min_confidence) & ~np.isnan(LEVELS)
    if not found.any():
        return None
    levels = LEVELS[found]
    span = levels.max() - levels.min()
    return float(np.ptp(pose[found, 1]) / span) if span >= MIN_LEVELS else None


def similarities(pose: np.ndarray, others: np.ndarray, min_confidence: float, neutral: float) -> np.ndarray:
    """How alike one pose is to each of several: 1 the same, 0 elsewhere; symmetric.

    The mean over joints found in both of a Gaussian of their distance, as in COCO's OKS. `neutral` joints of
    similarity one half are added, so that few common joints say little.

    Args:
        pose: float (17, 3), see in_crop.
        others: float (N, 17, 3).
        min_confidence: joints under it count as not found.
        neutral: number of joints.

    Returns:
        float (N,), 0 to 1.
    """
    both = (pose[:, 2] >= min_confidence) & (others[:, :, 2] >= min_confidence)
    squared = ((others[:, :, :2] - pose[:, :2]) ** 2).sum(axis=2)
    alike = np.exp(-squared / (2 * MOTION**2))
    return (np.where(both, alike, 0).sum(axis=1) + neutral / 2) / (both.sum(axis=1) + neutral)


def stack_poses(people: Sequence[PersonLike], size: tuple[int, int]) -> np.ndarray:
    """float64 (N, 17, 3): the people of one frame, see in_crop."""
    if not people:
        return np.zeros((0, NUM_JOINTS, 3))
    return np.stack([in_crop(person.keypoints, size) for person in people])
