"""Stage 1: frames to keypoints, shard by shard. Written once, read by everything after it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .commit import commit_shard, fingerprint, read_receipt, require_intact
from .environment import device_kind, keep_freed_memory, package_versions
from .errors import FormatError, SettingsError, SourceError
from .executor import Executor, Report
from .images import UnreadableImage, read_frame
from .keypoints import KeypointColumns, keypoints_path, read_keypoints, write_keypoints
from .manifest import ShardFrames, read_manifest, read_shard_frames
from .pose.checkpoints import ResolvedCheckpoint, load_checkpoint
from .pose.forward import Picture, PoseSettings, check_device, choose_device, make_picture
from .pose.selection import GapSettings, Person, SelectionSettings, best_scores, fill_gaps, select_people
from .records import (
    FRAME_INTERPOLATED,
    FRAME_NO_POSE,
    FRAME_OK,
    FRAME_SKIPPED,
    FRAME_STATUSES,
    FRAME_UNREADABLE,
    FRAMES_LEFT_OUT,
    ShardReceipt,
    SourceFrames,
)
from .skeleton import NUM_JOINTS
from .stages import KEYPOINTS, MAX_LEFT_OUT, StageSummary, check_roots, frame_roots, limit_left_out, run_stage

RULES = ("tracklet", "best-score")
MIN_CONFIDENCE = 0.005  # keypoints under it are zeroed, as in the authors' code
PACKAGES = ("openpifpaf", "torch", "pillow", "numpy", "pyarrow")


@dataclass(frozen=True)
class KeypointSettings:
    """What the keypoints depend on besides the frames."""

    checkpoint_sha256: str
    pose: PoseSettings
    select: str  # which person of a frame is kept: one of RULES; "best-score" is the authors'
    selection: SelectionSettings | None  # of the rule "tracklet"; None for the other
    gaps: GapSettings | None  # when gaps are filled; None for never
    min_confidence: float = MIN_CONFIDENCE


@dataclass(frozen=True)
class ExtractTask:
    """One shard's work, as it is sent to a worker; everything is picklable."""

    prepared: Path  # absolute
    roots: Mapping[int, Path]  # generation -> the folder of its frames
    checkpoint: ResolvedCheckpoint
    settings: KeypointSettings
    device: str  # "auto", "cpu" or "cuda"
    skipped: frozenset[str] = frozenset()  # paths of frames that are not opened
    keep_rows: bool = False  # whether a shard that is there keeps the rows of tracklets without left-out frames


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
        retry_left_out: try the tracklets again that have frames left out, since people are chosen over a tracklet.
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
    keep_rows = retry_left_out and not overwrite
    task = ExtractTask(prepared, roots, checkpoint, settings, device, frozenset(skip_frames), keep_rows)
    summary = run_stage(
        prepared,
        KEYPOINTS,
        asdict(settings),
        partial(extract_shard, task),
        executor,
        prepare=partial(prepare_worker, task),
        overwrite=overwrite,
        retry_left_out=retry_left_out,
        recall={"checkpoint": checkpoint.name, "trusted": checkpoint.trusted},
    )
    limit_left_out(summary.receipts, max_left_out)
    return summary


def extract_shard(task: ExtractTask, shard: int, report: Report) -> ShardReceipt:
    """Make one shard of keypoints: Parquet, then its receipt."""
    frames = read_shard_frames(task.prepared, shard)
    made_with = package_versions(*PACKAGES) | {"device": device_kind(choose_device(task.device))}
    parts = _rows_to_keep(task, frames, made_with) if task.keep_rows else []
    there = {number for part in parts for number in part.tracklet_id.tolist()}
    report(sum(map(len, parts)))
    tracklets = [tracklet for tracklet in frames.tracklets if tracklet.tracklet_id not in there]
    parts += estimate_poses(task, tracklets, task.roots[frames.generation], report)
    rows, settings = KeypointColumns.join(parts), fingerprint(asdict(task.settings))
    return commit_keypoints(task.prepared, frames, rows, settings, made_with)


def _rows_to_keep(task: ExtractTask, frames: ShardFrames, made_with: dict[str, str]) -> list[KeypointColumns]:
    """Rows of an earlier run that this worker would make again: of tracklets that have and shall have every frame."""
    with suppress(FormatError):  # damaged: nothing is kept
        receipt = read_receipt(task.prepared, KEYPOINTS, frames.shard)
        same = fingerprint(asdict(task.settings)), frames.sha256, made_with
        if receipt is not None and (receipt.settings, receipt.inputs, receipt.made_with) == same:
            rows = read_keypoints(require_intact(task.prepared, receipt, ""))
            again = rows.tracklet_id[~rows.in_shards].tolist()
            again += [one.tracklet_id for one in frames.tracklets if not task.skipped.isdisjoint(one.paths)]
            return [rows[~np.isin(rows.tracklet_id, again)]]
    return []


