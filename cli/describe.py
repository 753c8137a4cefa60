"""keyreid-prep describe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import FriendlyCommand, root_option

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
    yield from _groups("split", pd.concat([facts.splits, facts.all]))
    yield from _groups("camera", facts.cameras)
    if all_identities:
        yield from _groups("identity", facts.identities)
    else:
        spread = facts.identities[["tracklets", "cameras", "frames"]].agg(["min", "median", "max"])
        rows = [[name, *(f"{value:,.0f}" for value in spread[name])] for name in spread]
        yield from _table(["an identity has", "least", "median", "most"], rows)
    visibility = facts.joint_visibility
    for start in range(0, len(visibility), CAMERAS_ABREAST):
        some = visibility.iloc[start : start + CAMERAS_ABREAST]
        rows = [[joint.replace("_", " "), *(f"{100 * share:.0f} %" for share in some[joint])] for joint in some]
        yield from _table(["joint visible", *(f"camera {name}" for name in some.index)], rows)


def _note(note: Any) -> str:
    if isinstance(note, dict):
        counts = [f"{value:,} {name}" if isinstance(value, int) else f"{name} {value}" for name, value in note.items()]
        return ", ".join(counts)
    if isinstance(note, list):
        more = f" and {len(note) - NAMED_AT_MOST:,} more (--json names all)" if len(note) > NAMED_AT_MOST else ""
        return ", ".join(map(str, note[:NAMED_AT_MOST])) + more
    return str(note)


def _groups(what: str, groups: pd.DataFrame) -> Iterator[str]:
    """Columns that would be empty are left out."""
    from keyreid.pipeline.records import FRAME_STATUSES, FRAMES_LEFT_OUT

    statuses = [status for status in FRAME_STATUSES if groups[status].any()]
    plain = ["tracklets", *(name for name in ("identities", "cameras") if name[:6] != what[:6]), "frames"]
    rows = []
    for group in groups.to_dict("records"):
        number, examined = group.get("number"), sum(group[status] for status in FRAME_STATUSES)
        same = number is None or str(number) == group["name"].lstrip("0") or str(number) == group["name"]
        row = [group["name"] if same else f"{group['name']} ({number})"]
        row += [f"{group[name]:,}" for name in (*plain, *statuses)]
        without = group["no_pose"] + sum(group[status] for status in FRAMES_LEFT_OUT)
        rows.append(row + [f"{100 * without / examined:.1f} %" if examined else "-"] * bool(statuses))
    header = [what, *plain, *(status.replace("_", " ") for status in statuses)]
    yield from _table([*header, "without a pose"] if statuses else header, rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table under an empty line: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    yield ""
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()
