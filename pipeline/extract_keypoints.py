"""Stage 1: frames to keypoints, shard by shard. Written once, read by everything after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .commit import commit_file, fingerprint, write_receipt
from .errors import SourceError
from .executor import Executor, Report
from .keypoints import keypoints_path, write_keypoints
from .manifest import cached_manifest, read_manifest
from .pose.checkpoints import ResolvedCheckpoint, load_checkpoint
from .records import FRAME_NO_POSE, FRAME_OK, FRAME_UNREADABLE, FramePose, ShardReceipt, Tracklet
from .skeleton import NUM_JOINTS
from .stages import StageSummary, begin_stage, run_stage

if TYPE_CHECKING:
    from .pose.pifpaf import Person

STAGE = "keypoints"
BATCHES_OF_A_GROUP = 8  # frames in memory at once, in batches
MIN_CONFIDENCE = 0.005  # keypoints under it are zeroed, as in the authors' code
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises for broken images


@dataclass(frozen=True)
class KeypointSettings:
    """What the keypoints depend on besides the frames.

    Attributes:
        checkpoint_sha256: hash of the weights.
        input_height: pixels that frames are resized to before the network.
        batch_size: frames in one forward pass; kernels may round differently for other sizes.
        thresholds: of openpifpaf's decoder.
        min_confidence: keypoints under it are zeroed.
        select: which person of a frame is kept: "best-score".
    """

    checkpoint_sha256: str
    input_height: int
    batch_size: int
    thresholds: dict[str, float]
    min_confidence: float = MIN_CONFIDENCE
    select: str = "best-score"


@dataclass(frozen=True)
class ExtractTask:
    """One shard's work, as it is sent to a worker; everything is picklable."""

    prepared: Path
    root: Path
    checkpoint: ResolvedCheckpoint
    settings: KeypointSettings
    device: str


def extract_keypoints(
    prepared: Path,
    checkpoint: ResolvedCheckpoint,
    executor: Executor,
    *,
    root: Path | None = None,
    input_height: int | None = None,
    device: str = "cpu",
    batch_size: int = 32,
    overwrite: bool = False,
) -> StageSummary:
    """Find the people in every frame; a second run does nothing, an interrupted one goes on.

    Args:
        prepared: the prepared dataset, already indexed.
        checkpoint: of PifPaf.
        executor: serial or Dask.
        root: the source's folder, where it has moved since it was indexed.
        input_height: pixels that frames are resized to; None: what suits the checkpoint.
        device: of the network.
        batch_size: frames in one forward pass.
        overwrite: make everything anew where the settings changed.

    Raises:
        SourceError: the source's folder is not there.
        FormatError: keypoints of other settings are there, and `overwrite` is not given.
    """
    from .pose.pifpaf import DECODER_THRESHOLDS

    manifest = read_manifest(prepared)
    root = root or Path(manifest.root)
    if not root.is_dir():
        raise SourceError(f"the frames' folder {root} is not there", "", "mount it, or name its new place with --root")
    settings = KeypointSettings(
        checkpoint.sha256, input_height or checkpoint.input_height, batch_size, dict(DECODER_THRESHOLDS)
    )
    stage_fingerprint = begin_stage(prepared, STAGE, asdict(settings), overwrite=overwrite)
    task = partial(extract_shard, ExtractTask(prepared, root, checkpoint, settings, device))
    return run_stage(
        prepared, manifest, STAGE, stage_fingerprint, lambda shard: shard_inputs(manifest.shard(shard)), task, executor
    )


