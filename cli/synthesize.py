"""keyreid-prep synthesize."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from .command import FriendlyCommand


@click.command(cls=FriendlyCommand)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(["mars", "ilids-vid", "prid2011", "ls-vid", "folder"]),
    default="mars",
    show_default=True,
)
@click.option("--identities", default=48, show_default=True, help="People; half of them are for testing.")
@click.option("--cameras", type=int, help="Cameras.  [default: 4; ilids-vid, prid2011: 2]")
@click.option("--tracklets", type=int, help="Tracklets per person and camera.  [default: 2; ilids-vid, prid2011: 1]")
@click.option(
    "--frames",
    type=(int, int),
    help="Shortest and longest tracklet.  [default: 6 12; prid2011: 27 32, its least is 27]",
)
@click.option("--difficulty", default=0.6, show_default=True, help="0 (easy) to 1 (look-alikes, occluders, strangers).")
@click.option(
    "--wardrobe",
    type=click.Choice(["own", "shared"]),
    default="own",
    show_default=True,
    help="Clothes of own colours, or all of the same few dull ones, which prints and cuts tell apart.",
)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--workers", type=int, default=lambda: os.cpu_count() or 1, help="Rendering processes.  [default: one per core]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def synthesize(
    out: Path,
    layout: str,
    identities: int,
    cameras: int | None,
    tracklets: int | None,
    frames: tuple[int, int] | None,
    difficulty: float,
    wardrobe: str,
    seed: int,
    workers: int,
    as_json: bool,
) -> None:
    """Render synthetic people who walk past cameras, and write them to OUT in the tree of a real dataset.

    No re-identification dataset may be passed on, so this one stands in for them: the same seed gives the same bytes.
    OUT/true_keypoints.parquet holds the true keypoints.

    \b
    Example:
      keyreid-prep synthesize people/ --layout mars --identities 48 --seed 1
      keyreid-prep index mars people/ prepared/
    """
    from keyreid.pipeline.sources.prid2011 import MIN_FRAMES
    from keyreid.pipeline.synthetic.layouts import SyntheticSettings
    from keyreid.pipeline.synthetic.layouts import synthesize as write

    two_cameras = layout in ("ilids-vid", "prid2011")
    shortest, longest = frames or ((MIN_FRAMES, MIN_FRAMES + 5) if layout == "prid2011" else (6, 12))
    settings = SyntheticSettings(
        num_identities=identities,
        num_cameras=cameras or (2 if two_cameras else 4),
        tracklets_per_camera=tracklets or (1 if two_cameras else 2),
        min_frames=shortest,
        max_frames=longest,
        difficulty=difficulty,
        wardrobe=wardrobe,
        seed=seed,
    )
    counts = write(out, layout, settings, workers)
    if as_json:
        click.echo(json.dumps(counts))
    else:
        click.echo(f"{out}: " + ", ".join(f"{name} {number:,}" for name, number in counts.items()))
