"""Options of the commands that embed tracklets: EmbeddingSettings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class CountOrAll(click.ParamType):
    """A number, or "all", which is None."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        return None if value == "all" else click.INT.convert(value, param, ctx)


OPTIONS = (
    click.option("--max-clips", type=CountOrAll(), default="41", show_default=True, help="Clips of a tracklet."),
    click.option(
        "--shifts",
        type=int,
        default=1,
        show_default=True,
        help="Cut each tracklet into clips this many times, each time starting later.",
    ),
    click.option("--flip", is_flag=True, help="Embed the mirror image of every clip too."),
    click.option(
        "--cameras",
        type=click.Choice(["known", "mean"]),
        default="known",
        show_default=True,
        help="mean: cameras are not those of training; the mean of its camera embeddings stands for each.",
    ),
)


def description_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options max_clips, shifts, flip and cameras."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
