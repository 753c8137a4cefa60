"""What keyreid-train --dry-run and --profile print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import torch

    from keyreid.model.training.config import RunConfig
    from keyreid.model.training.inputs import TrainingInputs


def print_dry_run(inputs: TrainingInputs, config: RunConfig, device: torch.device, *, as_json: bool) -> None:
    """A few steps, and what the run would take."""
    from keyreid.model.training.dry_run import dry_run

    found = dry_run(inputs, config, device)
    click.echo(json.dumps(found.to_dict()) if as_json else "\n".join(found.lines()))


def print_profile(inputs: TrainingInputs, config: RunConfig, device: torch.device, run: Path) -> None:
    """A few steps under the profiler: its trace goes into RUN/profile, a table to standard output."""
    from keyreid.model.training.profiling import profile_steps

    path, lines = profile_steps(inputs, config, device, run)
    click.echo("\n".join(lines))
    click.echo(f"\nopen {path} in chrome://tracing or ui.perfetto.dev", err=True)
