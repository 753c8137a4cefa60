"""What a stage that makes keypoints says at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from keyreid.pipeline.stages import StageSummary

NAMED_AT_MOST = 10


def print_keypoints(
    title: str,
    summary: StageSummary,
    as_json: bool,
    facts: Mapping[str, Any] | None = None,
    named: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Print counts, and name the frames that are left out.

    Args:
        title: what the line begins with.
        summary: of the stage.
        as_json: everything as JSON instead.
        facts: further entries of the JSON.
        named: further names to list after the frames that are left out: heading -> names.
    """
    receipts = summary.receipts
    frames = sum(receipt.rows for receipt in receipts)
    statuses: dict[str, int] = {}
    left_out: dict[str, list[str]] = {"unreadable": [], "quarantined": []}
    for receipt in receipts:
        notes: dict[str, Any] = receipt.notes
        for status, count in notes["statuses"].items():
            statuses[status] = statuses.get(status, 0) + count
        for status, names in left_out.items():
            names += notes[status]
    if as_json:
        click.echo(json.dumps({"frames": frames, "statuses": statuses, **left_out, **(facts or {})}))
        return
    without, filled = statuses.get("no_pose", 0), statuses.get("interpolated", 0)
    gaps = f", {filled:,} filled between others" if filled else ""
    made = f"{summary.num_made} shards made, {summary.num_kept} already whole"
    click.echo(f"{title} of {frames:,} frames, {without:,} without a person{gaps}; {made}")
    _name("frames could not be read and are left out", left_out["unreadable"])
    _name("frames are left out, since pose estimation died of them", left_out["quarantined"])
    for heading, further in (named or {}).items():
        _name(heading, further)


def _name(what: str, names: Sequence[str]) -> None:
    if names:
        click.echo(f"{len(names):,} {what}:", err=True)
    for name in names[:NAMED_AT_MOST]:
        click.echo(f"  {name}", err=True)
    if len(names) > NAMED_AT_MOST:
        click.echo(f"  and {len(names) - NAMED_AT_MOST:,} more (--json names all)", err=True)
