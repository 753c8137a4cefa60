"""keyreid-prep describe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

from .command import FriendlyCommand

if TYPE_CHECKING:
    from keyreid.pipeline.inspection.facts import DatasetFacts, GroupFacts

CAMERAS_BESIDE = 12  # columns of the table of joints


@click.command(cls=FriendlyCommand)
@click.argument("prepared", type=click.Path(path_type=Path))
@click.option("--identities", "all_identities", is_flag=True, help="List every identity.")
@click.option("--contact-sheet", type=click.Path(path_type=Path), help="Draw frames of all cameras into this PNG.")
@click.option("--frames", type=click.IntRange(min=1), default=24, show_default=True, help="Frames on the sheet.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the frames, where it has moved.")
@click.option("--json", "as_json", is_flag=True, help="Print everything, every identity too, as JSON.")
def describe(
    prepared: Path, all_identities: bool, contact_sheet: Path | None, frames: int, root: Path | None, as_json: bool
) -> None:
    """Tell what is in PREPARED: counts by split, camera and identity, frames without a pose, visible joints.

    Works after index, after extract-keypoints and after build-shards. The contact sheet shows frames spread evenly
    over every camera, with the skeleton over and the six part heatmaps beside each: look at it before training.

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
    yield f"{facts.name}, frames in {facts.root}"
    for stage in facts.stages:
        made = (
            f"{stage.num_made:,} of {stage.num_shards:,} shards, {stage.frames:,} frames, {stage.bytes / 1e6:,.1f} MB"
        )
        yield f"  {stage.stage}: {made if stage.num_made else 'not made yet'}"
    if facts.num_identity_splits:
        yield f"  splits are the first of {facts.num_identity_splits}"
    yield from _groups("split", [*facts.splits, facts.all])
    yield from _groups("camera", facts.cameras)
    if all_identities:
        yield from _groups("identity", facts.identities)
    else:
        yield from _spread(facts)
    yield from _joints(facts)


def _groups(what: str, groups: Sequence[GroupFacts]) -> Iterator[str]:
    """Columns that would be empty are left out."""
    statuses = [status for status in groups[0].statuses if any(group.statuses[status] for group in groups)]
    plain = ["tracklets", *(name for name in ("identities", "cameras") if name != _plural(what)), "frames"]
    rows = []
    for group in groups:
        row = [group.name, *(f"{getattr(group, name):,}" for name in plain)]
        row += [f"{group.statuses[status]:,}" for status in statuses]
        if statuses:
            examined = group.frames_examined
            row.append(f"{100 * group.frames_without_pose / examined:.1f} %" if examined else "-")
        rows.append(row)
    header = [what, *plain, *(status.replace("_", " ") for status in statuses)]
    yield from _table([*header, "without a pose"] if statuses else header, rows)


def _plural(what: str) -> str:
    return {"identity": "identities"}.get(what, f"{what}s")


def _spread(facts: DatasetFacts) -> Iterator[str]:
    """How much there is of an identity."""
    rows = []
    for name in ("tracklets", "cameras", "frames"):
        counts = [getattr(identity, name) for identity in facts.identities]
        rows.append([name, *(f"{value:,.0f}" for value in (min(counts), median(counts), max(counts)))])
    yield from _table(["an identity has", "least", "median", "most"], rows)


def _joints(facts: DatasetFacts) -> Iterator[str]:
    cameras = list(facts.joint_visibility)
    for start in range(0, len(cameras), CAMERAS_BESIDE):
        some = cameras[start : start + CAMERAS_BESIDE]
        joints = list(facts.joint_visibility[some[0]])
        rows = [
            [joint.replace("_", " "), *(f"{100 * facts.joint_visibility[camera][joint]:.0f} %" for camera in some)]
            for joint in joints
        ]
        yield from _table(["joint visible", *(f"camera {camera}" for camera in some)], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table under an empty line: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    yield ""
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()
