"""Stage 1: frames to keypoints, shard by shard. Written once, read by everything after it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .commit import commit_shard, fingerprint
from .environment import device_kind, keep_freed_memory, package_versions
from .errors import SettingsError, SourceError
from .executor import Executor, Report
from .images import UnreadableImage, check_decoders, read_frame
from .keypoints import KeypointColumns, keypoints_path, write_keypoints
from .manifest import ShardFrames, read_dataset, read_manifest, read_shard_frames, shard_inputs
from .pose.checkpoints import ResolvedCheckpoint, load_checkpoint, resolve_checkpoint
from .pose.forward import DecoderSettings, Picture, PoseSettings, check_device, choose_device, make_picture
from .pose.selection import GapSettings, Person, SelectionSettings, best_scores, fill_gaps, select_people
from .records import (
    FRAME_INTERPOLATED,
    FRAME_NO_POSE,
    FRAME_OK,
    FRAME_SKIPPED,
    FRAME_STATUSES,
    FRAME_UNREADABLE,
    FRAMES_LEFT_OUT,
    FramePose,
    ShardReceipt,
    SourceFrames,
)
from .skeleton import NUM_JOINTS
from .stages import MAX_LEFT_OUT, StageSummary, check_roots, count_left_out, frame_roots, limit_left_out, run_stage

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
    """One shard's work, as it is sent to a worker; everything is picklable.

    Attributes:
        prepared: absolute path.
        roots: generation -> the folder of its frames.
        checkpoint, settings: see KeypointSettings.
        device: "auto", "cpu" or "cuda".
        skipped: paths of frames that are not opened.
    """

    prepared: Path
    roots: Mapping[int, Path]
    checkpoint: ResolvedCheckpoint
    settings: KeypointSettings
    device: str
    skipped: frozenset[str] = field(default=frozenset())


def extract_keypoints(
    prepared: Path,
    checkpoint: ResolvedCheckpoint,
    executor: Executor,
    *,
    pose: PoseSettings | None = None,
    select: str = "tracklet",
    root: Path | Mapping[str, Path] | None = None,
    device: str = "auto",
    overwrite: bool = False,
    skip_frames: Collection[str] = (),
    retry_left_out: bool = False,
    max_left_out: float = MAX_LEFT_OUT,
) -> StageSummary:
    """Find the people in every frame; a second run does nothing, an interrupted one resumes.

    A frame whose content is no image is `unreadable`: counted, named and left out. Anything else that fails (a file
    that is missing, a device, memory) fails its shard; the others are made, and the run ends in an error.

    Args:
        prepared: the prepared dataset, already indexed.
        checkpoint: of PifPaf.
        executor: serial or Dask.
        pose: sizes and thresholds; None: the height that suits the checkpoint, and openpifpaf's thresholds.
        select: which person of a frame is kept, one of RULES.
        root: the frames' folder, if it has moved since indexing; see stages.frame_roots.
        device: of the network: "auto", "cpu" or "cuda".
        overwrite: rebuild everything.
        skip_frames: paths of frames that are left out unopened, such as find-bad-frames lists.
        retry_left_out: rebuild the shards that have frames left out.
        max_left_out: share of all frames that may be left out, 0 to 1.

    Raises:
        FormatError: keypoints of other settings are there, and `overwrite` is not given.
        SettingsError: unknown rule, or another run is at work on `prepared`.
        SourceError: more frames than `max_left_out` are left out; all the work is done.
        KeyReIDError: shards failed.
    """
    if select not in RULES:
        raise SettingsError(f"selection rule {select!r}", "one of " + ", ".join(RULES))
    over_tracklet = select == "tracklet"
    prepared = prepared.absolute()
    settings = KeypointSettings(
        checkpoint.sha256,
        pose or PoseSettings(checkpoint.input_height),
        select,
        SelectionSettings() if over_tracklet else None,
        GapSettings() if over_tracklet else None,
    )
    roots = frame_roots(read_manifest(prepared), root)
    task = ExtractTask(prepared, roots, checkpoint, settings, device, frozenset(skip_frames))
    summary = run_stage(
        prepared,
        STAGE,
        asdict(settings),
        partial(shard_inputs, prepared),
        partial(extract_shard, task),
        executor,
        prepare=partial(prepare_worker, task),
        overwrite=overwrite,
        retry=lambda receipt: retry_left_out and any(map(len, count_left_out([receipt]).values())),
        recall={"checkpoint": checkpoint.name, "trusted": checkpoint.trusted},
    )
    limit_left_out(summary.receipts, max_left_out)
    return summary


def task_of_stage(prepared: Path, root: Path | Mapping[str, Path] | None = None, device: str = "auto") -> ExtractTask:
    """The task of an earlier run, from what dataset.json keeps of it.

    Raises:
        SettingsError: keypoints were not extracted here.
    """
    prepared = prepared.absolute()
    info = read_dataset(prepared)
    settings, recall = (info.get(key, {}).get(STAGE, {}) for key in ("stages", "recall"))
    if "pose" not in settings or "checkpoint" not in recall:
        raise SettingsError(f"{prepared} has no extracted keypoints", "a run of extract-keypoints", "run it first")
    values = settings["pose"]
    restored = KeypointSettings(
        settings["checkpoint_sha256"],
        PoseSettings(**values | {"decoder": DecoderSettings(**values["decoder"])}),
        settings["select"],
        None if settings["selection"] is None else SelectionSettings(**settings["selection"]),
        None if settings["gaps"] is None else GapSettings(**settings["gaps"]),
        settings["min_confidence"],
    )
    checkpoint = resolve_checkpoint(recall["checkpoint"], trust=recall["trusted"])
    return ExtractTask(prepared, frame_roots(read_manifest(prepared), root), checkpoint, restored, device)


def extract_shard(task: ExtractTask, shard: int, report: Report) -> ShardReceipt:
    """Make one shard of keypoints: Parquet, then its receipt."""
    frames = read_shard_frames(task.prepared, shard)
    rows = KeypointColumns.of(estimate_poses(task, frames.tracklets, task.roots[frames.generation], report))
    return commit_shard(
        task.prepared,
        STAGE,
        shard,
        keypoints_path(task.prepared, shard),
        lambda path: write_keypoints(path, rows),
        generation=frames.generation,
        rows=len(rows),
        settings=fingerprint(asdict(task.settings)),
        inputs=frames.sha256,
        notes=keypoint_notes(frames, rows),
        made_with=package_versions(*PACKAGES) | {"device": device_kind(choose_device(task.device))},
    )


def prepare_worker(task: ExtractTask) -> None:
    """Check the folders, the image decoders and the device, and load the network; once in a worker."""
    check_roots(task.roots.values())
    check_decoders()
    check_device(choose_device(task.device))
    _estimator(task.checkpoint, task.device, task.settings.pose)


def try_frames(task: ExtractTask, root: Path, paths: Sequence[str]) -> None:
    """Do what extract_shard does with some frames under a root, and forget the result."""
    frames = SourceFrames(0, tuple(paths), np.arange(len(paths)), np.zeros(len(paths)))
    for _ in estimate_poses(task, [frames], root, lambda count: None):
        pass


def keypoint_notes(frames: ShardFrames, rows: KeypointColumns) -> dict[str, object]:
    """How many frames have which status, and the names of those that are left out."""
    counts = {status: int((rows.status == status).sum()) for status in FRAME_STATUSES}
    paths = frames.paths
    named = {status: [paths[row] for row in np.flatnonzero(rows.status == status)] for status in FRAMES_LEFT_OUT}
    return {"statuses": counts, **named}


def estimate_poses(
    task: ExtractTask, tracklets: Sequence[SourceFrames], root: Path, report: Report
) -> Iterator[FramePose]:
    """Yield one pose for every frame of some tracklets, in order; skipped frames are not opened."""
    left_out: dict[tuple[int, int], str] = {}
    sizes: dict[tuple[int, int], tuple[int, int]] = {}

    def pictures() -> Iterator[tuple[int, Picture | None]]:
        for tracklet in tracklets:
            for index, name in enumerate(tracklet.paths):
                frame = tracklet.tracklet_id, index
                picture = None
                if name in task.skipped:
                    left_out[frame] = FRAME_SKIPPED
                else:
                    try:
                        picture = make_picture(read_source_frame(root, name), task.settings.pose)
                    except UnreadableImage:
                        left_out[frame] = FRAME_UNREADABLE
                sizes[frame] = (0, 0) if picture is None else picture.frame_size
                yield tracklet.tracklet_id, picture

    found = _estimator(task.checkpoint, task.device, task.settings.pose).estimate(pictures())
    for tracklet in tracklets:
        count = len(tracklet.paths)
        people = list(islice(found, count))
        frame_sizes = [sizes.pop((tracklet.tracklet_id, index)) for index in range(count)]
        for index, person in enumerate(_choose(people, frame_sizes, tracklet.numbers, task.settings)):
            nobody = left_out.pop((tracklet.tracklet_id, index), FRAME_NO_POSE)
            status, score, keypoints = _row(person, nobody)
            keypoints = np.where(keypoints[:, 2:] < task.settings.min_confidence, np.float32(0), keypoints)
            yield FramePose(tracklet.tracklet_id, index, *frame_sizes[index], status, score, keypoints)
        report(count)


def read_source_frame(root: Path, name: str) -> np.ndarray:
    """images.read_frame; a file that is not there says what that means.

    Raises:
        SourceError: it is missing.
        UnreadableImage: its content is no image.
        OSError: it cannot be read.
    """
    try:
        return read_frame(root / name)
    except FileNotFoundError as error:
        raise missing_frame(root, name) from error


def missing_frame(root: Path, name: str) -> SourceError:
    """The error of a frame that was there when the dataset was indexed."""
    return SourceError(
        f"frame {name} is not in {root}",
        "every frame that was indexed",
        "check that the folder is mounted, or name its new place with --root; a frame that is gone for good can be "
        "listed in --skip-frames when the keypoints are made",
    )


def _choose(
    people: Sequence[Sequence[Person] | None],
    sizes: Sequence[tuple[int, int]],
    numbers: np.ndarray,
    settings: KeypointSettings,
) -> Sequence[Person | None]:
    if settings.selection is None:
        chosen = best_scores(people)
    else:
        chosen = select_people(people, sizes, settings.selection, numbers)
    return fill_gaps(chosen, sizes, settings.gaps or GapSettings(max_distance=1), numbers)


def _row(person: Person | None, status_of_nobody: str) -> tuple[str, float, np.ndarray]:
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
