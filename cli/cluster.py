"""Options that say where a stage runs; shared by the commands that run on Dask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from keyreid.pipeline.executor import Executor

# Of one machine's memory, measured with the demo's network, 1.1 GB, and a shard of 256 MiB of images being built.
BYTES_PER_WORKER = 1_200_000_000


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --workers, --serial, --scheduler-address, --scheduler-file and --performance-report."""
    for option in (
        click.option("--performance-report", type=click.Path(), help="HTML file for Dask's report of the run."),
        click.option("--scheduler-file", type=click.Path(), help="File that a running Dask scheduler wrote."),
        click.option(
            "--scheduler-address",
            help="A running Dask scheduler, such as tcp://host:8786.  [default: DASK_SCHEDULER_ADDRESS]",
        ),
        click.option("--serial", is_flag=True, help="No Dask: one shard after the other here, for debugging."),
        click.option("--workers", type=click.IntRange(min=1), help="Local Dask workers.  [default: one a core]"),
    ):
        command = option(command)
    return command


def make_executor(serial: bool, performance_report: str | None, **where: Any) -> Executor:
    """The executor that the options ask for."""
    from keyreid.pipeline.errors import SettingsError
    from keyreid.pipeline.executor import DaskExecutor, SerialExecutor

    chosen = ["--" + name.replace("_", "-") for name, value in (where | {"serial": serial}).items() if value]
    if len(chosen) > 1:
        raise SettingsError(" and ".join(chosen) + " were given together", "at most one of them")
    if serial and performance_report:
        raise SettingsError("--performance-report was given with --serial", "Dask workers, which it reports on")
    if serial:
        return SerialExecutor()
    return DaskExecutor(**where, performance_report=performance_report, bytes_per_worker=BYTES_PER_WORKER)
