"""Stage 1: frames to keypoints, shard by shard. Written once, read by everything after it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .commit import commit_shard, fingerprint
from .environment import device_kind, keep_freed_memory, package_versions
from .errors import SettingsError
from .executor import Executor, Report
from .images import UNREADABLE, read_frame
from .keypoints import keypoints_path, write_keypoints
from .manifest import cached_manifest, read_manifest
from .pose.checkpoints import ResolvedCheckpoint, load_checkpoint
from .pose.device import choose_device
from .pose.evidence import PersonLike
from .pose.frames import Picture, make_picture
from .pose.gaps import Filled, GapSettings, fill_gaps
from .pose.selection import SelectionSettings, best_scores, select_people
from .pose.settings import PoseSettings
from .quarantine import find_fatal, read_quarantine, write_quarantine
from .records import (
    FRAME_INTERPOLATED,
    FRAME_NO_POSE,
    FRAME_OK,
    FRAME_QUARANTINED,
    FRAME_STATUSES,
    FRAME_UNREADABLE,
    FramePose,
    ShardReceipt,
    Tracklet,
)
from .skeleton import NUM_JOINTS
from .stages import StageSummary, begin_stage, frames_folder, run_stage

STAGE = "keypoints"
RULES = ("tracklet", "best-score")
MIN_CONFIDENCE = 0.005  # keypoints under it are zeroed, as in the authors' code
PACKAGES = ("openpifpaf", "torch", "pillow", "numpy", "pyarrow")


@dataclass(frozen=True)
class KeypointSettings:
    """What the keypoints depend on besides the frames.

    Attributes:
        checkpoint_sha256: hash of the weights.
        pose: how frames reach the network and people come out of it.
        select: which person of a frame is kept: one of RULES; "best-score" is the authors'.
        selection: weights of the rule "tracklet"; None for the other.
        gaps: when gaps are filled; None for never.
        min_confidence: keypoints under it are zeroed.
    """

    checkpoint_sha256: str
    pose: PoseSettings
    select: str
    selection: SelectionSettings | None
    gaps: GapSettings | None
    min_confidence: float = MIN_CONFIDENCE


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
    pose: PoseSettings | None = None,
    select: str = "tracklet",
    root: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> StageSummary:
    """Find the people in every frame; a second run does nothing, an interrupted one goes on.

    A frame that kills the process that works on it, or makes it fail, is found by bisection and quarantined: it is
    named in the receipt and left out.

    Args:
        prepared: the prepared dataset, already indexed.
        checkpoint: of PifPaf.
        executor: serial or Dask.
        pose: sizes and thresholds; None: the height that suits the checkpoint, and openpifpaf's thresholds.
        select: which person of a frame is kept, one of RULES.
        root: the source's folder, where it has moved since it was indexed.
        device: of the network: "auto", "cpu" or "cuda".
        overwrite: make everything anew where the settings changed.

    Raises:
        SourceError: the source's folder is not there.
        FormatError: keypoints of other settings are there, and `overwrite` is not given.
        SettingsError: unknown rule, or another run is at work on `prepared`.
    """
    if select not in RULES:
        raise SettingsError(f"selection rule {select!r}", "one of " + ", ".join(RULES))
    whole = select == "tracklet"
    manifest = read_manifest(prepared)
    settings = KeypointSettings(
        checkpoint.sha256,
        pose or PoseSettings(checkpoint.input_height),
        select,
        SelectionSettings() if whole else None,
        GapSettings() if whole else None,
    )
    task = ExtractTask(prepared, frames_folder(manifest, root), checkpoint, settings, device)
    with begin_stage(prepared, STAGE, asdict(settings), overwrite=overwrite) as stage_fingerprint:
        return run_stage(
            prepared,
            manifest,
            STAGE,
            stage_fingerprint,
            lambda shard: shard_inputs(manifest.shard(shard)),
            partial(extract_shard, task),
            executor,
            prepare=partial(prepare_worker, task),
            rescue=partial(rescue_shard, task),
        )


def extract_shard(task: ExtractTask, shard: int, report: Report) -> ShardReceipt:
    """Make one shard of keypoints: Parquet, then its receipt."""
    tracklets = cached_manifest(task.prepared).shard(shard)
    quarantined = read_quarantine(task.prepared, shard)
    poses = list(estimate_poses(task, tracklets, quarantined, report))
    return commit_shard(
        task.prepared,
        STAGE,
        shard,
        keypoints_path(task.prepared, shard),
        lambda path: write_keypoints(path, poses),
        rows=len(poses),
        settings=fingerprint(asdict(task.settings)),
        inputs=shard_inputs(tracklets),
        notes=keypoint_notes(tracklets, poses),
        made_with=package_versions(*PACKAGES) | {"device": device_kind(choose_device(task.device))},
    )


def prepare_worker(task: ExtractTask) -> None:
    """Load the network, once in a worker."""
    _estimator(task.checkpoint, task.device, task.settings.pose)


def rescue_shard(task: ExtractTask, shard: int, report: Report) -> ShardReceipt:
    """Make a shard over which workers died: find the frames that did it, put them in quarantine, and go on."""
    names = [name for tracklet in cached_manifest(task.prepared).shard(shard) for name in tracklet.frame_paths]
    known = read_quarantine(task.prepared, shard)
    fatal = find_fatal(partial(try_frames, task, shard), [name for name in dict.fromkeys(names) if name not in known])
    if fatal:
        write_quarantine(task.prepared, shard, known | fatal)
    return extract_shard(task, shard, report)


def try_frames(task: ExtractTask, shard: int, names: Sequence[str]) -> None:
    """Do what extract_shard does with some frames of a shard, and forget the result."""
    chosen = set(names)
    tracklets = [
        replace(tracklet, frame_paths=tuple(name for name in tracklet.frame_paths if name in chosen))
        for tracklet in cached_manifest(task.prepared).shard(shard)
    ]
    for _ in estimate_poses(task, tracklets, (), lambda frames: None):
        pass


def keypoint_notes(tracklets: Iterable[Tracklet], poses: Iterable[FramePose]) -> dict[str, object]:
    """How many frames have which status, and the names of those that are left out."""
    by_id = {tracklet.tracklet_id: tracklet for tracklet in tracklets}
    counts = dict.fromkeys(FRAME_STATUSES, 0)
    named: dict[str, list[str]] = {FRAME_UNREADABLE: [], FRAME_QUARANTINED: []}
    for pose in poses:
        counts[pose.status] += 1
        if pose.status in named:
            named[pose.status].append(by_id[pose.tracklet_id].frame_paths[pose.frame_index])
    return {"statuses": counts, **named}


def shard_inputs(tracklets: tuple[Tracklet, ...]) -> str:
    """Fingerprint of the frames that a shard is made from, by name."""
    return fingerprint([[tracklet.tracklet_id, tracklet.frame_paths] for tracklet in tracklets])


def estimate_poses(
    task: ExtractTask, tracklets: Sequence[Tracklet], quarantined: Container[str], report: Report
) -> Iterator[FramePose]:
    """Yield one pose for every frame of some tracklets, in order; frames in quarantine are not opened."""
    sizes: dict[tuple[int, int], tuple[int, int]] = {}

    def pictures() -> Iterator[tuple[int, Picture | None]]:
        for tracklet in tracklets:
            for index, name in enumerate(tracklet.frame_paths):
                picture = None if name in quarantined else _read_picture(task.root / name, task.settings.pose)
                sizes[tracklet.tracklet_id, index] = (0, 0) if picture is None else picture.frame_size
                yield tracklet.tracklet_id, picture

    found = _estimator(task.checkpoint, task.device, task.settings.pose).estimate(pictures())
    for tracklet in tracklets:
        people = list(islice(found, tracklet.num_frames))
        frame_sizes = [sizes.pop((tracklet.tracklet_id, index)) for index in range(tracklet.num_frames)]
        for index, person in enumerate(_choose(people, frame_sizes, task.settings)):
            unread = FRAME_QUARANTINED if tracklet.frame_paths[index] in quarantined else FRAME_UNREADABLE
            status, score, keypoints = _row(person, FRAME_NO_POSE if people[index] is not None else unread)
            keypoints = np.where(keypoints[:, 2:] < task.settings.min_confidence, np.float32(0), keypoints)
            yield FramePose(tracklet.tracklet_id, index, *frame_sizes[index], status, score, keypoints)
        report(tracklet.num_frames)


def _read_picture(path: Path, settings: PoseSettings) -> Picture | None:
    try:
        return make_picture(read_frame(path), settings)
    except UNREADABLE:
        return None


def _choose(
    people: Sequence[Sequence[PersonLike] | None], sizes: Sequence[tuple[int, int]], settings: KeypointSettings
) -> Sequence[Filled | None]:
    chosen = best_scores(people) if settings.selection is None else select_people(people, sizes, settings.selection)
    return fill_gaps(chosen, sizes, settings.gaps or GapSettings(max_distance=1))


def _row(person: Filled | None, status_of_nobody: str) -> tuple[str, float, np.ndarray]:
    if person is None:
        return status_of_nobody, 0.0, np.zeros((NUM_JOINTS, 3), np.float32)
    return FRAME_INTERPOLATED if person.interpolated else FRAME_OK, person.score, person.keypoints


@lru_cache(maxsize=1)
def _estimator(checkpoint: ResolvedCheckpoint, device: str, settings: PoseSettings) -> Any:
    """The network, loaded once in a worker process."""
    import torch

    from .pose.pifpaf import PifPafEstimator

    keep_freed_memory()
    torch.set_num_threads(1)  # the same arithmetic in every worker, however many there are
    return PifPafEstimator(load_checkpoint(checkpoint), choose_device(device), settings.batch_size, settings.decoder)
