"""keyreid calibrate."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .command import FriendlyCommand


@click.command(cls=FriendlyCommand)
@click.argument("descriptors", type=click.Path(path_type=Path))
@click.option(
    "--false-match-rate",
    "rates",
    default="0.01,0.001",
    show_default=True,
    help="Shares of the pairs of different people that may be taken for one, separated by commas.",
)
@click.option(
    "--distance",
    type=click.Choice(["euclidean", "cosine", "visible-parts"]),
    default="euclidean",
    show_default=True,
    help="As keyreid search is to use it.",
)
@click.option(
    "--pairs",
    type=click.Choice(["across-cameras", "all"]),
    default="across-cameras",
    show_default=True,
    help="all: also pairs of one camera, which are easier; where cameras are not known.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON file that keyreid search takes.")
@click.option("--resamples", default=1000, show_default=True, help="Times that people are drawn for the intervals.")
@click.option("--seed", default=0, show_default=True, help="Of the drawing.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the content of --out.")
def calibrate(
    descriptors: Path,
    rates: str,
    distance: str,
    pairs: str,
    out: Path | None,
    resamples: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Find the distance below which two tracklets count as one person.

    DESCRIPTORS is a file of keyreid embed whose tracklets have true identities, of people that the network was not
    trained on. Printed is, for each false-match rate, the threshold and the share of pairs of one person that it finds,
    with 95 % intervals. Fewer than 30 / rate pairs of different people are refused: fewer than 30 of them would decide.

    \b
    Examples:
      keyreid calibrate labelled.h5 --false-match-rate 0.001 --out threshold.json
      keyreid search new.h5 gallery.h5 --calibration threshold.json
    """
    from keyreid.model.device import choose_device
    from keyreid.model.embedding.file import load_descriptors
    from keyreid.model.evaluation.comparison import Comparison
    from keyreid.model.search.calibration import calibrate as find_thresholds
    from keyreid.pipeline.commit import write_json
    from keyreid.pipeline.errors import SettingsError

    try:
        asked = [float(rate) for rate in rates.split(",")]
    except ValueError as error:
        raise SettingsError(f"false-match rates {rates!r}", "numbers such as 0.01,0.001") from error
    found = find_thresholds(
        load_descriptors(descriptors),
        asked,
        Comparison(distance),
        across_cameras=pairs == "across-cameras",
        resamples=resamples,
        seed=seed,
        device=choose_device(device),
    )
    if out is not None:
        write_json(out, found.to_dict())
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, sort_keys=True))
        return
    click.echo(
        f"{found.num_matching:,} pairs of one person and {found.num_wrong:,} of two, {pairs}; {found.num_people:,} "
        f"people; {distance} distance\n"
    )
    row = "{:>10}{:>14}{:>28}{:>28}"
    click.echo(row.format("asked [%]", "threshold", "false matches [%]", "true matches [%]"))
    for one in found.thresholds:
        click.echo(
            row.format(
                f"{100 * one.asked:g}",
                f"{one.threshold:.6g}",
                _share(one.false_match_rate, one.false_match_interval, 3),
                _share(one.true_match_rate, one.true_match_interval, 1),
            )
        )
    if out is not None:
        click.echo(f"\nthresholds: {out}")


def _share(rate: float | None, interval: tuple[float, float] | None, digits: int) -> str:
    if rate is None or interval is None:
        return "no pairs"
    low, high = interval
    return f"{100 * rate:.{digits}f} ({100 * low:.{digits}f} to {100 * high:.{digits}f})"
