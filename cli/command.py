"""What every command shares: one clear line for an error, --debug for the traceback."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click


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
        except Exception as error:
            raise click.ClickException(
                f"{type(error).__name__}: {error} (not foreseen; --debug shows where it happened)"
            ) from error


def _set_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.meta["keyreid.debug"] = value
