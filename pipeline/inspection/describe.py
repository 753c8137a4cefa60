"""What is in a prepared dataset: counts by split, camera and identity, frames that are left out, visible joints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..commit import fingerprint, has_its_size, read_receipt, require_intact
from ..heatmaps import MIN_CONFIDENCE
from ..keypoints import read_keypoints
from ..manifest import Generation, read_dataset, read_manifest, shard_inputs
from ..records import FRAME_STATUSES, SPLITS, ShardReceipt
from ..skeleton import JOINTS
from ..stages import KEYPOINTS, SHARDS, count_left_out, keypoint_fingerprint


@dataclass(frozen=True)
class StageFacts:
    """How far a stage is: shards that are complete and not outdated, and the frames and bytes in them."""

    stage: str
    num_shards: int
    num_made: int
    frames: int
    bytes: int


@dataclass(frozen=True)
class DatasetFacts:
    """The result of describe.

    Attributes:
        name: of the dataset.
        generations: what each run of index added, with its root and notes.
        num_identity_splits: ways to divide the identities; `splits` are those of the first.
        stages: keypoints and shards, in order.
        all, splits, cameras, identities: one row per group: its original name and (cameras and identities) its number;
            tracklets, identities, cameras, frames; and frames of each of FRAME_STATUSES, together fewer than `frames`
            until all keypoints are extracted.
        joint_visibility: share of the frames with a pose, 0 to 1, in which a joint has a confidence over 0.1, so that
            it shows in the heatmaps; one row per camera name, one column per joint. Cameras without a pose are absent.
        left_out: status -> paths of the frames that are left out of the shards for it.
    """

    name: str
    generations: tuple[Generation, ...]
    num_identity_splits: int
    stages: tuple[StageFacts, ...]
    all: pd.DataFrame
    splits: pd.DataFrame
    cameras: pd.DataFrame
    identities: pd.DataFrame
    joint_visibility: pd.DataFrame
    left_out: dict[str, list[str]]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        groups = {name: _records(getattr(self, name)) for name in ("splits", "cameras", "identities")}
        joints = self.joint_visibility.to_dict("index")
        return asdict(self) | groups | {"all": _records(self.all)[0], "joint_visibility": joints}


def describe(prepared: Path) -> DatasetFacts:
    """Count what is in a prepared dataset, at any stage; memory holds one shard's keypoints at a time.

    Raises:
        FormatError: not a prepared dataset, or keypoints that are not those of their receipt.
    """
    manifest = read_manifest(prepared)
    kept = read_dataset(prepared).get("stages", {})
    keypoints = _receipts(prepared, KEYPOINTS, kept, shard_inputs(prepared))
    made_from = {receipt.shard: keypoint_fingerprint(receipt) for receipt in keypoints}
    shards = _receipts(prepared, SHARDS, kept, made_from)
    columns = ("tracklet_id", "split", "identity", "camera", "num_frames", "identity_name", "camera_name")
    tracklets = pd.DataFrame({name: [getattr(t, name) for t in manifest.tracklets] for name in columns})
    statuses, visibility = _count_poses(prepared, tracklets, keypoints)
    tracklets = tracklets.join(statuses, on="tracklet_id").fillna(dict.fromkeys(FRAME_STATUSES, 0))
    tracklets = tracklets.astype(dict.fromkeys(FRAME_STATUSES, "int64"))
    return DatasetFacts(
        name=manifest.name,
        generations=manifest.generations,
        num_identity_splits=len(manifest.identity_splits),
        stages=tuple(
            StageFacts(stage, manifest.num_shards, len(made), sum(r.rows for r in made), sum(r.num_bytes for r in made))
            for stage, made in ((KEYPOINTS, keypoints), (SHARDS, shards))
        ),
        all=_group(tracklets.assign(all="all"), "all"),
        splits=_group(tracklets, "split").set_index("name").reindex(list(SPLITS), fill_value=0).reset_index(),
        cameras=_group(tracklets, "camera"),
        identities=_group(tracklets, "identity"),
        joint_visibility=visibility,
        left_out=count_left_out(keypoints),
    )


def _receipts(prepared: Path, stage: str, kept: dict[str, Any], inputs: dict[int, str]) -> list[ShardReceipt]:
    """Of the shards whose file is there, made with the settings and from the inputs that there are now."""
    receipts, settings = [], fingerprint(kept.get(stage))
    for shard, made_from in inputs.items():
        receipt = read_receipt(prepared, stage, shard)
        if receipt is not None and (receipt.settings, receipt.inputs) == (settings, made_from):
            receipts += [receipt] * has_its_size(prepared, receipt)
    return receipts


def _group(tracklets: pd.DataFrame, by: str) -> pd.DataFrame:
    """One row per value of a column; see DatasetFacts."""
    named = {"name": (f"{by}_name", "first")} if f"{by}_name" in tracklets else {}
    counts = tracklets.groupby(by).agg(
        **named,
        tracklets=("tracklet_id", "size"),
        identities=("identity", "nunique"),
        cameras=("camera", "nunique"),
        frames=("num_frames", "sum"),
        **{status: (status, "sum") for status in FRAME_STATUSES},
    )
    return counts.rename_axis("number" if named else "name").reset_index()


def _count_poses(
    prepared: Path, tracklets: pd.DataFrame, receipts: Sequence[ShardReceipt]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Frames of each status by tracklet_id, and DatasetFacts.joint_visibility."""
    names = tracklets["camera_name"]
    statuses = [pd.DataFrame(columns=list(FRAME_STATUSES), dtype="int64")]
    visible = pd.DataFrame(columns=["posed", *JOINTS], dtype="float64")
    for receipt in receipts:
        rows = read_keypoints(require_intact(prepared, receipt, "keyreid-prep verify says what to do"))
        frames = pd.DataFrame({"tracklet_id": rows.tracklet_id, "status": rows.status})
        statuses.append(frames.value_counts().unstack(fill_value=0))
        seen = pd.DataFrame(rows.keypoints[..., 2] > MIN_CONFIDENCE, columns=list(JOINTS)).assign(posed=1)
        posed = rows.with_pose
        visible = visible.add(seen[posed].groupby(names[rows.tracklet_id[posed]].to_numpy()).sum(), fill_value=0)
    counts = pd.concat(statuses).reindex(columns=list(FRAME_STATUSES))
    order = [name for name in dict.fromkeys(names[tracklets["camera"].sort_values().index]) if name in visible.index]
    return counts, visible[list(JOINTS)].div(visible["posed"], axis=0).loc[order]


def _records(groups: pd.DataFrame) -> list[dict[str, Any]]:
    """One dict per row, its statuses in a dict of their own."""
    statuses = groups[list(FRAME_STATUSES)].to_dict("records")
    return groups.drop(columns=list(FRAME_STATUSES)).assign(statuses=statuses).to_dict("records")
