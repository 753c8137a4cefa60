"""Stage 2: frames and keypoints to HDF5 shards, which are all that training reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import heatmaps
from .commit import commit_shard, fingerprint, read_receipt, require_intact
from .environment import device_kind, package_versions
from .errors import FormatError, SourceError
from .executor import Executor, Report
from .extract_keypoints import missing_frame
from .images import UnreadableImage, encoded_frame
from .keypoints import KeypointColumns, read_keypoints
from .manifest import read_manifest, read_shard_frames
from .records import ShardReceipt, SourceFrames
from .shards import FORMAT_VERSION, TrackletFrames, shard_path, write_shard
from .stages import (
    KEYPOINTS,
    MAX_LEFT_OUT,
    SHARDS,
    StageSummary,
    check_roots,
    frame_roots,
    keypoint_fingerprint,
    limit_left_out,
    run_stage,
    stage_receipts,
)

PACKAGES = ("torch", "pillow", "numpy", "h5py")


def build_shards(
    prepared: Path,
    executor: Executor,
    *,
    root: Path | Mapping[str, Path] | None = None,
    overwrite: bool = False,
    max_left_out: float = MAX_LEFT_OUT,
) -> StageSummary:
    """Build every shard that is not complete yet, or whose keypoints changed.

    The keypoints must be complete; arguments and errors are those of extract_keypoints.
    """
    prepared = prepared.absolute()
    roots, settings = frame_roots(read_manifest(prepared), root), shard_settings()
    limit_left_out(stage_receipts(prepared, KEYPOINTS).values(), max_left_out)
    task = partial(build_shard, prepared, roots, fingerprint(settings))
    prepare = partial(check_roots, tuple(roots.values()))
    return run_stage(prepared, SHARDS, settings, task, executor, prepare=prepare, overwrite=overwrite)


def shard_settings() -> dict[str, Any]:
    """What shards depend on besides frames and keypoints."""
    return {
        "shard_format": FORMAT_VERSION,
        "heatmap_min_confidence": heatmaps.MIN_CONFIDENCE,
        "heatmap_frame_size": list(heatmaps.FRAME_SIZE),
    }


def build_shard(prepared: Path, roots: Mapping[int, Path], settings: str, shard: int, report: Report) -> ShardReceipt:
    """Make one shard: HDF5, then its receipt. `roots`: generation -> its frames' folder; `settings`: their hash."""
    keypoints, frames = read_receipt(prepared, KEYPOINTS, shard), read_shard_frames(prepared, shard)
    remedy = f"delete receipts/keypoints/{shard:05d}.json and run extract-keypoints (or import-keypoints) again"
    if keypoints is None or keypoints.inputs != frames.sha256:
        raise FormatError(f"keypoints of shard {shard:05d} changed during this run", "", remedy)
    rows = read_keypoints(require_intact(prepared, keypoints, remedy))  # one for each of `frames`, in order
    tracklets, left_out, start = [], {}, 0
    for source in frames.tracklets:
        end = start + len(source.paths)
        tracklet = _read_tracklet(roots[frames.generation], source, rows[start:end])
        tracklets.append(tracklet)
        if lost := len(source.paths) - tracklet.num_frames:
            left_out[str(source.tracklet_id)] = lost
        start = end
        report(len(source.paths))
    inputs = keypoint_fingerprint(keypoints)
    return commit_shard(
        prepared,
        SHARDS,
        shard,
        shard_path(prepared, shard),
        lambda path: write_shard(path, tracklets, {"settings": settings, "inputs": inputs}),
        generation=frames.generation,
        rows=sum(tracklet.num_frames for tracklet in tracklets),
        settings=settings,
        inputs=inputs,
        notes={"left_out": left_out},
        made_with=package_versions(*PACKAGES) | {"device": device_kind("cpu")},
    )


def _read_tracklet(root: Path, source: SourceFrames, rows: KeypointColumns) -> TrackletFrames:
    """Its readable frames; `rows` are those of all its frames."""
    kept = np.flatnonzero(rows.in_shards)
    rows = rows[kept]
    return TrackletFrames(
        tracklet_id=source.tracklet_id,
        frame_index=rows.frame_index,
        encoded=tuple(_encoded(root, source.paths[row]) for row in kept),
        sizes=rows.sizes,
        keypoints=rows.keypoints,
        heatmaps=heatmaps.stored_heatmaps(rows.keypoints, rows.sizes),
    )


def _encoded(root: Path, name: str) -> bytes:
    try:
        return encoded_frame(root / name)
    except FileNotFoundError as error:
        raise missing_frame(root, name) from error
    except UnreadableImage as error:
        raise SourceError(
            f"{root / name} was an image when its keypoints were extracted and is none now ({error.found})",
            "",
            "put the file back; or make its keypoints again, with --overwrite",
        ) from error
