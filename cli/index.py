"""keyreid-prep index: a dataset on disk -> the tables in PREPARED/manifest and dataset.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keyreid.pipeline.sources import SOURCES

from .command import FriendlyCommand

if TYPE_CHECKING:
    from keyreid.pipeline.manifest import Manifest


@click.command(cls=FriendlyCommand)
@click.argument("source", type=click.Choice(list(SOURCES)))
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("prepared", type=click.Path(path_type=Path))
@click.option("--append", is_flag=True, help="Add what is new at ROOT to PREPARED; what was prepared stays prepared.")
@click.option("--allow-incomplete", is_flag=True, help="Index what is there; missing frames are left out and counted.")
@click.option(
    "--frames-per-shard",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    help="Shards are filled with complete tracklets up to this many frames; a shard is the unit of all later work.",
)
@click.option(
    "--root",
    "table_root",
    type=click.Path(path_type=Path),
    help="Source table alone: the folder that frame paths start from.  [default: the folder of the table]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def index(
    source: str,
    root: Path,
    prepared: Path,
    append: bool,
    allow_incomplete: bool,
    frames_per_shard: int,
    table_root: Path | None,
    as_json: bool,
) -> None:
    """List the tracklets of the dataset at ROOT in the folder PREPARED.

    Nothing is copied. The dataset's tables are checked against its file names and files, and the counts against those
    of a complete copy; an incomplete one is refused with a list of what is missing.

    \b
    mars       ROOT/bbox_train, bbox_test, info
               keyreid-prep index mars /data/MARS prepared/mars
    ilids-vid  ROOT/i-LIDS-VID/sequences, train-test people splits
               keyreid-prep index ilids-vid /data/iLIDS-VID prepared/ilids
    prid2011   ROOT/prid_2011/multi_shot and, if you have it, splits_prid2011.json
               keyreid-prep index prid2011 /data/PRID2011 prepared/prid
    ls-vid     ROOT/list_sequence, tracklet_train, tracklet_test, test/data/info_test.mat
               keyreid-prep index ls-vid /data/LS-VID prepared/lsvid
    folder     ROOT/train|query|gallery/IDENTITY/CAMERA/TRACKLET/frame.jpg
               keyreid-prep index folder /data/shop prepared/shop
    table      ROOT is a .csv or .parquet with one row per frame and the columns
               frame_path, tracklet, identity, camera, split[, frame_number][, time]
               keyreid-prep index table shop.csv prepared/shop --root /data/shop

    Next: keyreid-prep extract-keypoints PREPARED --checkpoint NAME.
    """
    from keyreid.pipeline.index import write_manifest
    from keyreid.pipeline.manifest import dataset_path, read_manifest
    from keyreid.pipeline.sources import count, read_source

    generations = len(read_manifest(prepared).generations) if append and dataset_path(prepared).is_file() else 0
    reading = read_source(source, root, table_root=table_root, allow_incomplete=allow_incomplete)
    manifest = write_manifest(prepared, reading, frames_per_shard=frames_per_shard, append=append)
    new, found = manifest.generations[generations:], count(reading)
    nouns = ("tracklets", "frames", "shards")
    added = {noun: sum(getattr(generation, f"num_{noun}") for generation in new) for noun in nouns}
    there = {noun: found[f"all.{noun}"] - added[noun] for noun in ("tracklets", "frames")}
    if as_json:
        facts = {
            "name": manifest.name,
            "counts": manifest.counts(),
            "num_frames": manifest.num_frames,
            "num_shards": manifest.num_shards,
            "num_generations": len(manifest.generations),
            "num_identity_splits": len(manifest.identity_splits),
            "notes": manifest.notes,
            "fingerprint": manifest.fingerprint,
            "prepared": str(prepared),
        }
        click.echo(json.dumps(facts | ({"added": added, "already_indexed": there} if append else {})))
        return
    if append:
        parts = ", ".join(f"{number:,} {noun}" for noun, number in added.items())
        click.echo(f"added {parts}; {there['tracklets']:,} tracklets were there already")
    click.echo(f"{_summary(manifest)} -> {click.format_filename(prepared)}")


def _summary(manifest: Manifest) -> str:
    notes = manifest.notes
    splits = ", ".join(f"{counts['tracklets']:,} {name}" for name, counts in manifest.counts().items())
    parts = [f"{manifest.name}: {splits} tracklets", f"{manifest.num_frames:,} frames, {manifest.num_shards:,} shards"]
    if manifest.identity_splits:
        source = f" ({notes['splits_from']})" if "splits_from" in notes else ""
        parts.append(f"the first of {len(manifest.identity_splits)} splits{source}")
    if "distractors" in notes:
        parts.append(f"{notes['distractors']['tracklets']:,} tracklets are distractors")
    if "junk" in notes:
        parts.append(f"{notes['junk']['tracklets']:,} junk tracklets left out")
    if "incomplete" in notes:
        parts.append("NOT COMPLETE (dataset.json says what is missing)")
    return "; ".join(parts)
