"""keyreid compare."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .command import FriendlyCommand


@click.command(cls=FriendlyCommand)
@click.argument("run_a")
@click.argument("run_b")
@click.option("--method", default="trained", show_default=True, help="Of the methods that keyreid-eval measured.")
@click.option("--protocol", help="Where the files hold several.")
@click.option("--resamples", default=10_000, show_default=True, help="Times that queries are drawn anew.")
@click.option("--seed", default=0, show_default=True, help="Of the drawing.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def compare(
    run_a: str, run_b: str, method: str, protocol: str | None, resamples: int, seed: int, as_json: bool
) -> None:
    """Say whether RUN_A is better than RUN_B, or luck with the queries.

    A run is the folder of keyreid-eval --report, or the file of --per-query. Several seeds of a side are separated by
    commas (or lie in one file, where keyreid-eval measured several). Both sides must be of the same dataset, protocol
    and queries. Printed are the differences in percent with 95 % intervals of the paired bootstrap: over queries, and
    over people with all their queries.

    \b
    Examples:
      keyreid compare reports/ours reports/baseline
      keyreid compare ours-0.parquet,ours-1.parquet,ours-2.parquet baseline-0.parquet,baseline-1.parquet
      keyreid compare reranked.parquet plain.parquet --protocol standard --json
    """
    from keyreid.model.evaluation.paired import compare as find_difference
    from keyreid.model.evaluation.query_scores import read_scores

    a, b = (read_scores([Path(name) for name in run.split(",")], method, protocol) for run in (run_a, run_b))
    found = find_difference(a, b, resamples=resamples, seed=seed)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, sort_keys=True))
        return
    for name, side in (("A", a), ("B", b)):
        seeds = f" ({side.num_seeds} seeds)" if side.num_seeds > 1 else ""
        click.echo(f"{name}: {', '.join(map(str, side.paths))}{seeds}")
    dataset, _, label = next(iter(a.contexts.values()))
    click.echo(f"{dataset}, protocol {label}, {len(a.queries):,} queries\n")
    row = "{:<8}{:>14}{:>14}{:>9}{:>20}{:>20}"
    click.echo(row.format("", "A", "B", "A - B", "95 % over queries", "over people"))
    for one in found.differences:
        ends = (f"{100 * low:+.1f} to {100 * high:+.1f}" for low, high in (one.over_queries, one.over_identities))
        sides = (_share(one.a, one.a_deviation), _share(one.b, one.b_deviation))
        click.echo(row.format(one.metric, *sides, f"{100 * one.difference:+.1f}", *ends))
    click.echo(f"\n{found.sentence()}")


def _share(mean: float, deviation: float | None) -> str:
    return f"{100 * mean:.1f}" + (f" ± {100 * deviation:.1f}" if deviation is not None else "")
