"""keyreid-prep verify."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import FriendlyCommand, first_of

if TYPE_CHECKING:
    from keyreid.pipeline.inspection.verify import VerifyReport

NOT_STARTED = {"keypoints": "nothing has been extracted yet", "shards": "no shard has been built yet"}
LEFT_OUT_WHY = {"unreadable": "the content is no image", "skipped": "as --skip-frames asked"}


@click.command(cls=FriendlyCommand)
@click.argument("prepared", type=click.Path(path_type=Path))
@click.option("--deep", is_flag=True, help="Also decode every image and render every heatmap again.")
@click.option("--json", "as_json", is_flag=True, help="Print everything that was found as JSON.")
def verify(prepared: Path, deep: bool, as_json: bool) -> None:
    """Check that PREPARED is complete and unchanged, and say what to do where it is not.

    Every table, keypoints file and shard is compared with its hash, and every receipt with what its shard is made from
    now. Frames that are left out are counted with the reason. Nothing is changed. Exit code 1 where anything is wrong.

    \b
    Examples:
      keyreid-prep verify prepared/
      keyreid-prep verify prepared/ --deep --json > verify.json
    """
    from keyreid.pipeline.inspection.verify import verify as check

    report = check(prepared, deep=deep)
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else "\n".join(_lines(report)))
    if not report.ok:
        raise click.exceptions.Exit(1)


def _lines(report: VerifyReport) -> Iterator[str]:
    yield f"{report.prepared}:"
    for stage in report.stages:
        how_far = f"{stage.num_complete:,} of {stage.num_shards:,} shards complete, {stage.num_frames:,} frames in them"
        yield f"  {stage.stage}: {how_far if stage.started else NOT_STARTED[stage.stage]}"
    if not report.stages:
        yield "  nothing else can be checked without the manifest"
    for status, names in report.left_out.items():
        if names:
            yield f"  left out: {len(names):,} of {report.num_frames:,} frames {status} ({LEFT_OUT_WHY[status]})"
            yield from (f"    {name}" for name in first_of(names))
    if report.too_many_left_out:
        yield "  warning: that is more than the stages accept unless --max-left-out allows it"
    yield from (f"  {name}" for name in first_of([f"harmless, nothing reads it: {name}" for name in report.leftovers]))
    groups: dict[tuple[str, str, str], list[str]] = {}
    for one in report.problems:
        found = f"{one.found}; expected {one.expected}" if one.expected else one.found
        groups.setdefault((one.stage, one.kind, one.remedy), []).append(found)
    for (stage_name, kind, remedy), problems in groups.items():
        yield f"{stage_name}, {kind}: {len(problems):,} found"
        yield from (f"  {found}" for found in first_of(problems))
        yield f"  -> {remedy}"
    waiting = [NOT_STARTED[stage.stage] for stage in report.stages if not stage.started]
    if not report.ok:
        yield f"{len(report.problems):,} wrong in all"
    elif waiting:
        yield f"nothing is wrong; {waiting[0]}"
    else:
        yield "nothing is wrong" + ("" if report.deep else " (--deep also decodes images and compares heatmaps)")
