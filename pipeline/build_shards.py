"""Stage 2: frames and keypoints to HDF5 shards, which are all that training reads."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import extract_keypoints, heatmaps
from .commit import commit_file, fingerprint, read_receipt, write_receipt
from .errors import FormatError, SourceError
from .executor import Executor, Report
from .keypoints import keypoints_path, read_keypoints
from .manifest import cached_manifest, read_manifest
from .records import FRAME_UNREADABLE, FramePose, ShardReceipt, Tracklet
from .shards import FORMAT_VERSION, TrackletFrames, write_shard
from .stages import StageSummary, begin_stage, run_stage, stage_settings

STAGE = "shards"


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
    root = root or Path(manifest.root)
    if not root.is_dir():
        raise SourceError(f"the frames' folder {root} is not there", "", "mount it, or name its new place with --root")
    settings = begin_stage(prepared, STAGE, shard_settings(), overwrite=overwrite)
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
    inputs = keypoint_inputs(task.prepared, shard)
    poses: dict[int, list[FramePose]] = {}
    for pose in read_keypoints(keypoints_path(task.prepared, shard)):
        poses.setdefault(pose.tracklet_id, []).append(pose)
    tracklets = []
    for tracklet in cached_manifest(task.prepared).shard(shard):
        tracklets.append(_frames(task.root, tracklet, poses.get(tracklet.tracklet_id, [])))
        report(tracklet.num_frames)
    path = task.prepared / "shards" / f"{shard:05d}.h5"
    digest = commit_file(path, lambda partial_path: write_shard(partial_path, tracklets, {"settings": task.settings}))
    receipt = ShardReceipt(
        stage=STAGE,
        shard=shard,
        file=str(path.relative_to(task.prepared)),
        sha256=digest,
        rows=sum(tracklet.num_frames for tracklet in tracklets),
        settings=task.settings,
        inputs=inputs,
        notes={"empty_tracklets": [t.tracklet_id for t in tracklets if t.num_frames == 0]},
    )
    write_receipt(task.prepared, receipt)
    return receipt


def keypoint_inputs(prepared: Path, shard: int) -> str:
    """Fingerprint of the keypoints that a shard is made from; raises FormatError where they are not there."""
    receipt = read_receipt(prepared, extract_keypoints.STAGE, shard)
    if receipt is None:
        raise FormatError(f"keypoints of shard {shard:05d} vanished", "", "run keyreid-prep extract-keypoints again")
    return fingerprint([receipt.sha256, receipt.inputs])


def _frames(root: Path, tracklet: Tracklet, poses: list[FramePose]) -> TrackletFrames:
    if len(poses) != tracklet.num_frames:
        raise FormatError(
            f"keypoints of tracklet {tracklet.tracklet_id} have {len(poses)} rows",
            f"{tracklet.num_frames}, one a frame",
            "delete that shard's receipt and run keyreid-prep extract-keypoints again",
        )
    readable = [pose for pose in poses if pose.status != FRAME_UNREADABLE]
    encoded = tuple(encoded_frame(root / tracklet.frame_paths[pose.frame_index]) for pose in readable)
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


def encoded_frame(path: Path) -> bytes:
    """The file's own bytes where they are an 8-bit JPEG or PNG, else the same picture as PNG."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            if image.format in ("JPEG", "PNG") and image.mode in ("RGB", "L"):
                return data
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "PNG", compress_level=3)
            return buffer.getvalue()
    except extract_keypoints.UNREADABLE as error:
        raise SourceError(
            f"{path} could be read when its keypoints were extracted and cannot be now ({error})",
            "",
            "put the file back; or delete the receipts of its shard and run both stages again",
        ) from error
