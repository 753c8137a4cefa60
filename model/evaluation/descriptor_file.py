"""Descriptors on disk (HDF5), so that a report can be made again without the network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np

from keyreid.pipeline.commit import commit_file, fingerprint, read_receipt
from keyreid.pipeline.errors import FormatError
from keyreid.pipeline.manifest import manifest_fingerprint
from keyreid.pipeline.store import TrackletStore

from ..network.keyreid import KeyReID
from .descriptors import TrackletDescriptors

FORMAT_VERSION = 2
ARRAYS = ("values", "visibility", "tracklet_ids", "identities", "cameras", "widths", "weights")


def save_descriptors(path: Path, descriptors: TrackletDescriptors) -> None:
    """Write all of it, or nothing."""

    def write(partial: Path) -> None:
        with h5py.File(partial, "w", libver=("v110", "v110")) as file:
            file.attrs["format_version"] = FORMAT_VERSION
            file.attrs["fingerprint"] = descriptors.fingerprint
            for name in ARRAYS:
                file[name] = getattr(descriptors, name)

    commit_file(path, write)


def load_descriptors(path: Path) -> TrackletDescriptors:
    """Read what save_descriptors wrote.

    Raises:
        FormatError: another kind of file, or another format version.
    """
    try:
        with h5py.File(path, "r") as file:
            version = int(file.attrs["format_version"])
            if version != FORMAT_VERSION:
                raise FormatError(
                    f"{path} has descriptor format version {version}", f"version {FORMAT_VERSION}", "describe again"
                )
            arrays = {name: file[name][:] for name in ARRAYS}
            return TrackletDescriptors(**arrays, fingerprint=str(file.attrs["fingerprint"]))
    except (OSError, KeyError) as error:
        raise FormatError(
            f"{path} is not a readable file of descriptors ({error})", "", "delete it and evaluate again"
        ) from error


def model_fingerprint(model: KeyReID) -> str:
    """A hash of the network's weights and configuration."""
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values.detach().cpu().numpy()).data)
    return fingerprint([model.config.to_dict(), digest.hexdigest()])


def data_fingerprint(store: TrackletStore) -> str:
    """A hash of the manifest and of the shards that were read."""
    receipts = (read_receipt(store.path, "shards", shard) for shard in range(store.manifest.num_shards))
    return fingerprint([manifest_fingerprint(store.manifest), [receipt.sha256 for receipt in receipts if receipt]])
