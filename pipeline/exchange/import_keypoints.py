"""Stage 1 without PifPaf: keypoints found elsewhere become the same files that extract_keypoints writes."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from ..commit import fingerprint
from ..environment import package_versions
from ..errors import SettingsError, SourceError
from ..executor import Executor, Report
from ..extract_keypoints import RULES, commit_keypoints, read_source_frame, rows_of_tracklet
from ..images import UnreadableImage
from ..keypoints import KeypointColumns
from ..manifest import read_manifest, read_shard_frames
from ..pose.selection import GapSettings, Person, SelectionSettings, best_scores, fill_gaps, select_people
from ..records import FRAME_NO_POSE, FRAME_SKIPPED, FRAME_UNREADABLE, ShardReceipt, SourceFrames
from ..stages import KEYPOINTS, MAX_LEFT_OUT, StageSummary, check_roots, frame_roots, limit_left_out, run_stage
from .coco import PIFPAF_SUFFIX, coco_entries
from .formats import POSE_SUFFIX, SourceEntry, pose_entries, sha256_of_source, table_entries, walk
from .matching import FrameNames, Match, check_units, read_spool, spool_people

FORMATS = ("coco", "pose", "table")
FILE_SUFFIXES = {".json": "coco", ".csv": "table", ".parquet": "table"}
FOLDER_SUFFIXES = {"coco": PIFPAF_SUFFIX, "pose": POSE_SUFFIX}
FORMS = f"a file .json, .csv or .parquet, or a folder with *{PIFPAF_SUFFIX} or *{POSE_SUFFIX}"
SPOOL = "import"  # folder in PREPARED while an import runs
PACKAGES = ("pillow", "numpy", "pyarrow")


@dataclass(frozen=True)
class ImportSettings:
    """What imported keypoints depend on besides the frames.

    Attributes:
        source_format: one of FORMATS.
        source_sha256: of the source's file, or of its files' names and contents.
        images_sha256: of the COCO annotation file that names the images; "" where there is none.
        select: which of several people in a frame is kept: one of extract_keypoints.RULES.
        selection, gaps: of the rule "tracklet"; None for the other.
    """

    source_format: str
    source_sha256: str
    images_sha256: str
    select: str
    selection: SelectionSettings | None
    gaps: GapSettings | None


@dataclass(frozen=True)
class ImportSummary:
    """What an import did."""

    stage: StageSummary
    source_format: str
    match: Match


def import_keypoints(
    prepared: Path,
    source: Path,
    executor: Executor,
    *,
    source_format: str = "auto",
    images: Path | None = None,
    select: str = "tracklet",
    root: Path | Mapping[str, Path] | None = None,
    overwrite: bool = False,
    skip_frames: Collection[str] = (),
    retry_left_out: bool = False,
    max_left_out: float = MAX_LEFT_OUT,
) -> ImportSummary:
    """Take the keypoints from `source`; a second run does nothing, an interrupted one resumes.

    The source is read here, its people laid out by shard in a temporary folder of `prepared`; workers read that, and
    each frame once, since its size is needed, and since a broken image must not reach the shards.

    Args:
        source: file or folder of COCO-17 keypoints in pixels of the frames; docs/keypoints.md has the formats.
        source_format: "auto" or one of FORMATS.
        images: COCO annotation file that names the images of a list of results.
        prepared, executor, select, root, overwrite, skip_frames, retry_left_out, max_left_out: see extract_keypoints.

    Raises:
        SourceError: the source cannot be read, does not belong to the frames, or is not in their pixels; or more
            frames than `max_left_out` are left out.
        FormatError: extracted keypoints, or those of another source, are there, and `overwrite` is not given.
        SettingsError: unknown format or rule, or another run is at work on `prepared`.
        KeyReIDError: shards failed.
    """
    if select not in RULES:
        raise SettingsError(f"selection rule {select!r}", "one of " + ", ".join(RULES))
    prepared = prepared.absolute()
    roots = frame_roots(read_manifest(prepared), root)
    name = detect_format(source, source_format, images)
    settings = ImportSettings(
        name,
        sha256_of_source(source, FOLDER_SUFFIXES.get(name, "")),
        sha256_of_source(images, "") if images else "",
        select,
        SelectionSettings() if select == "tracklet" else None,
        GapSettings() if select == "tracklet" else None,
    )
    check_roots(roots.values())
    spool, matches = prepared / SPOOL, list[Match]()

    def read_and_match() -> None:
        cleanup.callback(shutil.rmtree, spool, ignore_errors=True)
        shutil.rmtree(spool, ignore_errors=True)  # of a run that was killed
        spool.mkdir()
        names = FrameNames(prepared, with_suffix=name != "pose")
        matches.append(spool_people(names, read_source(source, name, images), spool))
        check_units(matches[0], names, lambda generation, path: _frame_size(roots[generation], path))

    with ExitStack() as cleanup:
        stage = run_stage(
            prepared,
            KEYPOINTS,
            asdict(settings),
            partial(import_shard, prepared, roots, settings, frozenset(skip_frames)),
            executor,
            prepare=partial(check_roots, tuple(roots.values())),
            before_start=read_and_match,
            overwrite=overwrite,
            retry_left_out=retry_left_out,
        )
    limit_left_out(stage.receipts, max_left_out)
    return ImportSummary(stage, name, matches[0])


def import_shard(
    prepared: Path,
    roots: Mapping[int, Path],
    settings: ImportSettings,
    skipped: frozenset[str],
    shard: int,
    report: Report,
) -> ShardReceipt:
    """Make one shard of keypoints: Parquet, then its receipt; frames whose paths are in `skipped` are not opened."""
    frames = read_shard_frames(prepared, shard)
    people, num_several = read_spool(prepared / SPOOL, shard)
    # one person per frame is kept as it is
    choice = settings if num_several else replace(settings, selection=None, gaps=None)
    rows, start = [], 0
    for tracklet in frames.tracklets:
        count = len(tracklet.paths)
        found = [people.get(start + index, []) for index in range(count)]
        rows.append(_rows(tracklet, found, roots[frames.generation], skipped, choice))
        start += count
        report(count)
    joined, settings_hash = KeypointColumns.join(rows), fingerprint(asdict(settings))
    return commit_keypoints(prepared, frames, joined, settings_hash, package_versions(*PACKAGES))


def _rows(
    tracklet: SourceFrames,
    found: Sequence[list[Person]],
    root: Path,
    skipped: frozenset[str],
    settings: ImportSettings,
) -> KeypointColumns:
    """One row for every frame of a tracklet, in order."""
    statuses, sizes = [FRAME_NO_POSE] * len(found), [(0, 0)] * len(found)
    people: list[list[Person] | None] = [None] * len(found)
    for index, name in enumerate(tracklet.paths):
        try:
            if name in skipped:
                statuses[index] = FRAME_SKIPPED
            else:
                sizes[index], people[index] = _frame_size(root, name), found[index]
        except UnreadableImage:
            statuses[index] = FRAME_UNREADABLE
    if settings.selection is None:
        chosen = best_scores(people)
    else:
        limited = [there and [replace(person, score=min(person.score, 1.0)) for person in there] for there in people]
        chosen = select_people(limited, sizes, settings.selection, tracklet.numbers)
    filled = fill_gaps(chosen, sizes, settings.gaps or GapSettings(max_distance=1), tracklet.numbers)
    return rows_of_tracklet(tracklet.tracklet_id, filled, sizes, statuses)


def _frame_size(root: Path, name: str) -> tuple[int, int]:
    """Width and height of a frame, read to its last pixel."""
    height, width = read_source_frame(root, name).shape[:2]
    return width, height


def read_source(source: Path, source_format: str, images: Path | None = None) -> Iterator[SourceEntry]:
    """What a source of one of FORMATS says, entry by entry."""
    if source_format == "coco":
        return coco_entries(source, images)
    return pose_entries(source) if source_format == "pose" else table_entries(source)


def detect_format(source: Path, name: str = "auto", images: Path | None = None) -> str:
    """The format's name, once its source looks like it.

    Raises:
        SourceError: nothing is there, or nothing of the format.
        SettingsError: an unknown format, or `images` with another source than COCO results.
    """
    if not source.exists():
        raise SourceError(f"{source} is not there", FORMS, "check the path")
    if name not in ("auto", *FORMATS):
        raise SettingsError(f"format {name!r}", "one of auto, " + ", ".join(FORMATS))
    kind, possible = ("folder", [*FOLDER_SUFFIXES]) if source.is_dir() else ("file", [*FILE_SUFFIXES.values()])
    found = [name] if name in possible else []
    if name == "auto" and source.is_dir():
        found = [one for one, suffix in FOLDER_SUFFIXES.items() if next(walk(source, suffix), None)]
    elif name == "auto":
        found = [one for suffix, one in FILE_SUFFIXES.items() if source.suffix.lower() == suffix]
    if len(found) != 1:
        looks = " and ".join(found) or (f"no {name}" if name != "auto" else "none of the formats")
        raise SourceError(f"{source} is a {kind} and looks like {looks}", FORMS, "or choose with --format")
    if images is not None and (found != ["coco"] or source.is_dir()):
        raise SettingsError(f"--images with {source}", "--images with a file of COCO results", "leave it out")
    return found[0]