def commit_keypoints(
    prepared: Path, frames: ShardFrames, rows: KeypointColumns, settings: str, made_with: dict[str, str]
) -> ShardReceipt:
    """Write the keypoints of a shard's frames and their receipt, which names the frames that are left out.

    Args:
        rows: one for each frame, in order.
        settings: fingerprint of what they depend on besides the frames.
        made_with: see ShardReceipt.
    """
    paths = frames.paths
    notes: dict[str, Any] = {"statuses": {status: int((rows.status == status).sum()) for status in FRAME_STATUSES}}
    for status in FRAMES_LEFT_OUT:
        notes[status] = [paths[row] for row in np.flatnonzero(rows.status == status)]
    return commit_shard(
        prepared,
        KEYPOINTS,
        frames.shard,
        keypoints_path(prepared, frames.shard),
        lambda path: write_keypoints(path, rows),
        generation=frames.generation,
        rows=len(rows),
        settings=settings,
        inputs=frames.sha256,
        notes=notes,
        made_with=made_with,
    )


def prepare_worker(task: ExtractTask) -> None:
    """Check the folders, the image decoders and the device, and load the network; once in a worker."""
    check_roots(task.roots.values())
    check_device(choose_device(task.device))
    _estimator(task.checkpoint, task.device, task.settings.pose)


def estimate_poses(
    task: ExtractTask, tracklets: Sequence[SourceFrames], root: Path, report: Report
) -> Iterator[KeypointColumns]:
    """Yield the rows of each of some tracklets; skipped frames are not opened."""
    read: deque[tuple[tuple[int, int], str]] = deque()  # size, and status if nobody is found; of frames under way

    def pictures() -> Iterator[tuple[int, Picture | None]]:
        for tracklet in tracklets:
            for name in tracklet.paths:
                picture, status = None, FRAME_SKIPPED
                if name not in task.skipped:
                    try:
                        picture, status = make_picture(read_source_frame(root, name), task.settings.pose), FRAME_NO_POSE
                    except UnreadableImage:
                        status = FRAME_UNREADABLE
                read.append((picture.frame_size if picture else (0, 0), status))
                yield tracklet.tracklet_id, picture

    settings = task.settings
    found = _estimator(task.checkpoint, task.device, settings.pose).estimate(pictures())
    for tracklet in tracklets:
        people = list(islice(found, len(tracklet.paths)))
        sizes, statuses = zip(*(read.popleft() for _ in people), strict=True)
        if settings.selection is None:
            chosen = best_scores(people)
        else:
            chosen = select_people(people, sizes, settings.selection, tracklet.numbers)
        filled = fill_gaps(chosen, sizes, settings.gaps or GapSettings(max_distance=1), tracklet.numbers)
        yield rows_of_tracklet(tracklet.tracklet_id, filled, sizes, statuses, settings.min_confidence)
        report(len(people))


def rows_of_tracklet(
    tracklet_id: int,
    chosen: Sequence[Person | None],
    sizes: Sequence[tuple[int, int]],
    statuses: Sequence[str],
    min_confidence: float = 0.0,
) -> KeypointColumns:
    """One row for each frame of a tracklet.

    Args:
        chosen: for each frame its person, None where nobody was found; scores of some programs are sums, ours end at 1.
        sizes: width and height of each frame, 0 where it is left out.
        statuses: of each frame, if nobody was found.
        min_confidence: keypoints under it are zeroed.
    """
    count, status = len(chosen), list(statuses)
    score, keypoints = np.zeros(count, np.float32), np.zeros((count, NUM_JOINTS, 3), np.float32)
    for index, person in enumerate(chosen):
        if person is not None:
            status[index] = FRAME_INTERPOLATED if person.interpolated else FRAME_OK
            score[index], keypoints[index] = min(person.score, 1.0), person.keypoints
    keypoints[keypoints[:, :, 2] < min_confidence] = 0
    return KeypointColumns(
        tracklet_id=np.full(count, tracklet_id, np.int64),
        frame_index=np.arange(count, dtype=np.int32),
        sizes=np.array(sizes, np.int32),
        status=np.array(status),
        score=score,
        keypoints=keypoints,
    )


def read_source_frame(root: Path, name: str) -> np.ndarray:
    """images.read_frame; a SourceError says what it means that a file is not there."""
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


@lru_cache(maxsize=1)
def _estimator(checkpoint: ResolvedCheckpoint, device: str, settings: PoseSettings) -> Any:
    """The network, loaded once in a worker process."""
    import torch

    from .pose.pifpaf import PifPafEstimator

    keep_freed_memory()
    torch.set_num_threads(1)  # the same arithmetic in every worker, however many there are
    return PifPafEstimator(load_checkpoint(checkpoint), choose_device(device), settings.batch_size, settings.decoder)
