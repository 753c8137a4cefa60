"""keyreid-prep export-keypoints."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from .command import FriendlyCommand


@click.command("export-keypoints", cls=FriendlyCommand)
@click.argument("prepared", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT.json", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace OUT.json where it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def export_keypoints(prepared: Path, out: Path, overwrite: bool, as_json: bool) -> None:
    """Write the keypoints as a COCO annotation file: images, annotations, the category with its 17 joints.

    Confidences go along as keypoint_scores, so that import-keypoints reads the very same keypoints back.

    \b
    Example:
      keyreid-prep export-keypoints prepared/ keypoints.json
    """
    from keyreid.pipeline.exchange.coco import export_keypoints as export

    summary = export(prepared, out, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps(asdict(summary)))
        return
    left_out = f", {summary.num_left_out:,} frames left out" if summary.num_left_out else ""
    click.echo(f"{out}: {summary.num_people:,} people in {summary.num_images:,} frames{left_out}")
