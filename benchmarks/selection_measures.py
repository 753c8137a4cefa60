"""How well a tracklet's chosen poses fit the drawn truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

RIGHT_WITHIN = 0.05  # crop heights: a joint that is nearer to the truth is right
BELONGS_WITHIN = 0.12  # crop heights: a pose whose joints are further from a body is not that body's
OWN, STRANGER, NEITHER = "own", "stranger", "neither"


@dataclass(frozen=True)
class Truth:
    """One frame as drawn: size is width and height; own and stranger as in tracklets.SyntheticFrame."""

    size: tuple[int, int]
    own: np.ndarray
    stranger: np.ndarray


@dataclass(frozen=True)
class Tally:
    """Counts that add up over tracklets.

    Attributes:
        frames: in all.
        switches: changes between the tracklet's own person and the stranger, whatever lies between.
        wrong: frames in which the stranger was chosen.
        joints, right: the own person's joints that can be seen, and those found within RIGHT_WITHIN.
        empty: frames without a pose.
    """

    frames: int = 0
    switches: int = 0
    wrong: int = 0
    joints: int = 0
    right: int = 0
    empty: int = 0


def whose(pose: np.ndarray, truth: Truth) -> str:
    """OWN, STRANGER or NEITHER: the body that the pose's joints are nearest to, by the median.

    Args:
        pose: float (17, 3), pixels; confidence 0 where a joint was not found.
        truth: the frame; hidden joints have a place, too.
    """
    found = pose[:, 2] > 0
    distances = {OWN: _distance(pose, truth.own, found, truth.size[1])}
    if truth.stranger.any():
        distances[STRANGER] = _distance(pose, truth.stranger, found, truth.size[1])
    nearest = min(distances, key=lambda name: distances[name])
    return nearest if distances[nearest] <= BELONGS_WITHIN else NEITHER


def tally(poses: Sequence[np.ndarray | None], truths: Sequence[Truth]) -> Tally:
    """Compare a tracklet's chosen poses, float (17, 3) or None each, with the truth of its frames."""
    owners = [None if pose is None else whose(pose, truth) for pose, truth in zip(poses, truths, strict=True)]
    known = [owner for owner in owners if owner in (OWN, STRANGER)]
    joints = right = 0
    for pose, truth in zip(poses, truths, strict=True):
        seen = truth.own[:, 2] > 0
        joints += int(seen.sum())
        if pose is not None:
            away = np.linalg.norm(pose[:, :2] - truth.own[:, :2], axis=1) / truth.size[1]
            right += int((seen & (pose[:, 2] > 0) & (away <= RIGHT_WITHIN)).sum())
    return Tally(
        frames=len(truths),
        switches=sum(before != after for before, after in pairwise(known)),
        wrong=owners.count(STRANGER),
        joints=joints,
        right=right,
        empty=owners.count(None),
    )


def _distance(pose: np.ndarray, truth: np.ndarray, found: np.ndarray, height: int) -> float:
    if not found.any():
        return np.inf
    return float(np.median(np.linalg.norm(pose[found, :2] - truth[found, :2], axis=1)) / height)
