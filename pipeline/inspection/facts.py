"""What describe finds: counts of groups of tracklets, how far the stages are, and how often joints are visible."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..records import FRAME_INTERPOLATED, FRAME_OK


@dataclass(frozen=True)
class GroupFacts:
    """The tracklets of one split, camera or identity, or all of them.

    Attributes:
        name: of the split, or the number of the camera or identity; "all".
        tracklets, identities, cameras, frames: how many there are.
        statuses: records.FRAME_STATUSES -> frames; together fewer than `frames` until all keypoints are extracted.
    """

    name: str
    tracklets: int
    identities: int
    cameras: int
    frames: int
    statuses: dict[str, int]

    @property
    def frames_examined(self) -> int:
        """Frames whose status is known."""
        return sum(self.statuses.values())

    @property
    def frames_without_pose(self) -> int:
        """Frames in which nobody was found, or that could not be read."""
        return self.frames_examined - self.statuses[FRAME_OK] - self.statuses[FRAME_INTERPOLATED]


@dataclass(frozen=True)
class StageFacts:
    """How far a stage is: shards with a receipt, and the frames and bytes in them."""

    stage: str
    num_shards: int
    num_made: int
    frames: int
    bytes: int


@dataclass(frozen=True)
class DatasetFacts:
    """The result of describe.

    Attributes:
        name, root, notes: as in dataset.json.
        num_identity_splits: ways to divide the identities; `splits` are those of the first.
        stages: keypoints and shards, in order.
        all, splits, cameras, identities: counts; cameras and identities in rising order.
        joint_visibility: camera -> joint -> share of the frames with a pose, 0 to 1, in which the joint has a
            confidence over 0.1, so that it shows in the heatmaps. Cameras without a pose are absent.
    """

    name: str
    root: str
    notes: dict[str, Any]
    num_identity_splits: int
    stages: tuple[StageFacts, ...]
    all: GroupFacts
    splits: tuple[GroupFacts, ...]
    cameras: tuple[GroupFacts, ...]
    identities: tuple[GroupFacts, ...]
    joint_visibility: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return asdict(self)
