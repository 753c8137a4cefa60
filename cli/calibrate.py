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
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(["train", "query", "gallery"]),
    help="Only this split; train where the network was trained on another dataset. Repeatable.  "
    "[default: query and gallery, without people who are in train]",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON file that keyreid search takes.")
@click.option("--resamples", default=1000, show_default=True, help="Bootstrap resamples, for the intervals.")
@click.option("--seed", default=0, show_default=True, help="Of the resamples.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the content of --out.")
def calibrate(
    descriptors: Path,
    rates: str,
    distance: str,
    pairs: str,
    splits: tuple[str, ...],
    out: Path | None,
    resamples: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Find the distance below which two tracklets count as one person.

    DESCRIPTORS is a file of keyreid embed whose tracklets have true identities. Only tracklets of people that the
    network was not trained on are used. Printed is, for each false-match rate, the threshold and the share of pairs of
    one person that it finds, with 95 % intervals over persons. Fewer than 30 / rate pairs of different people are
    refused: fewer than 30 of them would decide.

    \b
    Examples:
      keyreid embed runs/mars prepared/ --out mars.h5
      keyreid calibrate mars.h5 --false-match-rate 0.001 --out threshold.json
      keyreid search 17 mars.h5 --calibration threshold.json
    """
    from keyreid.model.device import choose_device
    from keyreid.model.embedding.file import load_descriptors
    from keyreid.model.evaluation.reranking import Comparison
    from keyreid.model.evaluation.tables import few_persons
    from keyreid.model.search.calibration import calibrate as find_thresholds
    from keyreid.model.search.calibration import choose_splits
    from keyreid.pipeline.commit import write_json
    from keyreid.pipeline.errors import SettingsError

    try:
        asked = [float(rate) for rate in rates.split(",")]
    except ValueError as error:
        raise SettingsError(f"false-match rates {rates!r}", "numbers such as 0.01,0.001") from error
    found = find_thresholds(
        choose_splits(load_descriptors(descriptors), splits, descriptors),
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
        f"people of {' and '.join(found.splits)}; {distance} distance\n"
    )
    row = "{:>10}{:>32}{:>28}{:>28}"
    click.echo(row.format("asked [%]", "threshold", "false matches [%]", "true matches [%]"))
    for one in found.thresholds:
        click.echo(
            row.format(
                f"{100 * one.asked:g}",
                f"{one.threshold:.5g}{_ends(one.threshold_interval, '.4g')}",
                f"{100 * one.false_match_rate:.3f}{_ends(one.false_match_interval, '.3f', 100)}",
                "no pairs"
                if one.true_match_rate is None
                else f"{100 * one.true_match_rate:.1f}{_ends(one.true_match_interval, '.1f', 100)}",
            )
        )
    if few_persons(found.num_people):
        click.echo(f"\n{few_persons(found.num_people)}")
    if out is not None:
        click.echo(f"\nthresholds: {out}")


def _ends(interval: tuple[float, float] | None, form: str, scale: float = 1) -> str:
    return f" ({scale * interval[0]:{form}} to {scale * interval[1]:{form}})" if interval else ""
