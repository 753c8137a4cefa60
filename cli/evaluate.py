"""keyreid-eval: evaluate a trained network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .command import FriendlyCommand
from .description import description_options


@click.command(cls=FriendlyCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoints", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="CHECKPOINT...")
@click.argument("prepared", type=click.Path(path_type=Path))
@click.option(
    "--protocol",
    default="standard",
    show_default=True,
    help="standard, mars-official, mars-matlab, ilids-vid, prid2011, authors-code (not comparable), or all that the "
    "dataset has.",
)
@click.option(
    "--identity-split",
    type=int,
    help="For datasets with several (iLIDS-VID, PRID2011 have ten).  [default: the one each network was trained on]",
)
@click.option(
    "--distance",
    type=click.Choice(["euclidean", "cosine", "visible-parts"]),
    default="euclidean",
    show_default=True,
    help="euclidean is squared, as in the paper; visible-parts compares a part only where both tracklets saw it "
    "(aligned variant).",
)
@click.option("--rerank", is_flag=True, help="Re-rank by k-reciprocal encoding (Zhong et al., CVPR 2017).")
@click.option("--k1", type=int, default=20, show_default=True, help="Neighbours that --rerank looks at.")
@click.option("--k2", type=int, default=6, show_default=True, help="Nearest tracklets whose encodings it averages.")
@click.option("--lambda", "share", type=float, default=0.3, show_default=True, help="Weight of the original distance.")
@click.option("--report", type=click.Path(path_type=Path), help="Folder for report.html, metrics.json and pictures.")
@click.option("--per-query", type=click.Path(path_type=Path), help="Parquet file for what was found for each query.")
@click.option(
    "--baselines",
    is_flag=True,
    help="Also measure the untrained network, and colour histograms of stripes and of body parts.",
)
@click.option(
    "--descriptors",
    type=click.Path(path_type=Path),
    help="HDF5 or Parquet file (of keyreid embed) to keep the descriptors in, or to take them from.",
)
@description_options
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--batch-size", default=16, show_default=True, help="Clips per forward pass.")
@click.option(
    "--workers",
    "num_workers",
    type=click.IntRange(min=0),
    help="Processes that decode frames.  [default: 8 for CUDA, 0 for CPU]",
)
@click.option(
    "--table",
    type=click.Choice(["text", "markdown", "latex"]),
    default="text",
    show_default=True,
    help="Form of tables.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the content of metrics.json.")
def main(
    checkpoints: tuple[Path, ...],
    prepared: Path,
    distance: str,
    rerank: bool,
    k1: int,
    k2: int,
    share: float,
    max_clips: int | None,
    shifts: int,
    flip: bool,
    cameras: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure how well each CHECKPOINT finds the queries of PREPARED again in other cameras.

    CHECKPOINT is a run of keyreid-train, or a folder with model.safetensors and config.json. PREPARED is what
    keyreid-prep made. Printed are Rank-1, 5, 10, 20, mAP and mINP in percent with the protocol, distance and re-ranking
    that they belong to, and how many queries count: numbers of different protocols cannot be compared. A second table
    has the true-match rate (TMR) at false-match rates, over pairs, and the detection and identification rate (DIR) at
    false-alarm rates, over queries. Below each figure stands its 95 % interval, by bootstrap over persons; a figure
    marked † rests on fewer than 30 errors.

    Each of several checkpoints is measured on the identity split that it was trained on; mean and standard deviation
    follow, over the splits under protocol ilids-vid or prid2011 and over the runs (seeds) under the others. Where
    splits are missing the row says of how many it is the mean.

    \b
    Examples:
      keyreid-eval runs/mars prepared/
      keyreid-eval runs/mars prepared/ --baselines --report report/
      keyreid-eval runs/mars prepared/ --distance visible-parts --descriptors mars.h5
      keyreid-eval runs/mars prepared/ --rerank --per-query queries.parquet
      keyreid-eval runs/mars prepared/ --protocol all --json > metrics.json
      keyreid-eval runs/mars prepared/ --table latex
      keyreid-eval runs/ilids-* prepared/ --protocol ilids-vid
      keyreid-eval runs/seed-0 runs/seed-1 runs/seed-2 prepared/
    """
    from keyreid.model.embedding.settings import EmbeddingSettings
    from keyreid.model.evaluation.evaluate import EvaluationSettings, evaluate_runs
    from keyreid.model.evaluation.reranking import Comparison, KReciprocal
    from keyreid.pipeline.errors import SettingsError

    if as_json and settings["table"] != "text":
        raise SettingsError(f"--json with --table {settings['table']}", "one of them")
    asked = EvaluationSettings(
        comparison=Comparison(distance, KReciprocal(k1, k2, share) if rerank else None),
        description=EmbeddingSettings(max_clips, shifts, flip, cameras),
        **settings,
    )
    outcome = evaluate_runs(checkpoints, prepared, asked)
    click.echo(json.dumps(outcome.to_dict(), indent=2, sort_keys=True) if as_json else outcome.text)
