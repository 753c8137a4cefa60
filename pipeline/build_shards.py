"""Stage 2: frames and keypoints to HDF5 shards, which are all that training reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import extract_keypoints, heatmaps
from .commit import commit_shard, fingerprint, read_receipt, require_whole
from .environment import device_kind, package_versions
from .errors import FormatError, SourceError
from .executor import Executor, Report
from .images import UNREADABLE, encoded_frame
from .keypoints import read_keypoints
from .manifest import cached_manifest, read_manifest
from .records import FRAMES_LEFT_OUT, FramePose, ShardReceipt, Tracklet
from .shards import FORMAT_VERSION, TrackletFrames, shard_path, write_shard
from .stages import StageSummary, begin_stage, frames_folder, run_stage, stage_settings

STAGE = "shards"
PACKAGES = ("torch", "pillow", "numpy", "h5py")


@dataclass(frozen=True)
class BuildTask:
    """One shard's work, as it is sent to a worker."""

    prepared: Path
    root: Path
    settings: str


def build_shards(
    prepared: Path, executor: Executor, *, root: Path | None = None, overwrite: bool = False
) -> StageSummary:
    """Build every shard that is not whole yet, or whose keypoints changed.

    Args:
        prepared: the prepared dataset, its keypoints extracted.
        executor: serial or Dask.
        root: the source's folder, where it has moved since it was indexed.
        overwrite: make everything anew where the settings changed.

    Raises:
        FormatError: keypoints are missing.
        SourceError: the source's folder is not there, or a frame vanished since its keypoints were extracted.
        SettingsError: another run is at work on `prepared`.
    """
    manifest = read_manifest(prepared)
    stage_settings(prepared, extract_keypoints.STAGE)
    missing = [n for n in range(manifest.num_shards) if read_receipt(prepared, extract_keypoints.STAGE, n) is None]
    if missing:
        raise FormatError(
            f"keypoints of {len(missing)} of {manifest.num_shards} shards are missing (first: {missing[0]:05d})",
            "all of them",
            "run keyreid-prep extract-keypoints again: it goes on where it stopped",
        )
    root = frames_folder(manifest, root)
    with begin_stage(prepared, STAGE, shard_settings(), overwrite=overwrite) as settings:
        task = partial(build_shard, BuildTask(prepared, root, settings))
        return run_stage(prepared, manifest, STAGE, settings, partial(keypoint_inputs, prepared), task, executor)


def shard_settings() -> dict[str, Any]:
    """What shards depend on besides frames and keypoints."""
    return {
        "shard_format": FORMAT_VERSION,
        "heatmap_min_confidence": heatmaps.MIN_CONFIDENCE,
        "heatmap_frame_size": list(heatmaps.FRAME_SIZE),
    }


def build_shard(task: BuildTask, shard: int, report: Report) -> ShardReceipt:
    """Make one shard: HDF5, then its receipt."""
    keypoints = _keypoint_receipt(task.prepared, shard)
    inputs = keypoint_inputs(task.prepared, shard)
    remedy = "run keyreid-prep extract-keypoints again: delete the receipt first, which makes the shard anew"
    poses: dict[int, list[FramePose]] = {}
    for pose in read_keypoints(require_whole(task.prepared, keypoints, remedy)):
        poses.setdefault(pose.tracklet_id, []).append(pose)
    tracklets = []
    for tracklet in cached_manifest(task.prepared).shard(shard):
        tracklets.append(_frames(task.root, tracklet, poses.get(tracklet.tracklet_id, [])))
        report(tracklet.num_frames)
    return commit_shard(
        task.prepared,
        STAGE,
        shard,
        shard_path(task.prepared, shard),
        lambda path: write_shard(path, tracklets, {"settings": task.settings, "inputs": inputs}),
        rows=sum(tracklet.num_frames for tracklet in tracklets),
        settings=task.settings,
        inputs=inputs,
        notes={"empty_tracklets": [t.tracklet_id for t in tracklets if t.num_frames == 0]},
        made_with=package_versions(*PACKAGES) | {"device": device_kind("cpu")},
    )


def keypoint_inputs(prepared: Path, shard: int) -> str:
    """Fingerprint of the keypoints that a shard is made from; raises FormatError where they are not there."""
    receipt = _keypoint_receipt(prepared, shard)
    return fingerprint([receipt.sha256, receipt.inputs])


def _keypoint_receipt(prepared: Path, shard: int) -> ShardReceipt:
    receipt = read_receipt(prepared, extract_keypoints.STAGE, shard)
    if receipt is None:
        raise FormatError(f"keypoints of shard {shard:05d} vanished", "", "run keyreid-prep extract-keypoints again")
    return receipt


def _frames(root: Path, tracklet: Tracklet, poses: list[FramePose]) -> TrackletFrames:
    if len(poses) != tracklet.num_frames:
        raise FormatError(
            f"keypoints of tracklet {tracklet.tracklet_id} have {len(poses)} rows",
            f"{tracklet.num_frames}, one a frame",
            "delete that shard's receipt and run keyreid-prep extract-keypoints again",
        )
    readable = [pose for pose in poses if pose.status not in FRAMES_LEFT_OUT]
    encoded = tuple(_encoded(root / tracklet.frame_paths[pose.frame_index]) for pose in readable)
    sizes = np.array([(pose.width, pose.height) for pose in readable], np.int32).reshape(-1, 2)
    keypoints = np.array([pose.keypoints for pose in readable], np.float32).reshape(-1, *heatmaps.KEYPOINT_SHAPE)
    return TrackletFrames(
        tracklet_id=tracklet.tracklet_id,
        frame_index=np.array([pose.frame_index for pose in readable], np.int32),
        encoded=encoded,
        sizes=sizes,
        keypoints=keypoints,
        heatmaps=heatmaps.stored_heatmaps(keypoints, sizes),
    )


def _encoded(path: Path) -> bytes:
    try:
        return encoded_frame(path)
    except UNREADABLE as error:
        raise SourceError(
            f"{path} could be read when its keypoints were extracted and cannot be now ({error})",
            "",
            "put the file back; or delete the receipts of its shard and run both stages again",
        ) from error
