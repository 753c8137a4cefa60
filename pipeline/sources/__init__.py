"""Dataset readers: a folder or table on disk -> Manifest. Readers are imported when they are used."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..manifest import Manifest

# Name of the source -> module of this package with `read`.
SOURCES = {
    "mars": "mars",
    "ilids-vid": "ilids_vid",
    "prid2011": "prid2011",
    "folder": "folder",
    "table": "table",
}


def read_source(
    name: str,
    root: Path,
    *,
    table_root: Path | None = None,
    allow_incomplete: bool = False,
    frames_per_shard: int = 4096,
) -> Manifest:
    """Read a dataset, compare it with the counts of a complete copy, and number its tracklets.

    Args:
        name: one of SOURCES.
        root: the dataset's folder; for "table" the CSV or Parquet file.
        table_root: folder that a table's frame paths are relative to; by default the folder of the table.
        allow_incomplete: index what is there; missing frames are left out and counted in the notes.
        frames_per_shard: see build_manifest.

    Raises:
        SettingsError: an unknown source, or an option that does not belong to it.
        SourceError: the dataset is not there, contradicts itself, or is not complete.
    """
    from ..errors import SettingsError
    from ..manifest import build_manifest
    from .completeness import check_completeness

    if name not in SOURCES:
        raise SettingsError(f"source {name!r}", "one of " + ", ".join(SOURCES))
    if table_root is not None and name != "table":
        raise SettingsError(f"--root with source {name}", "--root with source table alone")
    reader = import_module(f".{SOURCES[name]}", __package__)
    reading = reader.read(root) if table_root is None else reader.read(root, table_root)
    checked = check_completeness(reading, name, allow_incomplete=allow_incomplete)
    return build_manifest(
        checked.name,
        checked.root,
        checked.tracklets,
        identity_splits=checked.identity_splits,
        notes=checked.notes,
        frames_per_shard=frames_per_shard,
    )
