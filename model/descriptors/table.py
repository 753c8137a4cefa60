"""Descriptors as a Parquet table, for other programs: one row per tracklet.

Columns are tracklet_id, identity, camera, visibility (P numbers; absent where the method knows none) and descriptor (D
numbers); what belongs to the whole is JSON under the key "keyreid" of the schema's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..sealed import UNSEALED
from .describe import TrackletDescriptors

KEY = b"keyreid"
NUMBERS = {"tracklet_id": "tracklet_ids", "identity": "identities", "camera": "cameras"}
LISTS = {"visibility": "visibility", "descriptor": "values"}


def write_pieces(path: Path, format_version: int, pieces: Iterable[TrackletDescriptors]) -> None:
    """One row group per piece."""
    writer: pq.ParquetWriter | None = None
    try:
        for piece in pieces:
            table = _table(piece, format_version)
            if writer is None:  # a descriptor's numbers neither repeat nor compress
                writer = pq.ParquetWriter(path, table.schema, compression="none", use_dictionary=False)
            writer.write_table(table, row_group_size=max(len(table), 1))
        if writer is not None:
            writer.add_key_value_metadata({"seal": UNSEALED})
    finally:
        if writer is not None:
            writer.close()


def read(path: Path) -> tuple[int, dict[str, Any]]:
    """Format version, and the fields of TrackletDescriptors with the origin as a dictionary.

    Raises:
        ValueError: not a Parquet file, or not one of descriptors.
    """
    with pq.ParquetFile(path) as file:
        schema, num_rows = file.schema_arrow, file.metadata.num_rows
        if KEY not in (schema.metadata or {}):
            raise ValueError("a Parquet file without keyreid's metadata")
        row = sum(_num_bytes(column) for column in schema.types)
        if num_rows * row > path.stat().st_size:  # nothing is compressed in what write_pieces wrote
            raise ValueError(f"{num_rows:,} rows of {row:,} bytes in a smaller file")
        table = file.read()
    facts = json.loads(table.schema.metadata[KEY])
    fields: dict[str, Any] = {name: facts[name] for name in ("fingerprint", "origin")}
    fields |= {"widths": np.array(facts["widths"], np.int64), "weights": np.array(facts["weights"], np.float64)}
    for column, name in NUMBERS.items():
        fields[name] = table[column].to_numpy().astype(np.int64)
    for column, name in LISTS.items():
        fields[name] = _matrix(table, column)
    return int(facts["format_version"]), fields


def _table(piece: TrackletDescriptors, format_version: int) -> pa.Table:
    columns = {column: pa.array(getattr(piece, name)) for column, name in NUMBERS.items()}
    for column, name in LISTS.items():
        matrix = getattr(piece, name)
        if matrix.shape[1]:
            columns[column] = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
    facts = {
        "format_version": format_version,
        "fingerprint": piece.fingerprint,
        "origin": asdict(piece.origin),
        "widths": piece.widths.tolist(),
        "weights": piece.weights.tolist(),
    }
    return pa.table(columns).replace_schema_metadata({KEY: json.dumps(facts, sort_keys=True)})


def _num_bytes(kind: pa.DataType) -> int:
    """Of one value; ValueError where values differ in size."""
    return kind.list_size * _num_bytes(kind.value_type) if pa.types.is_fixed_size_list(kind) else kind.byte_width


def _matrix(table: pa.Table, column: str) -> np.ndarray:
    """(K, width) of a column of lists; (K, 0) float32 where there is no such column."""
    if column not in table.column_names:
        return np.zeros((len(table), 0), np.float32)
    width = table.schema.field(column).type.list_size
    blocks = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width) for chunk in table[column].chunks]
    return np.concatenate(blocks)
