"""The gallery tracklets that are nearest to queries, of one file of descriptors or of two: as a table, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from keyreid.pipeline.commit import commit_file
from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.manifest import read_manifest
from keyreid.pipeline.store import TrackletStore

from ..embedding.descriptors import ROW_ARRAYS, Origin, TrackletDescriptors, data_fingerprint
from ..evaluation.distances import distances_between
from ..evaluation.pictures import BLUE, GREEN, GREY, THUMBNAIL, Framed, draw_strip, middle_frame
from ..evaluation.reranking import Comparison, nearest

QUERIES_AT_ONCE = 256
FACTS = {"tracklet": "tracklet_ids", "identity": "identities", "camera": "cameras"}


def search(
    queries: TrackletDescriptors,
    gallery: TrackletDescriptors,
    comparison: Comparison,
    *,
    top_k: int = 10,
    other_cameras: bool = False,
    threshold: float | None = None,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """The nearest gallery tracklets of each query; a tracklet is never found by itself.

    Args:
        queries, gallery: of one network.
        comparison: the distance.
        top_k: how many.
        other_cameras: leave out tracklets of the query's camera.
        threshold: of keyreid calibrate; None decides nothing.
        device: where distances are computed.

    Returns:
        One row for each query and rank, in the order of the queries: query, query_identity, query_camera, rank (from
        1), tracklet, identity, camera, distance, and with a threshold same_person. Equal distances are in the order of
        the gallery.

    Raises:
        SettingsError: descriptors of different networks, or a top_k below 1.
    """
    if top_k < 1:
        raise SettingsError(f"the {top_k} nearest", "1 or more")
    both, query_rows, gallery_rows = joined(queries, gallery)
    same_data = queries.origin.data == gallery.origin.data
    found = []
    with progress_bar(len(query_rows), "search", "queries") as bar:
        for start in range(0, len(query_rows), QUERIES_AT_ONCE):
            block = query_rows[start : start + QUERIES_AT_ONCE]
            distances = distances_between(both, block, gallery_rows, comparison, device)
            left_out = np.zeros(distances.shape, bool)
            if same_data:
                left_out |= both.tracklet_ids[block][:, None] == gallery.tracklet_ids
            if other_cameras:
                left_out |= both.cameras[block][:, None] == gallery.cameras
            distances[left_out] = np.inf
            entries = nearest(distances, min(top_k, distances.shape[1]))
            found.append(_rows(both, block, gallery, entries, np.take_along_axis(distances, entries, axis=1)))
            bar.update(len(block))
    table = pd.concat(found, ignore_index=True)
    table = table[np.isfinite(table["distance"])].reset_index(drop=True)
    return table if threshold is None else table.assign(same_person=table["distance"] < threshold)


def joined(
    queries: TrackletDescriptors, gallery: TrackletDescriptors
) -> tuple[TrackletDescriptors, np.ndarray, np.ndarray]:
    """Both in one, and the rows of each side in it.

    Raises:
        SettingsError: they are of different networks, or clips were taken in different ways.
    """
    if queries is gallery:
        rows = np.arange(len(gallery.values))
        return gallery, rows, rows
    for name in ("model", "settings"):
        theirs, ours = getattr(queries.origin, name), getattr(gallery.origin, name)
        if theirs != ours:
            what = "network" if name == "model" else "way to take clips"
            raise SettingsError(
                f"the queries' descriptors are of another {what} ({theirs}) than the gallery's ({ours})",
                "the same",
                "embed both alike with keyreid embed",
            )
    both = replace(
        gallery, **{name: np.concatenate([getattr(queries, name), getattr(gallery, name)]) for name in ROW_ARRAYS}
    )
    count = len(queries.values)
    return both, np.arange(count), np.arange(count, count + len(gallery.values))


def some(descriptors: TrackletDescriptors, tracklet_ids: Sequence[int], path: Path) -> TrackletDescriptors:
    """The descriptors of some tracklets.

    Raises:
        SettingsError: one of them is not there.
    """
    place = {int(number): row for row, number in enumerate(descriptors.tracklet_ids)}
    missing = [number for number in tracklet_ids if number not in place]
    if missing:
        raise SettingsError(
            f"{path} holds no tracklet {missing[0]}",
            f"numbers of its {len(place):,} tracklets, such as {next(iter(place), 'none')}",
        )
    return descriptors.take(np.array([place[number] for number in tracklet_ids], np.int64))


def write_table(path: Path, found: pd.DataFrame) -> None:
    """Write a table of `search` as Parquet where the path ends so, else as CSV: all of it, or nothing."""
    write = found.to_parquet if path.suffix == ".parquet" else found.to_csv
    commit_file(path, lambda partial: write(partial, index=False))


def _rows(
    both: TrackletDescriptors,
    queries: np.ndarray,
    gallery: TrackletDescriptors,
    entries: np.ndarray,
    distances: np.ndarray,
) -> pd.DataFrame:
    count = entries.shape[1]
    columns = {
        "query" if name == "tracklet" else f"query_{name}": np.repeat(getattr(both, field)[queries], count)
        for name, field in FACTS.items()
    }
    columns["rank"] = np.tile(np.arange(1, count + 1), len(queries))
    columns |= {name: getattr(gallery, field)[entries].reshape(-1) for name, field in FACTS.items()}
    return pd.DataFrame({**columns, "distance": distances.reshape(-1)})


def open_store(prepared: Path, origin: Origin, option: str) -> TrackletStore:
    """The prepared dataset that descriptors were made from.

    Args:
        prepared: its folder.
        origin: of the descriptors.
        option: that names the folder.

    Raises:
        SettingsError: it is another.
        FormatError: it is none.
    """
    for split in range(max(1, len(read_manifest(prepared).identity_splits))):
        store = TrackletStore(prepared, split)
        if data_fingerprint(store) == origin.data:
            return store
    raise SettingsError(
        f"{prepared} is not the prepared dataset that the descriptors were made from",
        f"{origin.dataset}, fingerprint {origin.data}",
        f"name that one with {option}",
    )


def write_pictures(folder: Path, found: pd.DataFrame, queries: TrackletStore, gallery: TrackletStore) -> list[Path]:
    """One PNG for each query of a table of `search`: the middle frame of each tracklet, nearest first.

    The query is framed in blue; what lies below the threshold in green; everything else in grey.

    Returns:
        The paths, query-00017.png for tracklet 17.
    """
    paths = []
    groups = found.groupby("query", sort=False)
    with progress_bar(len(groups), "pictures", "queries") as bar:
        for number, rows in groups:
            path = folder / f"query-{number:05d}.png"
            picture = _picture(rows, queries, gallery)
            commit_file(path, lambda partial, drawn=picture: drawn.save(partial, "PNG"))  # type: ignore[misc]
            paths.append(path)
            bar.update()
    return paths


def _picture(rows: pd.DataFrame, queries: TrackletStore, gallery: TrackletStore) -> Image.Image:
    records = rows.to_dict("records")
    first = records[0]
    lines = "query", f"tracklet {first['query']}", f"id {first['query_identity']} cam {first['query_camera']}"
    query = Framed(middle_frame(queries, first["query"], THUMBNAIL), BLUE, lines)
    found = []
    for row in records:
        colour = GREEN if row.get("same_person") else GREY
        lines = f"d {row['distance']:.4g}", f"tracklet {row['tracklet']}", f"id {row['identity']} cam {row['camera']}"
        found.append(Framed(middle_frame(gallery, row["tracklet"], THUMBNAIL), colour, lines))
    return draw_strip(query, found, len(found))