def extract_shard(task: ExtractTask, shard: int, report: Report) -> ShardReceipt:
    """Make one shard of keypoints: Parquet, then its receipt."""
    tracklets = cached_manifest(task.prepared).shard(shard)
    poses: list[FramePose] = []
    for group in _groups(tracklets, task.settings.batch_size):
        poses += _estimate(task, group)
        report(sum(tracklet.num_frames for tracklet in group))
    path = keypoints_path(task.prepared, shard)
    digest = commit_file(path, lambda partial_path: write_keypoints(partial_path, poses))
    unreadable = [
        tracklet.frame_paths[pose.frame_index]
        for tracklet, pose in _with_tracklets(tracklets, poses)
        if pose.status == FRAME_UNREADABLE
    ]
    receipt = ShardReceipt(
        stage=STAGE,
        shard=shard,
        file=str(path.relative_to(task.prepared)),
        sha256=digest,
        rows=len(poses),
        settings=fingerprint(asdict(task.settings)),
        inputs=shard_inputs(tracklets),
        notes={"no_pose": sum(pose.status == FRAME_NO_POSE for pose in poses), "unreadable": unreadable},
    )
    write_receipt(task.prepared, receipt)
    return receipt


def shard_inputs(tracklets: tuple[Tracklet, ...]) -> str:
    """Fingerprint of the frames that a shard is made from, by name."""
    return fingerprint([[tracklet.tracklet_id, tracklet.frame_paths] for tracklet in tracklets])


def read_frame(path: Path) -> np.ndarray:
    """uint8 (H, W, 3) RGB of any image that Pillow reads; raises one of UNREADABLE for what it cannot."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _groups(tracklets: Sequence[Tracklet], batch_size: int) -> Iterator[list[Tracklet]]:
    """Consecutive tracklets of some batches together: few half-filled batches, and bounded memory."""
    group: list[Tracklet] = []
    for tracklet in tracklets:
        group.append(tracklet)
        if sum(member.num_frames for member in group) >= BATCHES_OF_A_GROUP * batch_size:
            yield group
            group = []
    if group:
        yield group


def _estimate(task: ExtractTask, tracklets: Sequence[Tracklet]) -> Iterator[FramePose]:
    frames = [_read_frames(task.root, tracklet) for tracklet in tracklets]
    settings = task.settings
    estimator = _estimator(task.checkpoint, settings.input_height, task.device, settings.batch_size)
    people = estimator.estimate([list(readable.values()) for readable in frames])
    for tracklet, readable, found in zip(tracklets, frames, people, strict=True):
        yield from _poses(tracklet, readable, dict(zip(readable, found, strict=True)), settings.min_confidence)


def _read_frames(root: Path, tracklet: Tracklet) -> dict[int, np.ndarray]:
    """Index -> frame, of the frames that can be read."""
    frames = {}
    for index, name in enumerate(tracklet.frame_paths):
        with suppress(*UNREADABLE):
            frames[index] = read_frame(root / name)
    return frames


def _poses(
    tracklet: Tracklet, frames: dict[int, np.ndarray], people: dict[int, list[Person]], min_confidence: float
) -> Iterator[FramePose]:
    nothing = np.zeros((NUM_JOINTS, 3), np.float32)
    for index in range(tracklet.num_frames):
        if index not in frames:
            yield FramePose(tracklet.tracklet_id, index, 0, 0, FRAME_UNREADABLE, 0.0, nothing)
            continue
        height, width = frames[index].shape[:2]
        if not people[index]:
            yield FramePose(tracklet.tracklet_id, index, width, height, FRAME_NO_POSE, 0.0, nothing)
            continue
        best = people[index][0]
        keypoints = np.where(best.keypoints[:, 2:] < min_confidence, 0, best.keypoints)
        yield FramePose(tracklet.tracklet_id, index, width, height, FRAME_OK, best.score, keypoints)


def _with_tracklets(tracklets: tuple[Tracklet, ...], poses: list[FramePose]) -> Iterator[tuple[Tracklet, FramePose]]:
    by_id = {tracklet.tracklet_id: tracklet for tracklet in tracklets}
    return ((by_id[pose.tracklet_id], pose) for pose in poses)


@lru_cache(maxsize=1)
def _estimator(checkpoint: ResolvedCheckpoint, input_height: int, device: str, batch_size: int) -> Any:
    """The network, loaded once in a worker process."""
    import torch

    from .pose.pifpaf import PifPafEstimator

    torch.set_num_threads(1)  # the same arithmetic in every worker, however many there are
    return PifPafEstimator(load_checkpoint(checkpoint), input_height, device, batch_size)
