"""keyreid-prep find-bad-frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .command import FriendlyCommand, device_option, root_option


@click.command("find-bad-frames", cls=FriendlyCommand)
@click.argument("prepared", type=click.Path(path_type=Path))
@click.option("--shard", type=click.IntRange(min=0), required=True, help="Number of the shard that fails.")
@click.option("--out", type=click.Path(path_type=Path), help="File for the list.  [default: standard output]")
@root_option
@device_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=900,
    show_default=True,
    help="Seconds after which a try of at most 128 frames counts as hung.",
)
def find_bad_frames(prepared: Path, shard: int, out: Path | None, root: Any, device: str, timeout: float) -> None:
    """Find the frames of a shard that crash pose estimation.

    For a shard that extract-keypoints could not finish: tries its frames in child processes, fewer and fewer at a time,
    until single ones fail, and prints a list for extract-keypoints --skip-frames. A frame that is known to be good is
    tried first: if that fails as well, the device, memory or the checkpoint is at fault, and no frame is named.
    """
    from keyreid.pipeline import find_bad_frames as search

    found = search.find_bad_frames(prepared, shard, root=root, device=device, timeout=timeout)
    with click.open_file(str(out or "-"), "w", encoding="utf-8") as file:
        file.writelines(f"{path}\n" for path in found)
    for path, reason in found.items():
        click.echo(f"{path}: {reason}", err=True)
    said = f"no frame of shard {shard:05d} fails alone: look for lack of memory (fewer --workers), then run "
    said += "extract-keypoints again"
    if found:
        said = f"next, with the options of the first run: keyreid-prep extract-keypoints {prepared} --skip-frames "
        said += str(out or "FILE")
    click.echo(said, err=True)
