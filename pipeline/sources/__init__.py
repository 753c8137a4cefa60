"""Dataset readers: a folder or table on disk -> Reading, compared with a complete copy. Imported when they are used."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FormatError, SettingsError, SourceError

if TYPE_CHECKING:
    from ..index import Reading

SOURCES = ("mars", "ilids-vid", "prid2011", "ls-vid", "folder", "table")  # modules of this package with `read`
SYNTHETIC_FILE = "SYNTHETIC.json"  # `keyreid-prep synthesize` writes it: a made tree has other counts by design
MAX_NAMED = 20


def read_source(name: str, root: Path, *, table_root: Path | None = None, allow_incomplete: bool = False) -> Reading:
    """Read a dataset, or a table whose paths start from `table_root`, and compare it with a complete copy.

    Raises:
        SettingsError: an unknown source, or an option that does not belong to it.
        SourceError: the dataset is not there, contradicts itself, or is not complete.
    """
    if name not in SOURCES:
        raise SettingsError(f"source {name!r}", "one of " + ", ".join(SOURCES))
    if table_root is not None and name != "table":
        raise SettingsError(f"--root with source {name}", "--root with source table alone")
    reader = import_module(f".{name.replace('-', '_')}", __package__)
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
        FormatError: the expected counts are none, or use a name that `count` does not know.
    """
    from ..commit import read_json
    from ..stages import flatten

    path, name, remedy, expected = reading.root / SYNTHETIC_FILE, reading.name, "add what is missing", {}
    if path.is_file():
        name, remedy = f"synthetic-{name}", "make it again with keyreid-prep synthesize"
        counts = read_json(path, sealed=False).get("counts")
        expected = flatten(counts) if isinstance(counts, dict) else {}
        if not expected or not all(type(number) is int for number in expected.values()):
            raise FormatError(f"{path} has no counts", "a mapping of counts", "make the tree again")
    elif (description := load_description(source)) is not None:
        expected, remedy = flatten(description["counts"]), f"complete it (source: {description['page']})"
    found = count(reading)
    unknown = sorted(set(expected) - set(found))
    if unknown:
        raise FormatError(f"unknown count {unknown[0]} in the description of {name}", f"one of {', '.join(found)}")
    lines = [
        f"{key}: {found[key]:,} found, {number:,} expected" for key, number in expected.items() if found[key] != number
    ]
    notes = {**reading.notes, "incomplete": [*lines, *reading.missing[:MAX_NAMED]]}
    lines += [f"missing: {path if len(path) < 300 else path[:300] + '...'}" for path in reading.missing[:MAX_NAMED]]
    if len(reading.missing) > MAX_NAMED:
        lines.append(f"and {len(reading.missing) - MAX_NAMED:,} more files or folders")
    if not found["all.tracklets"]:
        raise SourceError("\n  ".join([f"no tracklets in {reading.root}", *lines]), "", remedy)
    if lines and not allow_incomplete:
        remedy += ", or index what is there with --allow-incomplete"
        raise SourceError("\n  ".join([f"{reading.root} is not a complete copy of {name}", *lines]), "", remedy)
    return replace(reading, name=name, notes=notes if lines else reading.notes)


def count(reading: Reading) -> dict[str, int]:
    """Everything that can be compared, under names such as "train.tracklets".

    Keys: tracklets, frames, identities and cameras of train, query and gallery (under the first identity split where
    there are several), of all and of junk, which is in none of the others; identity_splits.
    """
    from ..index import SourceTracklet, is_junk
    from ..manifest import split_of, totals
    from ..records import SPLITS

    groups: dict[str, list[SourceTracklet]] = {part: [] for part in (*SPLITS, "all", "junk")}
    for tracklet in reading.tracklets:
        if is_junk(tracklet.identity):
            groups["junk"].append(tracklet)
            continue
        split = tracklet.split
        if reading.identity_splits:
            split = split_of(reading.identity_splits[0], int(tracklet.identity), int(tracklet.camera), 0)
        groups[split].append(tracklet)
        groups["all"].append(tracklet)
    counts = {f"{part}.{noun}": n for part, tracklets in groups.items() for noun, n in totals(tracklets).items()}
    return counts | {"identity_splits": len(reading.identity_splits)}
