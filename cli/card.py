"""keyreid card."""

from __future__ import annotations

from pathlib import Path

import click

from .command import FriendlyCommand


@click.command(cls=FriendlyCommand)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--metrics",
    "reports",
    multiple=True,
    type=click.Path(path_type=Path),
    help="metrics.json (or its folder) of keyreid-eval --report with these weights. Repeatable.",
)
def card(model: Path, reports: tuple[Path, ...]) -> None:
    """Write README.md beside the weights of MODEL: what it is, what it was trained on, and what was measured.

    keyreid-train writes one without figures. Figures of other weights are refused. The folder, with this page, is what
    a repository of models takes as it is.

    \b
    Example:
      keyreid-eval runs/mars prepared/ --report report/
      keyreid card runs/mars --metrics report/metrics.json
    """
    from keyreid.model.embedding.descriptors import model_fingerprint
    from keyreid.model.evaluation.checkpoint import load_network, weights_folder
    from keyreid.model.evaluation.results import read_metrics
    from keyreid.model.network.model_card import write_model_card

    fingerprint = model_fingerprint(load_network(model, "cpu")) if reports else ""
    measured = [read_metrics(path, fingerprint) for path in reports]
    click.echo(write_model_card(weights_folder(model), measured))
