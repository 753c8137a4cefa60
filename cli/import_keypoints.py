"""keyreid-prep import-keypoints."""

from __future__ import annotations

from pathlib import Path

import click

from .command import FriendlyCommand
from .keypoint_summary import print_keypoints


@click.command("import-keypoints", cls=FriendlyCommand)
@click.argument("prepared", type=click.Path(path_type=Path))
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "source_format",
    type=click.Choice(["auto", "coco", "pifpaf", "pose", "table"]),
    default="auto",
    show_default=True,
    help="Of SOURCE; auto goes by the suffixes.",
)
@click.option("--images", type=click.Path(path_type=Path), help="COCO results alone: the file that names image ids.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the frames, where it has moved.")
@click.option("--overwrite", is_flag=True, help="Replace extracted keypoints, or those of another source.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def import_keypoints(
    prepared: Path,
    source: Path,
    source_format: str,
    images: Path | None,
    root: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Take COCO-17 keypoints that were found elsewhere, in place of extract-keypoints.

    Coordinates are pixels of the frames. Of several people in a frame the one with the best score is kept. Entries
    are matched to frames by path or by file name; those that match none are counted and named. Goes on where an
    earlier run stopped.

    \b
    coco    results [{image_id, keypoints, score}, ...], or {images, annotations}
            keyreid-prep import-keypoints prepared/ results.json --images frames.json
    pifpaf  a folder of FRAME.jpg.predictions.json, from openpifpaf.predict --json-output
            keyreid-prep import-keypoints prepared/ predictions/
    pose    a folder of FRAME.pose, from the KeyRe-ID authors' extract_keypoint.py
            keyreid-prep import-keypoints prepared/ /data/MARS/keypoints
    table   a .csv or .parquet: frame_path, and keypoints or nose_x, nose_y, nose_c ...
            keyreid-prep import-keypoints prepared/ keypoints.parquet

    Next: keyreid-prep build-shards PREPARED.
    """
    from keyreid.pipeline.exchange.import_keypoints import import_keypoints as run_import

    summary = run_import(prepared, source, source_format=source_format, images=images, root=root, overwrite=overwrite)
    facts = {
        "format": summary.source_format,
        "frames_without_entry": summary.num_without_entry,
        "unmatched": summary.unmatched,
    }
    absent = f"; {summary.num_without_entry:,} frames are not in it" if summary.num_without_entry else ""
    title = f"{prepared}: keypoints ({summary.source_format}{absent})"
    unmatched = {"entries of the source match no frame and are left out": summary.unmatched}
    print_keypoints(title, summary.stage, as_json, facts, unmatched)
