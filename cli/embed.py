"""keyreid embed."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .command import FriendlyCommand
from .description import description_options


@click.command(cls=FriendlyCommand)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("prepared", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write: Parquet where it ends in .parquet, else HDF5.",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(["train", "query", "gallery"]),
    help="Tracklets of this split alone. Repeatable.  [default: all three]",
)
@click.option(
    "--identity-split",
    type=int,
    help="For datasets with several (iLIDS-VID, PRID2011 have ten).  [default: the one the network was trained on]",
)
@description_options
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--batch-size", default=16, show_default=True, help="Clips through the network at once.")
@click.option(
    "--workers", type=click.IntRange(min=0), help="Processes that decode frames.  [default: 8 for CUDA, 0 for CPU]"
)
@click.option("--float32", "full_precision", is_flag=True, help="Compute in float32 on CUDA too.")
@click.option("--overwrite", is_flag=True, help="Replace descriptors of another making.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def embed(
    model: Path,
    prepared: Path,
    out: Path,
    splits: tuple[str, ...],
    identity_split: int | None,
    max_clips: int | None,
    shifts: int,
    flip: bool,
    cameras: str,
    dtype: str,
    device: str,
    batch_size: int,
    workers: int | None,
    full_precision: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Embed the tracklets of PREPARED with MODEL: one vector each, which keyreid search compares.

    MODEL is a run of keyreid-train, or a folder with model.safetensors and config.json; PREPARED is what keyreid-prep
    made. The same command resumes a run that was stopped. Under torchrun each process embeds its share, on a GPU of its
    own, and the first one joins them.

    \b
    Examples:
      keyreid embed runs/mars prepared/ --out mars.h5
      keyreid embed runs/mars prepared/ --split gallery --dtype float16 --out gallery.h5
      keyreid embed runs/mars mine/ --cameras mean --out mine.parquet
      torchrun --nproc-per-node 8 -m keyreid.cli.embed runs/mars prepared/ --out mars.h5
    """
    from keyreid.model.data.reading import default_workers
    from keyreid.model.device import choose_device
    from keyreid.model.distributed import joined
    from keyreid.model.embedding.embed import embed as write_descriptors
    from keyreid.model.embedding.settings import EmbeddingSettings
    from keyreid.model.embedding.tracklets import Compute
    from keyreid.model.evaluation.checkpoint import choose_identity_split, load_network, warn_of_foreign_cameras
    from keyreid.pipeline.manifest import read_manifest
    from keyreid.pipeline.store import TrackletStore

    settings = EmbeddingSettings(max_clips, shifts, flip, cameras)
    with joined(choose_device(device)) as (ranks, chosen):
        network = load_network(model, chosen.type)
        name = read_manifest(prepared).name
        if cameras == "known":
            warn_of_foreign_cameras(model, name)
        store = TrackletStore(prepared, choose_identity_split(model, name, identity_split))
        compute = Compute(batch_size, default_workers(chosen) if workers is None else workers, not full_precision)
        tracklets = store.tracklets(*(splits or ("train", "query", "gallery")))
        made = write_descriptors(
            network, store, tracklets, out, settings, compute, dtype=dtype, ranks=ranks, overwrite=overwrite
        )
        if not ranks.is_first:
            return
    if as_json:
        click.echo(json.dumps(made.to_dict(), sort_keys=True))
        return
    how = "there already" if not made.num_made + made.num_kept else f"{out.stat().st_size / 1e6:,.1f} MB"
    left_out = f"; {len(store.dropped):,} without a readable frame are left out" if store.dropped else ""
    click.echo(f"{out}: descriptors of {made.num_tracklets:,} tracklets, {how}{left_out}")


if __name__ == "__main__":  # torchrun -m keyreid.cli.embed
    embed()
