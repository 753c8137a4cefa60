"""Is this a complete copy? What a reader found, beside the counts that data_manifests/ or the generator states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ..commit import read_json
from ..errors import FormatError, SourceError
from ..manifest import build_manifest
from .reading import Reading

SYNTHETIC_FILE = "SYNTHETIC.json"  # `keyreid-prep synthesize` writes it: a made tree has other counts by design
MAX_NAMED = 20


def load_description(name: str) -> dict[str, Any] | None:
    """The content of data_manifests/NAME.yaml, or None for a dataset that is not described, such as your own."""
    resource = files("keyreid.data_manifests").joinpath(f"{name}.yaml")
    return yaml.safe_load(resource.read_text(encoding="utf-8")) if resource.is_file() else None


def count(reading: Reading) -> dict[str, int]:
    """Everything that can be compared, under names such as "train.tracklets".

    Keys: tracklets, frames, identities and cameras of train, query and gallery (under the first identity split where
    there are several) and of all; junk.tracklets, junk.frames; identity_splits.
    """
    manifest = build_manifest(reading.name, reading.root, reading.tracklets, identity_splits=reading.identity_splits)
    everything = {
        "tracklets": len(manifest.tracklets),
        "frames": manifest.num_frames,
        "identities": len({tracklet.identity for tracklet in manifest.tracklets}),
        "cameras": len({tracklet.camera for tracklet in manifest.tracklets}),
    }
    junk = reading.notes.get("junk", {"tracklets": 0, "frames": 0})
    nested = {**manifest.counts(), "all": everything, "junk": junk, "identity_splits": len(reading.identity_splits)}
    return flatten(nested)


def flatten(counts: Mapping[str, Any]) -> dict[str, int]:
    """{"train": {"frames": 5}, "identity_splits": 10} -> {"train.frames": 5, "identity_splits": 10}."""
    flat: dict[str, int] = {}
    for name, value in counts.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{key}": number for key, number in value.items()})
        else:
            flat[name] = value
    return flat


def check_completeness(reading: Reading, source: str, *, allow_incomplete: bool = False) -> Reading:
    """Compare a reading with a complete copy of the dataset `source`; your own data has no counts to miss.

    A synthetic tree (one with SYNTHETIC.json) is compared with that file's counts and is called "synthetic-NAME", so
    that no result on drawn people passes for one on the real dataset.

    Returns:
        The reading, its notes telling what is not complete.

    Raises:
        SourceError: files are missing or counts differ, and `allow_incomplete` is not set.
        FormatError: the expected counts use a name that `count` does not know.
    """
    expected, remedy = _expected(reading.root, source)
    name = f"synthetic-{reading.name}" if (reading.root / SYNTHETIC_FILE).is_file() else reading.name
    if not reading.tracklets:
        raise SourceError(f"no tracklets in {reading.root}{_listing(reading.missing)}", "", remedy)
    found = count(reading)
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


def _expected(root: Path, source: str) -> tuple[dict[str, int], str]:
    """The counts of a complete copy and how to get one; no counts for data that nobody described."""
    path = root / SYNTHETIC_FILE
    if path.is_file():
        counts = read_json(path).get("counts")
        if not isinstance(counts, Mapping):
            raise FormatError(f"{path} has no counts", "a mapping of counts", "make the tree again")
        return flatten(counts), "make it again with keyreid-prep synthesize"
    description = load_description(source)
    if description is None:
        return {}, "add what is missing"
    return flatten(description["counts"]), f"complete it (source: {description['page']})"


def _listing(missing: Sequence[str]) -> str:
    lines = [f"\n  missing: {path}" for path in missing[:MAX_NAMED]]
    if len(missing) > MAX_NAMED:
        lines.append(f"\n  and {len(missing) - MAX_NAMED:,} more files or folders")
    return "".join(lines)
