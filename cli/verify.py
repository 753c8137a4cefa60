"""keyreid-prep verify."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import FriendlyCommand

if TYPE_CHECKING:
    from keyreid.pipeline.inspection.findings import Problem, VerifyReport

NAMED_AT_MOST = 10  # problems of a kind, and leftovers


@click.command(cls=FriendlyCommand)
@click.argument("prepared", type=click.Path(path_type=Path))
@click.option("--deep", is_flag=True, help="Also decode every image and render every heatmap anew.")
@click.option("--json", "as_json", is_flag=True, help="Print everything that was found as JSON.")
def verify(prepared: Path, deep: bool, as_json: bool) -> None:
    """Check that PREPARED is whole, and say what to do about what is not.

    Receipts are compared with dataset.json, the manifest and the SHA-256 of their files; every frame of the manifest
    must have its keypoints, in range, and every readable frame its place in the shards. Nothing is changed. Exit code
    1 where anything is wrong.

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


def _lines(report: VerifyReport) -> list[str]:
    lines = [f"{report.prepared}:"]
    for stage in report.stages:
        how_far = f"{stage.num_whole:,} of {stage.num_shards:,} shards whole, {stage.num_rows:,} frames in them"
        lines.append(f"  {stage.stage}: {how_far if stage.begun else 'not begun'}")
    if not report.stages:
        lines.append("  nothing can be checked without the manifest")
    lines += _some([f"  harmless, nothing reads it: {name}" for name in report.leftovers])
    for (stage_name, kind), problems in report.groups().items():
        lines.append(f"{stage_name or 'dataset'}, {kind}: {_count(problems)}")
        lines += _some([f"  {problem.found}" for problem in problems])
        lines.append(f"  -> {problems[0].remedy}")
    if report.ok:
        lines.append(
            "nothing is wrong" + ("" if report.deep else " (--deep also decodes images and compares heatmaps)")
        )
    else:
        lines.append(f"{_count(report.problems)} in all")
    return lines


def _count(problems: Sequence[Problem]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - NAMED_AT_MOST
    return lines[:NAMED_AT_MOST] + ([f"  and {more:,} more (--json names all)"] if more > 0 else [])
