"""keyreid-prep build-shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .cluster import cluster_options, make_executor
from .command import FriendlyCommand, frame_options


@click.command("build-shards", cls=FriendlyCommand)
@click.argument("prepared", type=click.Path(path_type=Path))
@frame_options
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def build_shards(
    prepared: Path,
    root: Any,
    max_left_out: float,
    overwrite: bool,
    as_json: bool,
    **cluster: Any,
) -> None:
    """Pack frames and part heatmaps into the HDF5 shards that training streams.

    Afterwards PREPARED stands alone: training and evaluation never open the source's images.

    \b
    Example:
      keyreid-prep build-shards prepared/ --workers 8
    """
    from keyreid.pipeline.build_shards import build_shards as build

    executor = make_executor(**cluster)
    summary = build(prepared, executor, root=root, overwrite=overwrite, max_left_out=max_left_out)
    frames = sum(receipt.rows for receipt in summary.receipts)
    size = sum((prepared / receipt.file).stat().st_size for receipt in summary.receipts)
    if as_json:
        click.echo(json.dumps({"frames": frames, "bytes": size, "shards": len(summary.receipts)}))
        return
    made = f"{summary.num_made} shards made, {summary.num_kept} already complete"
    click.echo(
        f"{prepared}: {frames:,} frames in {size / 1e6:,.1f} MB ({size / max(frames, 1) / 1e3:.1f} kB each); {made}"
    )
