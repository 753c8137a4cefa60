"""keyreid compare."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .command import FriendlyCommand


@click.command(cls=FriendlyCommand)
@click.argument("run_a")
@click.argument("run_b", required=False)
@click.option(
    "--method",
    "methods",
    multiple=True,
    help="Of the methods that keyreid-eval measured; the second one is for RUN_B.  [default: trained]",
)
@click.option("--protocol", help="Where the files hold several.")
@click.option("--resamples", default=10_000, show_default=True, help="Bootstrap resamples.")
@click.option("--seed", default=0, show_default=True, help="Of the resamples.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def compare(
    run_a: str,
    run_b: str | None,
    methods: tuple[str, ...],
    protocol: str | None,
    resamples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Say whether RUN_A is better than RUN_B, or whether other people could turn it round.

    A run is the folder of keyreid-eval --report, or the file of --per-query; without RUN_B, two methods of RUN_A are
    compared. Several seeds of a side are separated by commas (or lie in one file, where keyreid-eval measured several):
    runs of different weights that were measured alike. Both sides must be of the same dataset, protocol and queries.
    Printed are the differences in percent with 95 % intervals of the paired bootstrap over persons, each with all
    queries.

    \b
    Examples:
      keyreid compare reports/ours reports/baseline
      keyreid compare report/ --method trained --method "colour histogram"
      keyreid compare ours-0.parquet,ours-1.parquet,ours-2.parquet baseline-0.parquet,baseline-1.parquet
      keyreid compare reranked.parquet plain.parquet --protocol standard --json
    """
    from keyreid.model.evaluation.compare import compare as find_difference
    from keyreid.model.evaluation.per_query import read_scores
    from keyreid.pipeline.errors import SettingsError

    if len(methods) > 2 or (run_b is None and len(methods) != 2):
        raise SettingsError(
            f"{1 if run_b is None else 2} run(s) and {len(methods)} methods",
            "two runs, or one run and two methods",
            "such as --method trained --method untrained",
        )
    asked = methods or ("trained",)
    sides = zip((run_a, run_b or run_a), (asked[0], asked[-1]), strict=True)
    a, b = (read_scores([Path(name) for name in run.split(",")], method, protocol) for run, method in sides)
    found = find_difference(a, b, resamples=resamples, seed=seed)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, sort_keys=True))
        return
    for name, side in (("A", a), ("B", b)):
        seeds = f" ({side.num_seeds} seeds)" if side.num_seeds > 1 else ""
        made_by = ", ".join(filter(None, side.made_by.values()))
        click.echo(f"{name}: {', '.join(map(str, side.paths))}: {made_by}{seeds}")
    context = next(iter(a.contexts.values()))
    click.echo(
        f"{context['dataset']}, protocol {context['protocol']}, {len(a.queries):,} queries of {found.num_persons:,} "
        "persons\n"
    )
    row = "{:<8}{:>14}{:>14}{:>9}{:>24}"
    click.echo(row.format("", "A", "B", "A - B", "95 % over persons"))
    for one in found.differences:
        ends = " to ".join(f"{100 * end:+.1f}" for end in one.interval) if one.interval else "-"
        shares = (_share(one.a, one.a_deviation), _share(one.b, one.b_deviation))
        click.echo(row.format(one.metric, *shares, f"{100 * one.difference:+.1f}", ends))
    click.echo(f"\n{found.sentence()}")


def _share(mean: float, deviation: float | None) -> str:
    return f"{100 * mean:.1f}" + (f" ± {100 * deviation:.1f}" if deviation is not None else "")
