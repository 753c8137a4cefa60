"""Stage 1 without PifPaf: keypoints found elsewhere become the same files that extract_keypoints writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np

from ..commit import commit_shard, fingerprint, read_json, sha256_of
from ..environment import package_versions
from ..errors import FormatError
from ..executor import Report, SerialExecutor
from ..extract_keypoints import STAGE, keypoint_notes, shard_inputs
from ..images import UNREADABLE, read_frame
from ..keypoints import keypoints_path, write_keypoints
from ..manifest import Manifest, dataset_path, read_manifest
from ..records import FRAME_NO_POSE, FRAME_OK, FRAME_UNREADABLE, FramePose, ShardReceipt, Tracklet
from ..stages import StageSummary, begin_stage, frames_folder, run_stage
from .formats import POSE, open_source, source_sha256
from .frame_names import FrameNames
from .matching import MatchedPoses, match_poses
from .units import check_units

PACKAGES = ("pillow", "numpy", "pyarrow")
SAMPLED_FRAMES = 512  # whose units are checked before anything is written


@dataclass(frozen=True)
class ImportSettings:
    """What imported keypoints depend on besides the frames.

    Attributes:
        source_format: one of formats.FORMATS.
        source_sha256: of the source's file, or of its files' names and contents.
        images_sha256: of the COCO annotation file that names the images; "" where there is none.
        select: which person of a frame is kept.
    """

    source_format: str
    source_sha256: str
    images_sha256: str
    select: str = "best-score"


@dataclass(frozen=True)
class ImportTask:
    """What every shard is made from; starts[tracklet_id] is a tracklet's first row in `poses`."""

    prepared: Path
    root: Path
    settings: ImportSettings
    manifest: Manifest
    poses: MatchedPoses
    starts: tuple[int, ...]


@dataclass(frozen=True)
class ImportSummary:
    """What an import did.

    Attributes:
        stage: shards made and kept, receipts.
        source_format: as named or detected.
        num_without_entry: frames of the manifest of which the source does not speak.
        unmatched: names in the source that match no frame.
    """

    stage: StageSummary
    source_format: str
    num_without_entry: int
    unmatched: tuple[str, ...]


def import_keypoints(
    prepared: Path,
    source: Path,
    *,
    source_format: str = "auto",
    images: Path | None = None,
    root: Path | None = None,
    overwrite: bool = False,
) -> ImportSummary:
    """Take the keypoints from `source`; a second run does nothing, an interrupted one goes on.

    Every frame is read once, since its size is needed, and since a broken image must not reach the shards.

    Args:
        prepared: the prepared dataset, already indexed.
        source: file or folder of COCO-17 keypoints in pixels of the frames; docs/keypoints.md has the formats.
        source_format: "auto", "coco", "pifpaf", "pose" or "table".
        images: COCO annotation file that names the images of a list of results.
        root: the frames' folder, where it has moved since it was indexed.
        overwrite: make everything anew where keypoints of another origin are there.

    Raises:
        SourceError: the source cannot be read, does not belong to the frames, or is not in their pixels.
        FormatError: extracted keypoints, or those of another source, are there, and `overwrite` is not given.
        SettingsError: unknown format, or another run is at work on `prepared`.
    """
    manifest = read_manifest(prepared)
    root = frames_folder(manifest, root)
    name, reader = open_source(source, source_format, images)
    settings = ImportSettings(name, source_sha256(source, reader), sha256_of(images) if images else "")
    if not overwrite:
        _check_origin(prepared, settings)
    paths = [path for tracklet in manifest.tracklets for path in tracklet.frame_paths]
    poses = match_poses(FrameNames(paths, with_suffix=name != POSE), reader.entries())
    _check_sample(root, paths, poses)
    starts = (0, *accumulate(tracklet.num_frames for tracklet in manifest.tracklets))
    with begin_stage(prepared, STAGE, asdict(settings), overwrite=overwrite) as stage_fingerprint:
        stage = run_stage(
            prepared,
            manifest,
            STAGE,
            stage_fingerprint,
            lambda shard: shard_inputs(manifest.shard(shard)),
            partial(import_shard, ImportTask(prepared, root, settings, manifest, poses, starts)),
            SerialExecutor(),
        )
    return ImportSummary(stage, name, int((~poses.has_entry).sum()), poses.unmatched)


def import_shard(task: ImportTask, shard: int, report: Report) -> ShardReceipt:
    """Make one shard of keypoints: Parquet, then its receipt."""
    tracklets = task.manifest.shard(shard)
    frames: list[FramePose] = []
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the GIL
        for tracklet in tracklets:
            sizes = list(pool.map(_frame_size, (task.root / name for name in tracklet.frame_paths)))
            frames += _frames(task, tracklet, sizes)
            report(tracklet.num_frames)
    return commit_shard(
        task.prepared,
        STAGE,
        shard,
        keypoints_path(task.prepared, shard),
        lambda path: write_keypoints(path, frames),
        rows=len(frames),
        settings=fingerprint(asdict(task.settings)),
        inputs=shard_inputs(tracklets),
        notes=keypoint_notes(tracklets, frames),
        made_with=package_versions(*PACKAGES),
    )


def _frames(task: ImportTask, tracklet: Tracklet, sizes: Sequence[tuple[int, int]]) -> Iterator[FramePose]:
    start = task.starts[tracklet.tracklet_id]
    for index, (width, height) in enumerate(sizes):
        keypoints, score = task.poses.keypoints[start + index], float(task.poses.scores[start + index])
        if width == 0:
            status, score, keypoints = FRAME_UNREADABLE, 0.0, np.zeros_like(keypoints)
        elif score < 0:
            status, score = FRAME_NO_POSE, 0.0
        else:
            status, score = FRAME_OK, min(score, 1.0)  # some programs' scores are sums
        yield FramePose(tracklet.tracklet_id, index, width, height, status, score, keypoints)


def _check_origin(prepared: Path, settings: ImportSettings) -> None:
    """Refuse other keypoints in the words of this command, and before a large source is read."""
    before = read_json(dataset_path(prepared)).get("stages", {}).get(STAGE)
    if before is not None and before != asdict(settings):
        source = before.get("source_format")
        origin = f"imported from another {source} source" if source else "of extract-keypoints"
        raise FormatError(
            f"{prepared} has keypoints {origin}",
            "none, or those of this source",
            "add --overwrite to replace them, or prepare into another folder",
        )


def _check_sample(root: Path, paths: Sequence[str], poses: MatchedPoses) -> None:
    """Look at frames all over the dataset before the first shard, and before other keypoints are overwritten."""
    found = np.flatnonzero(poses.scores >= 0)
    sizes = {int(row): _frame_size(root / paths[row]) for row in found[:: max(1, len(found) // SAMPLED_FRAMES)]}
    rows = [row for row, (width, _) in sizes.items() if width]
    if rows:
        frame_sizes = np.array([sizes[row] for row in rows])
        check_units(poses.keypoints[rows], frame_sizes, poses.sizes[rows], [paths[row] for row in rows])


def _frame_size(path: Path) -> tuple[int, int]:
    """Width and height; 0, 0 where the image cannot be read: to its end, since a header says nothing of that."""
    try:
        height, width = read_frame(path).shape[:2]
    except UNREADABLE:
        return 0, 0
    return width, height
