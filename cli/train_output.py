"""What keyreid-train prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import torch

    from keyreid.model.training.config import RunConfig
    from keyreid.model.training.inputs import TrainingInputs
    from keyreid.model.training.trainer import TrainingSummary


def print_summary(summary: TrainingSummary, *, as_json: bool) -> None:
    """What a finished run did, in one line."""
    if as_json:
        click.echo(json.dumps(summary.to_dict()))
        return
    best = "".join(
        f"best {label} {100 * summary.best[measure]['value']:.1f} % after {summary.best[measure]['epochs']} epochs, "
        for measure, label in (("mAP", "mAP"), ("rank1", "Rank-1"))
        if measure in summary.best
    )
    loss = "nothing was left to do" if summary.loss is None else f"loss {summary.loss:.3f}"
    click.echo(
        f"trained on {summary.num_tracklets} tracklets of {summary.num_identities} identities: "
        f"{summary.epochs} epochs, {summary.steps} steps, {loss}, {best}{summary.seconds:.0f} s on "
        f"{summary.device}; weights in {summary.weights}"
    )


def print_dry_run(inputs: TrainingInputs, config: RunConfig, device: torch.device, *, as_json: bool) -> None:
    """A few steps, and what the run would take."""
    from keyreid.model.training.failures import explained
    from keyreid.model.training.rehearsal import dry_run

    with explained(config, device):
        found = dry_run(inputs, config, device)
    click.echo(json.dumps(found.to_dict()) if as_json else "\n".join(found.lines()))


def print_profile(inputs: TrainingInputs, config: RunConfig, device: torch.device, run: Path) -> None:
    """A few steps under the profiler: its trace goes into RUN/profile, a table to standard output."""
    from keyreid.model.training.failures import explained
    from keyreid.model.training.rehearsal import profile_steps

    with explained(config, device):
        path, lines = profile_steps(inputs, config, device, run)
    click.echo("\n".join(lines))
    click.echo(f"\nopen {path} in chrome://tracing or ui.perfetto.dev", err=True)
