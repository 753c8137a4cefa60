"""keyreid-prep build-shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .command import FriendlyCommand, pop_executor, stage_options


@click.command("build-shards", cls=FriendlyCommand)
@click.argument("prepared", type=click.Path(path_type=Path))
@stage_options
def build_shards(prepared: Path, as_json: bool, **options: Any) -> None:
    """Pack frames and part heatmaps into the HDF5 shards that training streams.

    Afterwards PREPARED stands alone: training and evaluation never open the source's images.

    \b
    Example:
      keyreid-prep build-shards prepared/ --workers 8
    """
    from keyreid.pipeline.build_shards import build_shards as build

    summary = build(prepared, pop_executor(options), **options)
    frames = sum(receipt.rows for receipt in summary.receipts)
    size = sum((prepared / receipt.file).stat().st_size for receipt in summary.receipts)
    if as_json:
        click.echo(json.dumps({"frames": frames, "bytes": size, "shards": len(summary.receipts)}))
        return
    made = f"{summary.num_made} shards made, {summary.num_kept} already complete"
    click.echo(
        f"{prepared}: {frames:,} frames in {size / 1e6:,.1f} MB ({size / max(frames, 1) / 1e3:.1f} kB each); {made}"
    )
