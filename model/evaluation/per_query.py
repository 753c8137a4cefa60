"""What was found for each query, as a Parquet table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from keyreid.pipeline.commit import commit_file
from keyreid.pipeline.manifest import Manifest

from .measure import Measurement
from .metrics import kept_ranking
from .protocols import Selection

PER_QUERY_FILE = "per-query.parquet"  # in the folder of a report
NUM_NEAREST = 10

SCHEMA = pa.schema(
    [
        ("run", pa.dictionary(pa.int32(), pa.string())),
        ("dataset", pa.dictionary(pa.int32(), pa.string())),
        ("manifest", pa.dictionary(pa.int32(), pa.string())),  # fingerprint: who is query and gallery
        ("identity_split", pa.int32()),
        ("method", pa.dictionary(pa.int32(), pa.string())),
        ("protocol", pa.dictionary(pa.int32(), pa.string())),
        ("distance", pa.dictionary(pa.int32(), pa.string())),
        ("reranking", pa.dictionary(pa.int32(), pa.string())),
        ("tracklet_id", pa.int64()),
        ("identity", pa.int64()),
        ("camera", pa.int32()),
        ("num_matches", pa.int64()),  # 0: the query is skipped, and the next three are null
        ("average_precision", pa.float64()),
        ("inverse_negative_penalty", pa.float64()),
        ("first_match", pa.int64()),  # rank of the nearest match, from 1
        ("nearest", pa.list_(pa.int64())),  # tracklet_id of up to ten, from near to far, as the protocol ranks them
        ("nearest_distances", pa.list_(pa.float32())),
        ("nearest_match", pa.list_(pa.bool_())),  # whether they are the query's person
    ]
)


def per_query_table(
    run: str, manifest: Manifest, identity_split: int, measurement: Measurement, selection: Selection
) -> pa.Table:
    """One row a query, in order of tracklet_id; columns as SCHEMA has them.

    Args:
        run: what was measured, such as the path of a checkpoint.
        manifest: of the dataset, under the identity split.
        identity_split: the split it was measured on.
        measurement, selection: of the same protocol.
    """
    metrics, count = measurement.metrics, len(selection.queries)
    identities, cameras = np.array([t.identity for t in selection.gallery]), np.array(selection.gallery_cameras)
    numbers = np.array([t.tracklet_id for t in selection.gallery])
    nearest = []
    for query, (tracklet, camera) in enumerate(zip(selection.queries, selection.query_cameras, strict=True)):
        row = measurement.distances[query]
        nearest.append(kept_ranking(row, tracklet.identity, camera, identities, cameras, NUM_NEAREST))
    skipped = metrics.num_matches == 0
    columns: dict[str, Any] = {
        "run": [run] * count,
        "dataset": [manifest.name] * count,
        "manifest": [manifest.fingerprint] * count,
        "identity_split": [identity_split] * count,
        "method": [measurement.method] * count,
        "protocol": [measurement.protocol] * count,
        "distance": [measurement.comparison.distance] * count,
        "reranking": [measurement.comparison.reranking_name] * count,
        **{name: [getattr(t, name) for t in selection.queries] for name in ("tracklet_id", "identity", "camera")},
        "num_matches": metrics.num_matches,
        "average_precision": metrics.average_precision,
        "inverse_negative_penalty": metrics.inverse_negative_penalty,
        "first_match": metrics.first_match,
        "nearest": [numbers[entries] for entries in nearest],
        "nearest_distances": [measurement.distances[query, entries] for query, entries in enumerate(nearest)],
        "nearest_match": [
            identities[entries] == tracklet.identity
            for entries, tracklet in zip(nearest, selection.queries, strict=True)
        ],
    }
    masks = dict.fromkeys(("average_precision", "inverse_negative_penalty", "first_match"), skipped)
    arrays = [_array(columns[field.name], field.type, masks.get(field.name)) for field in SCHEMA]
    return pa.table(arrays, schema=SCHEMA)


def write_per_query(path: Path, tables: Sequence[pa.Table]) -> None:
    """Write all of it, or nothing."""
    table = pa.concat_tables(tables).unify_dictionaries()
    commit_file(path, lambda partial: pq.write_table(table, partial, compression="zstd"))


def _array(values: list | np.ndarray, kind: pa.DataType, mask: np.ndarray | None) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, kind, mask=mask)
