"""Dataset readers: a folder or table on disk -> Reading, compared with a complete copy. Imported when they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FormatError, SettingsError, SourceError

if TYPE_CHECKING:
    from ..index import Reading

# Name of the source -> module of this package with `read`.
SOURCES = {
    "mars": "mars",
    "ilids-vid": "ilids_vid",
    "prid2011": "prid2011",
    "folder": "folder",
    "table": "table",
}
SYNTHETIC_FILE = "SYNTHETIC.json"  # `keyreid-prep synthesize` writes it: a made tree has other counts by design
MAX_NAMED = 20


def read_source(name: str, root: Path, *, table_root: Path | None = None, allow_incomplete: bool = False) -> Reading:
    """Read a dataset, and compare it with the counts of a complete copy.

    Args:
        name: one of SOURCES.
        root: the dataset's folder; for "table" the CSV or Parquet file.
        table_root: folder that a table's frame paths are relative to; by default the folder of the table.
        allow_incomplete: take what is there; missing frames are left out and counted in the notes.

    Raises:
        SettingsError: an unknown source, or an option that does not belong to it.
        SourceError: the dataset is not there, contradicts itself, or is not complete.
    """
    if name not in SOURCES:
        raise SettingsError(f"source {name!r}", "one of " + ", ".join(SOURCES))
    if table_root is not None and name != "table":
        raise SettingsError(f"--root with source {name}", "--root with source table alone")
    reader = import_module(f".{SOURCES[name]}", __package__)
    reading = reader.read(root) if table_root is None else reader.read(root, table_root)
    return check_completeness(reading, name, allow_incomplete=allow_incomplete)


def load_description(name: str) -> dict[str, Any] | None:
    """The content of data_manifests/NAME.yaml, or None for a dataset that is not described, such as your own."""
    import yaml

    resource = files("keyreid.data_manifests").joinpath(f"{name}.yaml")
    return yaml.safe_load(resource.read_text(encoding="utf-8")) if resource.is_file() else None


def check_completeness(reading: Reading, source: str, *, allow_incomplete: bool = False) -> Reading:
    """Compare a reading with a complete copy of the dataset `source`; your own data has no counts to miss.

    A synthetic tree (one with SYNTHETIC.json) is compared with that file's counts and is called "synthetic-NAME", so
    that no result on synthetic people passes for one on the real dataset.

    Returns:
        The reading, its notes telling what is not complete.

    Raises:
        SourceError: files are missing or counts differ, and `allow_incomplete` is not set.
        FormatError: the expected counts use a name that `count` does not know.
    """
    expected, remedy = _expected(reading.root, source)
    name = f"synthetic-{reading.name}" if (reading.root / SYNTHETIC_FILE).is_file() else reading.name
    found = count(reading)
    if not found["all.tracklets"]:
        raise SourceError(f"no tracklets in {reading.root}{_listing(reading.missing)}", "", remedy)
    unknown = sorted(set(expected) - set(found))
    if unknown:
        raise FormatError(f"unknown count {unknown[0]} in the description of {name}", f"one of {', '.join(found)}")
    differences = [
        f"{key}: {found[key]:,} found, {number:,} expected" for key, number in expected.items() if found[key] != number
    ]
    if not differences and not reading.missing:
        return replace(reading, name=name)
    if not allow_incomplete:
        problems = "".join(f"\n  {line}" for line in differences)
        raise SourceError(
            f"{reading.root} is not a complete copy of {name}{problems}{_listing(reading.missing)}",
            "",
            f"{remedy}, or index what is there with --allow-incomplete",
        )
    notes = {**reading.notes, "incomplete": [*differences, *reading.missing[:MAX_NAMED]]}
    return replace(reading, name=name, notes=notes)


def count(reading: Reading) -> dict[str, int]:
    """Everything that can be compared, under names such as "train.tracklets".

    Keys: tracklets, frames, identities and cameras of train, query and gallery (under the first identity split where
    there are several) and of all; junk.tracklets, junk.frames; identity_splits. Junk is in none of the others.
    """
    from ..index import is_junk
    from ..manifest import split_of
    from ..records import SPLITS

    nouns = ("tracklets", "frames", "identities", "cameras")
    counts = {f"{part}.{noun}": 0 for part in (*SPLITS, "all") for noun in nouns} | {
        "junk.tracklets": 0,
        "junk.frames": 0,
    }
    seen: set[tuple[str, str, int | str]] = set()
    for tracklet in reading.tracklets:
        parts: tuple[str, ...] = ("junk",)
        if not is_junk(tracklet.identity):
            split = tracklet.split
            if reading.identity_splits:
                split = split_of(reading.identity_splits[0], int(tracklet.identity), int(tracklet.camera), 0)
            parts = (split, "all")
        for part in parts:
            counts[f"{part}.tracklets"] += 1
            counts[f"{part}.frames"] += len(tracklet.frame_paths)
            if part != "junk":
                seen.add((part, "identities", tracklet.identity))
                seen.add((part, "cameras", tracklet.camera))
    for part, noun, _ in seen:
        counts[f"{part}.{noun}"] += 1
    return counts | {"identity_splits": len(reading.identity_splits)}


def flatten(counts: Mapping[str, Any]) -> dict[str, int]:
    """{"train": {"frames": 5}, "identity_splits": 10} -> {"train.frames": 5, "identity_splits": 10}."""
    flat: dict[str, int] = {}
    for name, value in counts.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{key}": number for key, number in value.items()})
        else:
            flat[name] = value
    return flat


def _expected(root: Path, source: str) -> tuple[dict[str, int], str]:
    """The counts of a complete copy and how to get one; no counts for data that nobody described."""
    from ..commit import read_json

    path = root / SYNTHETIC_FILE
    if path.is_file():
        counts = read_json(path, sealed=False).get("counts")
        flat = flatten(counts) if isinstance(counts, Mapping) else {}
        if not flat or not all(type(number) is int for number in flat.values()):
            raise FormatError(f"{path} has no counts", "a mapping of counts", "make the tree again")
        return flat, "make it again with keyreid-prep synthesize"
    description = load_description(source)
    if description is None:
        return {}, "add what is missing"
    return flatten(description["counts"]), f"complete it (source: {description['page']})"


def _listing(missing: Sequence[str]) -> str:
    lines = [f"\n  missing: {path if len(path) < 300 else path[:300] + '...'}" for path in missing[:MAX_NAMED]]
    if len(missing) > MAX_NAMED:
        lines.append(f"\n  and {len(missing) - MAX_NAMED:,} more files or folders")
    return "".join(lines)
