"""Stage 2: frames and keypoints to HDF5 shards, which are all that training reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import extract_keypoints, heatmaps
from .commit import commit_shard, fingerprint, read_receipt, require_intact
from .environment import device_kind, package_versions
from .errors import FormatError, SourceError
from .executor import Executor, Report
from .images import UnreadableImage, check_decoders, encoded_frame
from .keypoints import KeypointColumns, read_keypoints
from .manifest import read_manifest, read_shard_frames
from .receipts import keypoint_fingerprint, keypoint_inputs, keypoint_receipts
from .records import ShardReceipt, SourceFrames
from .shards import FORMAT_VERSION, TrackletFrames, shard_path, write_shard
from .stages import MAX_LEFT_OUT, StageSummary, check_roots, frame_roots, limit_left_out, run_stage

STAGE = "shards"
MAKE_KEYPOINTS = "run keyreid-prep extract-keypoints (or import-keypoints) again"
PACKAGES = ("torch", "pillow", "numpy", "h5py")


@dataclass(frozen=True)
class BuildTask:
    """One shard's work, as it is sent to a worker; roots: generation -> the folder of its frames."""

    prepared: Path
    roots: Mapping[int, Path]
    settings: str


def build_shards(
    prepared: Path,
    executor: Executor,
    *,
    root: Path | Mapping[str, Path] | None = None,
    overwrite: bool = False,
    max_left_out: float = MAX_LEFT_OUT,
) -> StageSummary:
    """Build every shard that is not complete yet, or whose keypoints changed.

    Args:
        prepared: the prepared dataset, its keypoints extracted.
        executor: serial or Dask.
        root: the frames' folder, if it has moved since indexing; see stages.frame_roots.
        overwrite: rebuild everything.
        max_left_out: share of all frames that may be left out, 0 to 1.

    Raises:
        FormatError: keypoints are missing, or not those of the index and settings that there are now.
        SettingsError: another run is at work on `prepared`.
        SourceError: too many frames are left out.
        KeyReIDError: shards failed, for instance since a frame is gone.
    """
    prepared = prepared.absolute()
    roots = frame_roots(read_manifest(prepared), root)
    limit_left_out(list(keypoint_receipts(prepared).values()), max_left_out)
    settings = shard_settings()
    return run_stage(
        prepared,
        STAGE,
        settings,
        partial(keypoint_inputs, prepared),
        partial(build_shard, BuildTask(prepared, roots, fingerprint(settings))),
        executor,
        prepare=partial(prepare_worker, tuple(roots.values())),
        overwrite=overwrite,
    )


def prepare_worker(roots: tuple[Path, ...]) -> None:
    """Check the folders and the image decoders; once in a worker."""
    check_roots(roots)
    check_decoders()


def shard_settings() -> dict[str, Any]:
    """What shards depend on besides frames and keypoints."""
    return {
        "shard_format": FORMAT_VERSION,
        "heatmap_min_confidence": heatmaps.MIN_CONFIDENCE,
        "heatmap_frame_size": list(heatmaps.FRAME_SIZE),
    }


def build_shard(task: BuildTask, shard: int, report: Report) -> ShardReceipt:
    """Make one shard: HDF5, then its receipt."""
    keypoints = read_receipt(task.prepared, extract_keypoints.STAGE, shard)
    if keypoints is None:
        raise FormatError(f"keypoints of shard {shard:05d} vanished", "", MAKE_KEYPOINTS)
    remedy = f"delete receipts/keypoints/{shard:05d}.json and {MAKE_KEYPOINTS}"
    rows = read_keypoints(require_intact(task.prepared, keypoints, remedy))
    frames = read_shard_frames(task.prepared, shard)
    tracklets, left_out, start = [], {}, 0
    for source in frames.tracklets:
        end = start + len(source.paths)
        tracklet = _read_tracklet(task.roots[frames.generation], source, rows[start:end])
        tracklets.append(tracklet)
        if lost := len(source.paths) - tracklet.num_frames:
            left_out[str(source.tracklet_id)] = lost
        start = end
        report(len(source.paths))
    inputs = keypoint_fingerprint(keypoints)
    return commit_shard(
        task.prepared,
        STAGE,
        shard,
        shard_path(task.prepared, shard),
        lambda path: write_shard(path, tracklets, {"settings": task.settings, "inputs": inputs}),
        generation=frames.generation,
        rows=sum(tracklet.num_frames for tracklet in tracklets),
        settings=task.settings,
        inputs=inputs,
        notes={"left_out": left_out},
        made_with=package_versions(*PACKAGES) | {"device": device_kind("cpu")},
    )


def _read_tracklet(root: Path, source: SourceFrames, rows: KeypointColumns) -> TrackletFrames:
    """Its readable frames; `rows` are those of all its frames."""
    expected = np.arange(len(source.paths))
    if not np.array_equal(rows.frame_index, expected) or (rows.tracklet_id != source.tracklet_id).any():
        raise FormatError(
            f"keypoints of tracklet {source.tracklet_id} are not those of its {len(source.paths)} frames",
            "one row per frame, in order",
            f"delete its receipt and {MAKE_KEYPOINTS}",
        )
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
        raise extract_keypoints.missing_frame(root, name) from error
    except UnreadableImage as error:
        raise SourceError(
            f"{root / name} was an image when its keypoints were extracted and is none now ({error.found})",
            "",
            "put the file back; or make its keypoints again, with --overwrite",
        ) from error
