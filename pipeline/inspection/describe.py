"""What is in a prepared dataset: counts by split, camera and identity, frames without a pose, visible joints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .. import build_shards, extract_keypoints
from ..commit import read_receipt
from ..errors import FormatError
from ..heatmaps import MIN_CONFIDENCE
from ..manifest import Manifest, read_manifest
from ..records import FRAME_STATUSES, SPLITS, ShardReceipt, Tracklet
from ..skeleton import JOINTS, NUM_JOINTS
from .facts import DatasetFacts, GroupFacts, StageFacts
from .keypoint_columns import KeypointColumns, read_keypoint_columns


def describe(prepared: Path) -> DatasetFacts:
    """Count what is in a prepared dataset, at any stage; files are read and not checked, which verify does.

    Raises:
        FormatError: not a prepared dataset, or keypoints that cannot be read or are not of this manifest.
    """
    manifest = read_manifest(prepared)
    keypoints, shards = (_receipts(prepared, manifest, m.STAGE) for m in (extract_keypoints, build_shards))
    statuses, visibility = _count_poses(prepared, manifest, keypoints)
    tracklets = manifest.tracklets
    cameras, identities = (
        tuple(_group(str(number), members, statuses) for number, members in sorted(_by(attribute, tracklets).items()))
        for attribute in ("camera", "identity")
    )
    return DatasetFacts(
        name=manifest.name,
        root=manifest.root,
        notes=manifest.notes,
        num_identity_splits=len(manifest.identity_splits),
        stages=(
            _stage(prepared, manifest, extract_keypoints.STAGE, keypoints),
            _stage(prepared, manifest, build_shards.STAGE, shards),
        ),
        all=_group("all", tracklets, statuses),
        splits=tuple(_group(split, manifest.split(split), statuses) for split in SPLITS),
        cameras=cameras,
        identities=identities,
        joint_visibility=visibility,
    )


def _receipts(prepared: Path, manifest: Manifest, stage: str) -> list[ShardReceipt]:
    found = (read_receipt(prepared, stage, shard) for shard in range(manifest.num_shards))
    return [receipt for receipt in found if receipt is not None and (prepared / receipt.file).exists()]


def _stage(prepared: Path, manifest: Manifest, stage: str, receipts: Sequence[ShardReceipt]) -> StageFacts:
    size = sum((prepared / receipt.file).stat().st_size for receipt in receipts)
    return StageFacts(stage, manifest.num_shards, len(receipts), sum(receipt.rows for receipt in receipts), size)


def _by(attribute: str, tracklets: Iterable[Tracklet]) -> dict[int, list[Tracklet]]:
    groups: dict[int, list[Tracklet]] = {}
    for tracklet in tracklets:
        groups.setdefault(getattr(tracklet, attribute), []).append(tracklet)
    return groups


def _group(name: str, tracklets: Sequence[Tracklet], statuses: np.ndarray) -> GroupFacts:
    rows = np.array([tracklet.tracklet_id for tracklet in tracklets], np.int64)
    return GroupFacts(
        name=name,
        tracklets=len(tracklets),
        identities=len({tracklet.identity for tracklet in tracklets}),
        cameras=len({tracklet.camera for tracklet in tracklets}),
        frames=sum(tracklet.num_frames for tracklet in tracklets),
        statuses=dict(zip(FRAME_STATUSES, statuses[rows].sum(axis=0).tolist(), strict=True)),
    )


def _count_poses(
    prepared: Path, manifest: Manifest, receipts: Sequence[ShardReceipt]
) -> tuple[np.ndarray, dict[str, dict[str, float]]]:
    """Statuses of each tracklet, int64 (tracklets, statuses), and DatasetFacts.joint_visibility."""
    count = len(manifest.tracklets)
    statuses = np.zeros((count, len(FRAME_STATUSES)), np.int64)
    cameras, camera_of = np.unique([tracklet.camera for tracklet in manifest.tracklets], return_inverse=True)
    visible = np.zeros((len(cameras), NUM_JOINTS), np.int64)
    posed = np.zeros(len(cameras), np.int64)
    for receipt in receipts:
        rows = _rows(prepared / receipt.file, count)
        for column, status in enumerate(FRAME_STATUSES):
            statuses[:, column] += np.bincount(rows.tracklet_id[rows.status == status], minlength=count)
        camera = camera_of[rows.tracklet_id[rows.with_pose]]
        posed += np.bincount(camera, minlength=len(cameras))
        np.add.at(visible, camera, rows.keypoints[rows.with_pose, :, 2] > MIN_CONFIDENCE)
    visibility = {
        str(cameras[place]): dict(zip(JOINTS, (visible[place] / posed[place]).tolist(), strict=True))
        for place in np.flatnonzero(posed)
    }
    return statuses, visibility


def _rows(path: Path, num_tracklets: int) -> KeypointColumns:
    rows = read_keypoint_columns(path)
    if len(rows) and not 0 <= rows.tracklet_id.min() <= rows.tracklet_id.max() < num_tracklets:
        raise FormatError(
            f"{path} has rows of tracklets {rows.tracklet_id.min()} to {rows.tracklet_id.max()}",
            f"0 to {num_tracklets - 1}, as in manifest.parquet",
            "keyreid-prep verify says what is wrong and what to do",
        )
    return rows
