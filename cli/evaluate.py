"""keyreid-eval: what a trained network is worth."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .command import FriendlyCommand


@click.command(cls=FriendlyCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("prepared", type=click.Path(path_type=Path))
@click.option("--protocol", default="standard", show_default=True, help="standard or mars-official.")
@click.option(
    "--identity-split",
    type=int,
    help="For datasets with several (iLIDS-VID, PRID2011 have ten).  [default: the one the network was trained on]",
)
@click.option(
    "--distance",
    type=click.Choice(["plain", "visible-parts"]),
    default="plain",
    show_default=True,
    help="visible-parts compares a part only where both tracklets saw it (aligned variant).",
)
@click.option("--report", type=click.Path(path_type=Path), help="Folder for report.html, metrics.json and pictures.")
@click.option("--baselines", is_flag=True, help="Also measure the untrained network and a colour histogram.")
@click.option(
    "--descriptors", type=click.Path(path_type=Path), help="HDF5 file to keep the descriptors in, or to take them from."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--batch-size", default=16, show_default=True, help="Clips through the network at once.")
@click.option("--json", "as_json", is_flag=True, help="Print the content of metrics.json.")
def main(
    checkpoint: Path,
    prepared: Path,
    protocol: str,
    identity_split: int | None,
    distance: str,
    report: Path | None,
    baselines: bool,
    descriptors: Path | None,
    device: str,
    batch_size: int,
    as_json: bool,
) -> None:
    """Measure how well CHECKPOINT finds the queries of PREPARED again under other cameras.

    CHECKPOINT is a run of keyreid-train, or a folder with model.safetensors and config.json. PREPARED is what
    keyreid-prep made. Printed are Rank-1, 5, 10, 20, mAP and mINP in percent with the protocol they belong to, and how
    many queries count: numbers of different protocols cannot be compared.

    \b
    Examples:
      keyreid-eval runs/mars prepared/
      keyreid-eval runs/mars prepared/ --baselines --report report/
      keyreid-eval runs/mars prepared/ --distance visible-parts --descriptors mars.h5
      keyreid-eval runs/mars prepared/ --protocol mars-official --json > metrics.json
    """
    from keyreid.model.evaluation.checkpoint import choose_identity_split, load_network
    from keyreid.model.evaluation.evaluate import Evaluator, evaluate, write_evaluation
    from keyreid.model.evaluation.measure import text_table
    from keyreid.model.evaluation.protocols import find_protocol
    from keyreid.pipeline.manifest import read_manifest

    chosen = find_protocol(protocol)
    model = load_network(checkpoint, device)
    split = choose_identity_split(checkpoint, read_manifest(prepared).name, identity_split)
    evaluator = Evaluator.on(prepared, split, chosen, batch_size, distance)
    evaluation = evaluate(evaluator, checkpoint, model, baselines=baselines, cache=descriptors)
    page = write_evaluation(report, evaluator, evaluation) if report else None
    if as_json:
        click.echo(json.dumps(evaluation.to_dict(), indent=2, sort_keys=True))
        return
    click.echo(evaluation.headline())
    click.echo(text_table(evaluation.measurements))
    if page:
        click.echo(f"report: {page}")
