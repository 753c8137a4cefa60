"""keyreid-prep import-keypoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .command import FriendlyCommand, keypoint_options, pop_executor
from .keypoint_summary import print_keypoints, read_frame_list


@click.command("import-keypoints", cls=FriendlyCommand)
@click.argument("prepared", type=click.Path(path_type=Path))
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "source_format",
    type=click.Choice(["auto", "coco", "pose", "table"]),
    default="auto",
    show_default=True,
    help="Of SOURCE; auto goes by the suffixes.",
)
@click.option("--images", type=click.Path(path_type=Path), help="Only COCO results: the file that names image ids.")
@click.option(
    "--select",
    type=click.Choice(["tracklet", "best-score"]),
    default="tracklet",
    show_default=True,
    help="Who is kept if SOURCE has several people in a frame: who fits the whole tracklet, short gaps filled; or the "
    "best score of each frame. With one person per frame all are kept as they are.",
)
@keypoint_options
def import_keypoints(
    prepared: Path,
    source: Path,
    source_format: str,
    images: Path | None,
    select: str,
    skip_frames: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Take COCO-17 keypoints that were found elsewhere, in place of extract-keypoints.

    Coordinates are pixels of the frames. Entries are matched to frames by path or by file name; those that match none
    are counted and named. Resumes where an earlier run stopped.

    \b
    coco    results [{image_id, keypoints, score}, ...], or {images, annotations}; or a folder of
            FRAME.jpg.predictions.json, from openpifpaf.predict --json-output
            keyreid-prep import-keypoints prepared/ results.json --images frames.json
    pose    a folder of FRAME.pose, from the KeyRe-ID authors' extract_keypoint.py
            keyreid-prep import-keypoints prepared/ /data/MARS/keypoints
    table   a .csv or .parquet: frame_path, and keypoints or nose_x, nose_y, nose_c ...
            keyreid-prep import-keypoints prepared/ keypoints.parquet --workers 8

    Next: keyreid-prep build-shards PREPARED.
    """
    from keyreid.pipeline.exchange.import_keypoints import import_keypoints as run_import

    skipped = read_frame_list(skip_frames) if skip_frames else frozenset()
    summary = run_import(
        prepared,
        source,
        pop_executor(options),
        source_format=source_format,
        images=images,
        select=select,
        skip_frames=skipped,
        **options,
    )
    match = summary.match
    facts = {
        "format": summary.source_format,
        "frames_without_entry": match.num_without_entry,
        "frames_with_several_people": match.num_several,
        "unmatched": match.unmatched,
    }
    title = f"{prepared}: keypoints ({summary.source_format}"
    title += f"; several people in {match.num_several:,} frames" if match.num_several else ""
    title += f"; {match.num_without_entry:,} frames are not in it)" if match.num_without_entry else ")"
    named = {"entries of the source match no frame and are left out": match.unmatched}
    print_keypoints(title, summary.stage, as_json, facts, named, unmatched_skips=skipped)
