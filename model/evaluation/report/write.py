"""Writes a report: the page, and the same as pictures and tables for papers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from keyreid.pipeline.commit import commit_file, write_json
from keyreid.pipeline.skeleton import PARTS
from keyreid.pipeline.store import TrackletStore

from ...embedding.settings import PLAIN, EmbeddingSettings
from ...network.keyreid import KeyReID
from ..distances import FEATURES
from ..measurement import Measurement
from ..pictures import on_white, png_bytes, stack_pictures
from ..results import RunResults
from . import plots
from .explanations import Explanation, explain
from .page import Contents, render_page
from .strips import choose_explained, choose_strips, make_strip, page_strips, strip_picture

NUM_EXPLAINED = 8


def write_report(
    folder: Path, run: RunResults, store: TrackletStore, model: KeyReID, settings: EmbeddingSettings = PLAIN
) -> Path:
    """Write report.html, metrics.json and everything of the page as PNG and CSV.

    Pictures and explanations are those of the first measurement.

    Args:
        folder: made where it is missing.
        run: the numbers.
        store: where frames and heatmaps are.
        model: the network of the first measurement.
        settings: how it embedded tracklets.

    Returns:
        The path of report.html.
    """
    trained = run.measurements[0]
    same_protocol = [one for one in run.measurements if one.protocol == trained.protocol]
    chosen = choose_explained(trained.metrics.first_match, trained.metrics.average_precision, NUM_EXPLAINED)
    explanations = explain(model, store, trained, chosen, settings)
    counts, cameras = plots.distance_histogram(trained.ranking), plots.camera_pairs(trained.ranking)
    figures = {
        "cmc": plots.cmc(same_protocol),
        "histogram": plots.histogram(counts, trained.comparison.distance),
        "camera_pairs": plots.camera_matrix(cameras),
    }
    tables = {
        "cmc": _cmc_table(same_protocol),
        "histogram": _histogram_table(counts),
        "camera_pairs": _camera_table(cameras),
        "contributions": _contribution_table(explanations),
        "frame_attention": _frame_table(explanations),
        "part_attention": _part_table(explanations),
    }
    write_json(folder / "metrics.json", run.to_dict())
    for name, draw in figures.items():
        _write(folder / f"{name}.png", plots.png(draw, run.stamp()))
    for name, table in tables.items():
        _write_csv(folder / f"{name}.csv", table, run)
    strips = [strip_picture(store, make_strip(trained, query)) for query in chosen]
    _write(folder / "ranking.png", png_bytes(stack_pictures(run.headline(), strips)))
    _write_explanations(folder / "explained", run, explanations)
    shown = list(dict.fromkeys([*choose_strips(trained.metrics.average_precision), *chosen]))
    contents = Contents(
        run,
        {name: plots.svg(draw, name) for name, draw in figures.items() if name != "camera_pairs"},
        cameras,
        page_strips(store, trained, shown, chosen),
        explanations,
    )
    _write(folder / "report.html", render_page(contents).encode())
    return folder / "report.html"


def _cmc_table(measurements: Sequence[Measurement]) -> pd.DataFrame:
    tables = []
    for one in measurements:
        ends = [found or (np.nan, np.nan) for found in one.rank_intervals[: len(one.metrics.cmc)]]
        columns = {
            "method": one.method,
            "distance": one.comparison.distance,
            "reranking": one.comparison.reranking_name,
            "rank": np.arange(1, len(one.metrics.cmc) + 1),
            "share": one.metrics.cmc,
            "low": [low for low, _ in ends],
            "high": [high for _, high in ends],
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables)


def _histogram_table(counts: plots.DistanceHistogram) -> pd.DataFrame:
    columns = {
        "from": counts.edges[:-1],
        "to": counts.edges[1:],
        "one_person_two_cameras": counts.matches,
        "two_persons_two_cameras": counts.others,
        "two_persons_one_camera": counts.same_camera,
    }
    return pd.DataFrame(columns)


def _camera_table(pairs: plots.CameraPairs) -> pd.DataFrame:
    rows = []
    for row, column in np.argwhere(pairs.queries).tolist():
        cameras = pairs.query_cameras[row], pairs.gallery_cameras[column]
        low, high = pairs.intervals[row][column] or (np.nan, np.nan)
        found = pairs.queries[row, column], pairs.found[row, column], pairs.rank1[row, column]
        rows.append((*cameras, *found, low, high))
    names = ["query_camera", "gallery_camera", "queries", "found", "rank1", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def _contribution_table(explanations: Sequence[Explanation]) -> pd.DataFrame:
    tables = []
    for one in explanations:
        for answer in one.answers:
            columns = {
                "query_tracklet": one.query.tracklet_id,
                "gallery_tracklet": answer.tracklet.tracklet_id,
                "is_match": answer.is_match,
                "rank": answer.rank,
                "ranked_distance": answer.distance,
                "feature": FEATURES,
                "contribution": answer.contributions.values,
                "seen_by_both": answer.contributions.seen,
            }
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables)


def _frame_table(explanations: Sequence[Explanation]) -> pd.DataFrame:
    """One row per explained tracklet and frame of the clip that is shown."""
    maps = {one.query.tracklet_id: one.maps for one in explanations}
    maps |= {answer.tracklet.tracklet_id: answer.maps for one in explanations for answer in one.answers}
    tables = [
        pd.DataFrame({"tracklet": tracklet, "frame": maps[tracklet].frames, "share": maps[tracklet].frame_shares})
        for tracklet in sorted(maps)
    ]
    return pd.concat(tables)


def _part_table(explanations: Sequence[Explanation]) -> pd.DataFrame:
    tables = []
    for one in explanations:
        shares = {"class_tokens": one.maps.class_shares, "largest_patch": one.maps.largest_shares}
        tables.append(pd.DataFrame({"query_tracklet": one.query.tracklet_id, "part": list(PARTS), **shares}))
    return pd.concat(tables)


def _write_csv(path: Path, table: pd.DataFrame, run: RunResults) -> None:
    """Every row names what its figures belong to; all of the file is written, or nothing."""
    first = run.measurements[0]
    names = {
        "dataset": run.dataset["name"],
        "identity_split": run.dataset["identity_split"],
        "protocol": first.protocol_label,
        "distance": first.comparison.distance,
        "reranking": first.comparison.reranking_name,
        **run.description,
    }
    new = {name: value for name, value in names.items() if name not in table}
    ordered = table.assign(**new)[[*names, *(name for name in table if name not in names)]]
    commit_file(path, lambda partial: ordered.to_csv(partial, index=False, float_format="%.6g"))


def _write_explanations(folder: Path, run: RunResults, explanations: Sequence[Explanation]) -> None:
    """One picture per query; those of an earlier report are taken away."""
    written = set()
    for one in explanations:
        path = folder / f"query-{one.query.tracklet_id}.png"
        pictures = [on_white(strip) for strip in (*one.maps.heatmap_strips, *one.maps.attention_strips)]
        title = f"{run.stamp()} · query {one.query.tracklet_id}"
        _write(path, png_bytes(stack_pictures(title, pictures)))
        written.add(path)
    for path in folder.glob("query-*.png"):
        if path not in written:
            path.unlink()


def _write(path: Path, content: bytes) -> None:
    def write(partial: Path) -> None:
        partial.write_bytes(content)

    commit_file(path, write)
