"""keyreid-prep extract-keypoints."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .cluster import cluster_options, make_executor
from .command import FriendlyCommand

NAMED_AT_MOST = 10


@click.command("extract-keypoints", cls=FriendlyCommand)
@click.argument("prepared", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint",
    required=True,
    help="PifPaf weights: an openpifpaf name (shufflenetv2k16), a file, or 'synthetic' for drawn people.",
)
@click.option("--trust-checkpoint", is_flag=True, help="Load a pickle of unknown origin. It can run any code.")
@click.option("--input-height", type=click.IntRange(min=32), help="Pixels that frames are resized to before PifPaf.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(min=1))
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the frames, where it has moved.")
@click.option("--overwrite", is_flag=True, help="Make keypoints of other settings anew.")
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def extract_keypoints(
    prepared: Path,
    checkpoint: str,
    trust_checkpoint: bool,
    input_height: int | None,
    device: str,
    batch_size: int,
    root: Path | None,
    overwrite: bool,
    workers: int | None,
    serial: bool,
    scheduler_address: str | None,
    scheduler_file: str | None,
    performance_report: str | None,
    as_json: bool,
) -> None:
    """Find the person in every frame with PifPaf, once and in parallel.

    Goes on where an earlier run stopped; a second run does nothing. Frames that cannot be read are counted and named
    at the end, and never stop the run.

    \b
    Examples:
      keyreid-prep extract-keypoints prepared/ --checkpoint shufflenetv2k16 --workers 8
      keyreid-prep extract-keypoints prepared/ --checkpoint synthetic --serial
      keyreid-prep extract-keypoints prepared/ --checkpoint resnet50 --scheduler-address tcp://head:8786
    """
    from keyreid.pipeline.extract_keypoints import extract_keypoints as extract
    from keyreid.pipeline.pose.checkpoints import resolve_checkpoint

    executor = make_executor(workers, serial, scheduler_address, scheduler_file, performance_report)
    summary = extract(
        prepared,
        resolve_checkpoint(checkpoint, trust=trust_checkpoint),
        executor,
        root=root,
        input_height=input_height,
        device=device,
        batch_size=batch_size,
        overwrite=overwrite,
    )
    frames = sum(receipt.rows for receipt in summary.receipts)
    no_pose = sum(int(str(receipt.notes["no_pose"])) for receipt in summary.receipts)
    unreadable = [str(name) for receipt in summary.receipts for name in receipt.notes["unreadable"]]  # type: ignore[attr-defined]
    if as_json:
        click.echo(json.dumps({"frames": frames, "no_pose": no_pose, "unreadable": unreadable}))
        return
    made = f"{summary.num_made} shards made, {summary.num_kept} already whole"
    click.echo(f"{prepared}: keypoints of {frames:,} frames, {no_pose:,} without a person; {made}")
    if unreadable:
        click.echo(f"{len(unreadable):,} frames could not be read and are left out:", err=True)
        for name in unreadable[:NAMED_AT_MOST]:
            click.echo(f"  {name}", err=True)
        if len(unreadable) > NAMED_AT_MOST:
            click.echo(f"  and {len(unreadable) - NAMED_AT_MOST:,} more (--json names all)", err=True)
