"""What a stage that makes keypoints says at its end."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from keyreid.pipeline.stages import StageSummary

NAMED_AT_MOST = 10


def read_frame_list(path: Path) -> frozenset[str]:
    """The frame paths in a text file, one per line; empty lines and lines that begin with # count for nothing."""
    from keyreid.pipeline.errors import SettingsError

    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is no UTF-8 text ({error})", "one frame path per line") from error
    return frozenset(line for line in lines if line and not line.startswith("#"))


def print_keypoints(
    title: str,
    summary: StageSummary,
    as_json: bool,
    facts: Mapping[str, Any] | None = None,
    named: Mapping[str, Sequence[str]] | None = None,
    unmatched_skips: Collection[str] = (),
) -> None:
    """Print counts, and name the frames that are left out.

    Args:
        title: what the line begins with.
        summary: of the stage.
        as_json: everything as JSON instead.
        facts: further entries of the JSON.
        named: further names to list after the frames that are left out: heading -> names.
        unmatched_skips: what --skip-frames listed; the entries that match no frame left out are named.
    """
    from keyreid.pipeline.stages import count_left_out

    frames = sum(receipt.rows for receipt in summary.receipts)
    statuses: dict[str, int] = {}
    for receipt in summary.receipts:
        for status, count in receipt.notes["statuses"].items():
            statuses[status] = statuses.get(status, 0) + count
    left_out = count_left_out(summary.receipts)
    if as_json:
        click.echo(json.dumps({"frames": frames, "statuses": statuses, **left_out, **(facts or {})}))
        return
    without, filled = statuses.get("no_pose", 0), statuses.get("interpolated", 0)
    gaps = f", {filled:,} filled between others" if filled else ""
    made = f"{summary.num_made} shards made, {summary.num_kept} already complete"
    click.echo(f"{title} of {frames:,} frames, {without:,} without a person{gaps}; {made}")
    _list_names("frames are left out: their content is no image", left_out["unreadable"])
    _list_names("frames are left out, as --skip-frames asked", left_out["skipped"])
    others = sorted(set(unmatched_skips) - set(left_out["skipped"]))
    _list_names("entries of --skip-frames are no frame of the shards made", others)
    for heading, further in (named or {}).items():
        _list_names(heading, further)


def _list_names(what: str, names: Sequence[str]) -> None:
    if names:
        click.echo(f"{len(names):,} {what}:", err=True)
    for name in names[:NAMED_AT_MOST]:
        click.echo(f"  {name}", err=True)
    if len(names) > NAMED_AT_MOST:
        click.echo(f"  and {len(names) - NAMED_AT_MOST:,} more (--json names all)", err=True)
