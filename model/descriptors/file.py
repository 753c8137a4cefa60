"""Descriptors on disk: HDF5, or Parquet where the path ends in .parquet; both hold the same and are read back alike.

Each file carries its hash (sealed.py): HDF5 in its user block, Parquet in its footer.

Letters: K tracklets, P parts, D descriptor length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from keyreid.pipeline.commit import commit_file, fingerprint
from keyreid.pipeline.errors import FormatError
from keyreid.pipeline.store import TrackletStore

from ..network.keyreid import KeyReID
from ..sealed import UNSEALED, require_sealed, seal
from . import table
from .describe import Origin, TrackletDescriptors

FORMAT_VERSION = 4
USER_BLOCK = 512  # bytes before HDF5's own, the least it allows
ROW_ARRAYS = ("values", "visibility", "tracklet_ids", "identities", "cameras")
FEATURE_ARRAYS = ("widths", "weights")


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
            table.write_pieces(partial, FORMAT_VERSION, pieces)
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
            version, fields = table.read(path)
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
                        array = getattr(piece, name)
                        file.create_dataset(name, (num_tracklets, *array.shape[1:]), array.dtype)
                    for name in FEATURE_ARRAYS:
                        file[name] = getattr(piece, name)
                for name in ROW_ARRAYS:
                    array = getattr(piece, name)
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
        fields["fingerprint"] = str(file.attrs["fingerprint"])
        fields["origin"] = json.loads(file.attrs["origin"])
        return version, fields


def model_fingerprint(model: KeyReID) -> str:
    """A hash of the network's weights and configuration."""
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values.detach().cpu().numpy()).data)
    return fingerprint([model.config.to_dict(), digest.hexdigest()])


def data_fingerprint(store: TrackletStore) -> str:
    """A hash of the manifest and of the shards."""
    return fingerprint([store.manifest.fingerprint, [receipt.sha256 for receipt in store.receipts]])
