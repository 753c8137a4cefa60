"""keyreid export."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .command import FriendlyCommand


@click.command(cls=FriendlyCommand)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(model: Path, out: Path, as_json: bool) -> None:
    """Write MODEL to OUT, a file that needs neither keyreid nor timm: .pt2 (torch.export) or .onnx.

    MODEL is a run of keyreid-train, or a folder with model.safetensors and config.json. OUT takes any number of clips
    at once: frames, part weights and, where the network looks at them, rows of the camera table. What was written is
    run beside the network on 1 and on 5 random clips, and is kept only where both agree. ONNX needs the packages of
    "keyreid[export]".

    \b
    Examples:
      keyreid export runs/mars mars.onnx
      keyreid export runs/mars/weights mars.pt2
    """
    from keyreid.model.evaluation.checkpoint import load_network
    from keyreid.model.network.export import BATCHES, export_model

    written = export_model(load_network(model, "cpu"), out)
    if as_json:
        click.echo(json.dumps(written.to_dict(), sort_keys=True))
        return
    batches = " and ".join(map(str, BATCHES))
    click.echo(
        f"{written.path}: {written.num_bytes / 1e6:,.1f} MB, inputs {', '.join(written.inputs)}; differs from the "
        f"network by at most {written.difference:.0e} (relative) for {batches} clips"
    )
