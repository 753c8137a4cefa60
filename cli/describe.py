"""keyreid-prep describe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import FriendlyCommand, first_of, root_option

if TYPE_CHECKING:
    import pandas as pd

    from keyreid.pipeline.inspection.describe import DatasetFacts

CAMERAS_ABREAST = 12  # columns of the table of joints
NAMED_AT_MOST = 5  # items of a note


@click.command(cls=FriendlyCommand)
@click.argument("prepared", type=click.Path(path_type=Path))
@click.option("--identities", "all_identities", is_flag=True, help="List every identity.")
@click.option("--contact-sheet", type=click.Path(path_type=Path), help="Draw frames of all cameras into this PNG.")
@click.option("--frames", type=click.IntRange(min=1), default=24, show_default=True, help="Frames on the sheet.")
@root_option
@click.option("--json", "as_json", is_flag=True, help="Print everything, every identity too, as JSON.")
def describe(
    prepared: Path, all_identities: bool, contact_sheet: Path | None, frames: int, root: Any, as_json: bool
) -> None:
    """Tell what is in PREPARED: counts by split, camera and identity, frames that are left out, visible joints.

    Works after index, after extract-keypoints and after build-shards. The contact sheet shows frames spread evenly
    over every camera, with the skeleton and the six part heatmaps of each: look at it before training.

    \b
    Examples:
      keyreid-prep describe prepared/
      keyreid-prep describe prepared/ --contact-sheet sheet.png --frames 48
      keyreid-prep describe prepared/ --json | jq '.cameras[].statuses'
    """
    from keyreid.pipeline.inspection.contact_sheet import write_contact_sheet
    from keyreid.pipeline.inspection.describe import describe as count

    facts = count(prepared)
    click.echo(json.dumps(facts.to_dict(), indent=2) if as_json else "\n".join(_lines(facts, all_identities)))
    if contact_sheet is not None:
        drawn = write_contact_sheet(contact_sheet, prepared, frames, root)
        click.echo(f"{contact_sheet}: {drawn:,} frames", err=True)


def _lines(facts: DatasetFacts, all_identities: bool) -> Iterator[str]:
    import pandas as pd

    yield facts.name
    for one in facts.generations:
        counts = f"{one.num_tracklets:,} tracklets, {one.num_frames:,} frames, {one.num_shards:,} shards"
        yield f"  generation {one.number}: {counts} from {one.root}"
        for name, note in one.notes.items():
            yield f"    {name.replace('_', ' ')}: {_note(note)}"
    for stage in facts.stages:
        shards = f"{stage.num_made:,} of {stage.num_shards:,} shards"
        made = f"{shards}, {stage.frames:,} frames, {stage.bytes / 1e6:,.1f} MB"
        yield f"  {stage.stage}: {made if stage.num_made else 'not made yet'}"
    for status, names in facts.left_out.items():
        if names:
            yield f"  left out, {status}: {len(names):,} frames: {_note(names)}"
    if facts.num_identity_splits:
        yield f"  splits are the first of {facts.num_identity_splits}"
    yield _groups("split", pd.concat([facts.splits, facts.all]))
    yield _groups("camera", facts.cameras)
    if all_identities:
        yield _groups("identity", facts.identities)
    else:
        spread = facts.identities[["tracklets", "cameras", "frames"]].agg(["min", "median", "max"]).T
        yield _table("an identity has", spread.set_axis(["least", "median", "most"], axis=1).map("{:,.0f}".format))
    visibility = (100 * facts.joint_visibility.T).map("{:.0f} %".format)
    for start in range(0, visibility.shape[1], CAMERAS_ABREAST):
        some = visibility.iloc[:, start : start + CAMERAS_ABREAST]
        yield _table("joint visible", some.add_prefix("camera ").rename(index=lambda name: name.replace("_", " ")))


def _note(note: Any) -> str:
    if isinstance(note, dict):
        counts = [f"{value:,} {name}" if isinstance(value, int) else f"{name} {value}" for name, value in note.items()]
        return ", ".join(counts)
    return ", ".join(map(str, first_of(note, NAMED_AT_MOST))) if isinstance(note, list) else str(note)


def _groups(what: str, groups: pd.DataFrame) -> str:
    """One row per group; columns of nothing but zeros are left out."""
    from keyreid.pipeline.records import FRAME_STATUSES, FRAMES_LEFT_OUT

    statuses = [status for status in FRAME_STATUSES if groups[status].any()]
    plain = ["tracklets", *(name for name in ("identities", "cameras") if name[:6] != what[:6]), "frames"]
    table = groups[[*plain, *statuses]].map("{:,}".format)
    if statuses:
        examined = groups[[*FRAME_STATUSES]].sum(axis=1)
        without = 100 * groups[["no_pose", *FRAMES_LEFT_OUT]].sum(axis=1) / examined
        table["without a pose"] = without.map("{:.1f} %".format).where(examined > 0, "-")
    numbers = groups["number"] if "number" in groups else groups["name"]
    table.index = [
        name if str(number) in (name, name.lstrip("0")) else f"{name} ({number})"
        for name, number in zip(groups["name"], numbers, strict=True)
    ]
    return _table(what, table)


def _table(what: str, table: pd.DataFrame) -> str:
    """The table of texts under an empty line."""
    table = table.rename(columns=lambda name: name.replace("_", " ")).rename_axis(columns=what)
    return "\n" + table.to_string(col_space=[1 + max(map(len, (name, *table[name]))) for name in table])
