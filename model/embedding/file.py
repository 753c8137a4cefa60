"""Descriptors on disk: HDF5, or Parquet where the path ends in .parquet; both hold the same and are read back alike.

Each file carries its hash (sealed.py): HDF5 in its user block, Parquet in its footer. Parquet is for other programs:
one row per tracklet with the columns tracklet_id, identity, camera, split, visibility (P numbers; absent where the
method has none) and descriptor (D numbers); what belongs to the whole is JSON under the key "keyreid" of the schema's
metadata.

Letters: K tracklets, P parts, D descriptor length.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from keyreid.pipeline.commit import commit_file
from keyreid.pipeline.errors import FormatError

from ..sealed import UNSEALED, require_sealed, seal
from .descriptors import ROW_ARRAYS, Origin, TrackletDescriptors

FORMAT_VERSION = 5
USER_BLOCK = 512  # bytes before HDF5's own, the least it allows
FEATURE_ARRAYS = ("widths", "weights")
KEY = b"keyreid"  # of Parquet's metadata
NUMBERS = {"tracklet_id": "tracklet_ids", "identity": "identities", "camera": "cameras"}  # Parquet's names of fields
LISTS = {"visibility": "visibility", "descriptor": "values"}


def save_descriptors(path: Path, descriptors: TrackletDescriptors) -> None:
    """Write all of it, or nothing; values keep their dtype."""
    save_pieces(path, len(descriptors.values), [descriptors])


def save_pieces(path: Path, num_tracklets: int, pieces: Iterable[TrackletDescriptors]) -> None:
    """Write what comes in pieces, one after the other, as one file: all of it, or nothing.

    Args:
        path: ends in .parquet for Parquet; anything else is HDF5.
        num_tracklets: K, of all pieces together.
        pieces: of one origin; memory holds one of them.
    """

    def write(partial: Path) -> None:
        if path.suffix == ".parquet":
            _write_parquet(partial, pieces)
        else:
            _write_hdf5(partial, num_tracklets, pieces)
        seal(partial)

    commit_file(path, write)


def load_descriptors(path: Path) -> TrackletDescriptors:
    """Read what save_descriptors wrote.

    Raises:
        FormatError: no file, another kind of file, another format version, or a file that was changed.
    """
    if not path.is_file():
        raise FormatError(f"there is no file {path}", "descriptors as keyreid embed writes them")
    require_sealed(path, "delete it and run keyreid embed again")
    try:
        if path.suffix == ".parquet":
            version, fields = _read_parquet(path)
        else:
            version, fields = _read_hdf5(path)
        if version == FORMAT_VERSION:
            return TrackletDescriptors(**{**fields, "origin": Origin(**fields["origin"])})
    except (OSError, KeyError, ValueError, TypeError) as error:  # pyarrow's errors are ValueErrors
        raise FormatError(
            f"{path} is not a readable file of descriptors ({error})", "", "delete it and run keyreid embed again"
        ) from error
    raise FormatError(
        f"{path} has descriptor format version {version}",
        f"version {FORMAT_VERSION}",
        "another version of keyreid wrote it: run keyreid embed again",
    )


def _write_hdf5(path: Path, num_tracklets: int, pieces: Iterable[TrackletDescriptors]) -> None:
    # Through a Python file: where a disk is full HDF5's own writing ends in an error without its reason, or a crash.
    with open(path, "wb+") as opened:
        with h5py.File(opened, "w", libver=("v110", "v110"), userblock_size=USER_BLOCK) as file:
            start = 0
            for piece in pieces:
                if start == 0:
                    file.attrs["format_version"] = FORMAT_VERSION
                    file.attrs["fingerprint"] = piece.fingerprint
                    file.attrs["origin"] = json.dumps(asdict(piece.origin), sort_keys=True)
                    for name in ROW_ARRAYS:
                        array = _on_disk(piece, name)
                        file.create_dataset(name, (num_tracklets, *array.shape[1:]), array.dtype)
                    for name in FEATURE_ARRAYS:
                        file[name] = getattr(piece, name)
                for name in ROW_ARRAYS:
                    array = _on_disk(piece, name)
                    if array.size:
                        file[name][start : start + len(array)] = array
                start += len(piece.values)
        opened.seek(0)
        opened.write(UNSEALED.encode())


def _read_hdf5(path: Path) -> tuple[int, dict[str, Any]]:
    with h5py.File(path, "r") as file:
        version = int(file.attrs["format_version"])
        if version != FORMAT_VERSION:
            return version, {}
        arrays = [file[name] for name in (*ROW_ARRAYS, *FEATURE_ARRAYS)]
        if sum(array.nbytes for array in arrays) > path.stat().st_size:  # HDF5 makes up what was never written
            raise ValueError(f"arrays of {[array.shape for array in arrays]} numbers in a smaller file")
        fields: dict[str, Any] = {array.name[1:]: array[:] for array in arrays}
        fields["splits"] = fields["splits"].astype(str)
        fields["fingerprint"] = str(file.attrs["fingerprint"])
        fields["origin"] = json.loads(file.attrs["origin"])
        return version, fields


def _on_disk(piece: TrackletDescriptors, name: str) -> np.ndarray:
    """HDF5 takes no text of fixed length but bytes; the longest split is "gallery"."""
    array = getattr(piece, name)
    return array.astype("S7") if array.dtype.kind == "U" else array


def _write_parquet(path: Path, pieces: Iterable[TrackletDescriptors]) -> None:
    """One row group per piece."""
    writer: pq.ParquetWriter | None = None
    try:
        for piece in pieces:
            table = _table(piece)
            if writer is None:  # a descriptor's numbers neither repeat nor compress
                writer = pq.ParquetWriter(path, table.schema, compression="none", use_dictionary=False)
            writer.write_table(table, row_group_size=max(len(table), 1))
        if writer is not None:
            writer.add_key_value_metadata({"seal": UNSEALED})
    finally:
        if writer is not None:
            writer.close()


def _read_parquet(path: Path) -> tuple[int, dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        schema, num_rows = file.schema_arrow, file.metadata.num_rows
        if KEY not in (schema.metadata or {}):
            raise ValueError("a Parquet file without keyreid's metadata")
        row = sum(_num_bytes(column) for column in schema.types)
        if num_rows * row > path.stat().st_size:  # nothing is compressed in what _write_parquet wrote
            raise ValueError(f"{num_rows:,} rows of {row:,} bytes in a smaller file")
        table = file.read()
    facts = json.loads(table.schema.metadata[KEY])
    fields: dict[str, Any] = {name: facts[name] for name in ("fingerprint", "origin")}
    fields |= {"widths": np.array(facts["widths"], np.int64), "weights": np.array(facts["weights"], np.float64)}
    for column, name in NUMBERS.items():
        fields[name] = table[column].to_numpy().astype(np.int64)
    fields["splits"] = np.array(table["split"].to_pylist(), np.str_)
    for column, name in LISTS.items():
        fields[name] = _matrix(table, column)
    return int(facts["format_version"]), fields


def _table(piece: TrackletDescriptors) -> pa.Table:
    columns = {column: pa.array(getattr(piece, name)) for column, name in NUMBERS.items()}
    columns["split"] = pa.array(piece.splits.tolist(), pa.string()).dictionary_encode()
    for column, name in LISTS.items():
        matrix = getattr(piece, name)
        if matrix.shape[1]:
            columns[column] = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
    facts = {
        "format_version": FORMAT_VERSION,
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
