"""What a stage that makes keypoints says at its end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import first_of

if TYPE_CHECKING:
    from keyreid.pipeline.stages import StageSummary


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

    frames, statuses = sum(receipt.rows for receipt in summary.receipts), Counter[str]()
    for receipt in summary.receipts:
        statuses.update(receipt.notes["statuses"])
    left_out = count_left_out(summary.receipts)
    if as_json:
        click.echo(json.dumps({"frames": frames, "statuses": statuses, **left_out, **(facts or {})}))
        return
    gaps = f", {statuses['interpolated']:,} filled between others" if statuses["interpolated"] else ""
    made = f"{summary.num_made} shards made, {summary.num_kept} already complete"
    click.echo(f"{title} of {frames:,} frames, {statuses['no_pose']:,} without a person{gaps}; {made}")
    lists = {
        "frames are left out: their content is no image": left_out["unreadable"],
        "frames are left out, as --skip-frames asked": left_out["skipped"],
        "entries of --skip-frames are no frame of the shards made": sorted({*unmatched_skips} - {*left_out["skipped"]}),
        **(named or {}),
    }
    for heading, names in lists.items():
        if names:
            click.echo("\n  ".join([f"{len(names):,} {heading}:", *first_of(names)]), err=True)
