"""Writes a report: the page, and the same as pictures and tables for papers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keyreid.pipeline.commit import commit_file, write_json
from keyreid.pipeline.store import TrackletStore

from ...embedding.settings import PLAIN, EmbeddingSettings
from ...network.keyreid import KeyReID
from ..camera_pairs import camera_pairs, distance_histogram
from ..figures import choose_queries, draw_ranking, png_bytes, ranked_query, stack_pictures
from ..pairs import Ranking
from ..protocols import Selection
from . import csv_tables, plots
from .evaluation import Evaluation
from .explanations import Explanation, explain
from .page import Contents, render_page
from .rankings import choose_strips, make_strips
from .thumbnails import on_white

NUM_EXPLAINED = 8


def write_report(
    folder: Path,
    evaluation: Evaluation,
    store: TrackletStore,
    selection: Selection,
    model: KeyReID,
    settings: EmbeddingSettings = PLAIN,
) -> Path:
    """Write report.html, metrics.json and everything of the page as PNG and CSV.

    Pictures and explanations are those of the first measurement.

    Args:
        folder: made where it is missing.
        evaluation: the numbers.
        store: where frames and heatmaps are.
        selection: of the first protocol.
        model: the network of the first measurement.
        settings: how it described tracklets.

    Returns:
        The path of report.html.
    """
    trained = evaluation.measurements[0]
    same_protocol = [one for one in evaluation.measurements if one.protocol == trained.protocol]
    ranking = _ranking(trained.distances, selection)
    chosen = choose_queries(trained.metrics.first_match, trained.metrics.average_precision, NUM_EXPLAINED)
    explanations = explain(model, store, trained, selection, chosen, settings)
    counts, cameras = distance_histogram(ranking), camera_pairs(ranking)
    figures = {
        "cmc": plots.cmc(same_protocol),
        "histogram": plots.histogram(counts, trained.comparison.distance),
        "camera_pairs": plots.camera_matrix(cameras),
    }
    tables = {
        "cmc": csv_tables.cmc_rows(same_protocol),
        "histogram": csv_tables.histogram_rows(counts),
        "camera_pairs": csv_tables.camera_rows(cameras),
        "contributions": csv_tables.contribution_rows(explanations),
        "frame_attention": csv_tables.attention_rows(explanations),
        "part_attention": csv_tables.class_share_rows(explanations),
    }
    write_json(folder / "metrics.json", evaluation.to_dict())
    for name, draw in figures.items():
        _write(folder / f"{name}.png", plots.png(draw, evaluation.stamp()))
    for name, rows in tables.items():
        csv_tables.write_csv(folder / f"{name}.csv", rows, evaluation)
    shown = [draw_ranking(store, ranked_query(trained, selection, query)) for query in chosen]
    _write(folder / "ranking.png", png_bytes(stack_pictures(evaluation.headline(), shown)))
    _write_explanations(folder / "explained", evaluation, explanations)
    shown_queries = list(dict.fromkeys([*choose_strips(trained.metrics.average_precision), *chosen]))
    contents = Contents(
        evaluation,
        {name: plots.svg(draw, name) for name, draw in figures.items() if name != "camera_pairs"},
        cameras,
        make_strips(store, trained, selection, shown_queries, chosen),
        explanations,
    )
    _write(folder / "report.html", render_page(contents).encode())
    return folder / "report.html"


def _ranking(distances: np.ndarray, selection: Selection) -> Ranking:
    sides = (selection.queries, selection.gallery)
    identities = (np.array([tracklet.identity for tracklet in side]) for side in sides)
    return Ranking(distances, *identities, *map(np.array, (selection.query_cameras, selection.gallery_cameras)))


def _write_explanations(folder: Path, evaluation: Evaluation, explanations: Sequence[Explanation]) -> None:
    """One picture a query; those of an earlier report are taken away."""
    written = set()
    for one in explanations:
        path = folder / f"query-{one.query.tracklet_id}.png"
        pictures = [on_white(strip) for strip in (*one.maps.heatmap_strips, *one.maps.attention_strips)]
        title = f"{evaluation.stamp()} · query {one.query.tracklet_id}"
        _write(path, png_bytes(stack_pictures(title, pictures)))
        written.add(path)
    for path in folder.glob("query-*.png"):
        if path not in written:
            path.unlink()


def _write(path: Path, content: bytes) -> None:
    def write(partial: Path) -> None:
        partial.write_bytes(content)

    commit_file(path, write)
