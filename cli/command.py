"""What every command shares: one clear line for an error, --debug for the traceback; options of several commands."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from keyreid.pipeline.executor import Executor

# Of one machine's memory, measured with the demo's network, 1.1 GB, and a shard of 256 MiB of images being built.
BYTES_PER_WORKER = 1_200_000_000


class FriendlyCommand(click.Command):
    """A command whose errors are one line; `--debug` lets the traceback through."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_set_debug,
                help="Show the traceback of an error, and more of the log.",
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.meta.get("keyreid.debug", False)
        # Threads that spin while they wait make torch ten times slower as soon as another process wants a core; it is
        # read when torch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        logging.basicConfig(
            stream=sys.stderr, level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s"
        )
        logging.getLogger("keyreid").setLevel(logging.DEBUG if debug else logging.INFO)
        if debug:
            return super().invoke(ctx)
        from keyreid.pipeline.errors import KeyReIDError

        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, KeyboardInterrupt):
            raise
        except KeyReIDError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error} (--debug shows where it happened)") from error
        except Exception as error:
            raise click.ClickException(
                f"unexpected error: {type(error).__name__}: {error} (--debug shows where it happened)"
            ) from error


def _set_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.meta["keyreid.debug"] = value


def collect_roots(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Any:
    """None, one new root, or old -> new where generations have different roots; see stages.frame_roots."""
    roots: dict[str, Path] = {}
    for value in values:
        old, separator, new = value.rpartition("=")
        if not separator or Path(value).exists():
            if len(values) > 1:
                raise click.BadParameter("several roots are given as OLD=NEW each")
            return Path(value)
        roots[old] = Path(new)
    return roots or None


def add_options(*options: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that adds all of them, in order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


root_option = click.option(
    "--root",
    metavar="[OLD=]NEW",
    multiple=True,
    callback=collect_roots,
    help="Folder of the frames if it has moved since indexing; OLD=NEW, several times, after --append.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
device_option = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
# What the stages share: their frames, what is rebuilt, where they run, --json.
stage_options = add_options(
    root_option,
    click.option(
        "--max-left-out",
        type=click.FloatRange(0, 100),
        default=1.0,
        show_default=True,
        metavar="PERCENT",
        callback=lambda ctx, param, value: value / 100,
        help="End with an error if more of all frames are left out.",
    ),
    click.option("--overwrite", is_flag=True, help="Rebuild everything, whatever is there."),
    click.option("--workers", type=click.IntRange(min=1), help="Local Dask workers.  [default: one a core]"),
    click.option("--serial", is_flag=True, help="No Dask: one shard after the other here, for debugging."),
    click.option(
        "--scheduler-address",
        help="A running Dask scheduler, such as tcp://host:8786.  [default: DASK_SCHEDULER_ADDRESS]",
    ),
    click.option("--scheduler-file", type=click.Path(), help="File that a running Dask scheduler wrote."),
    click.option("--performance-report", type=click.Path(), help="HTML file for Dask's report of the run."),
    json_option,
)
# What the stages that make keypoints share.
keypoint_options = add_options(
    click.option(
        "--skip-frames",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="File with one frame path per line, as find-bad-frames writes it: these frames are left out unopened.",
    ),
    click.option(
        "--retry-left-out", is_flag=True, help="Try frames again that were left out, with the rest of their tracklets."
    ),
    stage_options,
)


def pop_executor(options: dict[str, Any]) -> Executor:
    """The executor that stage_options ask for; takes those that speak of it out of `options`."""
    from keyreid.pipeline.errors import SettingsError
    from keyreid.pipeline.executor import DaskExecutor, SerialExecutor

    where = {name: options.pop(name) for name in ("workers", "scheduler_address", "scheduler_file", "serial")}
    report = options.pop("performance_report")
    chosen = ["--" + name.replace("_", "-") for name, value in where.items() if value]
    if len(chosen) > 1:
        raise SettingsError(" and ".join(chosen) + " were given together", "at most one of them")
    if where.pop("serial"):
        if report:
            raise SettingsError("--performance-report was given with --serial", "Dask workers, which it reports on")
        return SerialExecutor()
    return DaskExecutor(**where, performance_report=report, bytes_per_worker=BYTES_PER_WORKER)


def check_prepared(prepared: Path) -> None:
    """Refuse a folder that is not prepared before anything slow is imported."""
    from keyreid.pipeline.manifest import read_dataset

    read_dataset(prepared)


def first_of(names: Sequence[str], count: int = 10) -> list[str]:
    """The first of them, and how many more there are."""
    more = [f"and {len(names) - count:,} more (--json names all)"] if len(names) > count else []
    return [*names[:count], *more]
