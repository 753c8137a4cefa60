"""keyreid search."""

from __future__ import annotations

from pathlib import Path

import click

from .command import FriendlyCommand


@click.command(cls=FriendlyCommand)
@click.argument("query")
@click.argument("gallery", type=click.Path(path_type=Path))
@click.option("--top-k", default=10, show_default=True, help="Tracklets to show of each query.")
@click.option(
    "--distance",
    type=click.Choice(["euclidean", "cosine", "visible-parts"]),
    help="euclidean is squared.  [default: that of --calibration, or euclidean]",
)
@click.option("--other-cameras", is_flag=True, help="Leave out tracklets of the query's camera.")
@click.option(
    "--calibration", type=click.Path(path_type=Path), help="Of keyreid calibrate: says which are the same person."
)
@click.option("--false-match-rate", type=float, help="Which of its thresholds, where it holds several.")
@click.option("--threshold", type=float, help="The same person is below this distance, instead of --calibration.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Table to write: .csv or .parquet.")
@click.option("--pictures", type=click.Path(path_type=Path, file_okay=False), help="Folder for a PNG of each query.")
@click.option("--prepared", type=click.Path(path_type=Path), help="The gallery's prepared dataset, for the pictures.")
@click.option("--query-prepared", type=click.Path(path_type=Path), help="The queries', where it is another.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def search(
    query: str,
    gallery: Path,
    top_k: int,
    distance: str | None,
    other_cameras: bool,
    calibration: Path | None,
    false_match_rate: float | None,
    threshold: float | None,
    out: Path | None,
    pictures: Path | None,
    prepared: Path | None,
    query_prepared: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Find the tracklets of GALLERY that are nearest to each QUERY.

    Both are files of keyreid embed by one network; QUERY may also be numbers of GALLERY's own tracklets, separated by
    commas. A tracklet is never found by itself.

    \b
    Examples:
      keyreid search new.h5 gallery.h5 --top-k 5 --out found.csv
      keyreid search 17,23 gallery.h5 --other-cameras --pictures found/ --prepared prepared/
      keyreid search new.h5 gallery.h5 --calibration threshold.json --false-match-rate 0.001 --json
    """
    from keyreid.model.device import choose_device
    from keyreid.model.embedding.file import load_descriptors
    from keyreid.model.evaluation.reranking import Comparison
    from keyreid.model.search.calibration import threshold_for
    from keyreid.model.search.nearest import open_store, some, write_pictures, write_table
    from keyreid.model.search.nearest import search as find_nearest
    from keyreid.pipeline.errors import SettingsError

    if pictures and not prepared:
        raise SettingsError("--pictures without --prepared", "the prepared dataset that holds the gallery's frames")
    if out and out.suffix not in (".csv", ".parquet"):
        raise SettingsError(f"--out {out}", "a name that ends in .csv or .parquet")
    if calibration and threshold is not None:
        raise SettingsError("--threshold and --calibration", "one of them")
    known = load_descriptors(gallery)
    if calibration:
        threshold, distance = threshold_for(calibration, false_match_rate, known.origin, distance)
    numbers = [] if Path(query).exists() else _numbers(query)
    if numbers:
        asked = some(known, numbers, gallery)
    else:
        asked = known if Path(query) == gallery else load_descriptors(Path(query))
    stores = None
    if pictures and prepared:
        stores = (
            open_store(query_prepared or prepared, asked.origin, "--query-prepared"),
            open_store(prepared, known.origin, "--prepared"),
        )
    found = find_nearest(
        asked,
        known,
        Comparison(distance or "euclidean"),
        top_k=top_k,
        other_cameras=other_cameras,
        threshold=threshold,
        device=choose_device(device),
    )
    if out:
        write_table(out, found)
    if pictures and stores:
        write_pictures(pictures, found, *stores)
    if as_json:
        click.echo(found.to_json(orient="records", double_precision=10))
    elif not out:
        click.echo(found.to_string(index=False))
    for what, path in (("table", out), ("pictures", pictures)):
        if path and not as_json:
            click.echo(f"{what}: {path}")


def _numbers(query: str) -> list[int]:
    """Of tracklets; none where it reads as the name of a file."""
    words = query.split(",")
    return [int(word) for word in words] if all(word.strip().isdecimal() for word in words) else []
