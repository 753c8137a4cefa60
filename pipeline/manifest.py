"""The table of tracklets that every stage works from: manifest.parquet and dataset.json."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .commit import commit_file, fingerprint, read_json, write_json
from .errors import FormatError, SettingsError, SourceError
from .records import SPLITS, Tracklet

FORMAT_VERSION = 1

SCHEMA = pa.schema(
    [
        ("tracklet_id", pa.int64()),
        ("split", pa.string()),
        ("identity", pa.int64()),
        ("camera", pa.int32()),
        ("shard", pa.int32()),
        ("num_frames", pa.int32()),
        ("frame_paths", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class IdentitySplit:
    """One of several ways to divide the identities (iLIDS-VID and PRID2011 have ten).

    Under a split, tracklets of `train` are for training; of `test`, those of `query_camera` are queries and the
    others gallery.
    """

    train: tuple[int, ...]
    test: tuple[int, ...]
    query_camera: int


@dataclass(frozen=True)
class Manifest:
    """Tracklets of one dataset, in order of tracklet_id.

    Attributes:
        name: name of the dataset, such as "mars".
        root: absolute folder that frame paths are relative to.
        tracklets: all of them; tracklets[i].tracklet_id == i.
        identity_splits: further divisions of the identities; empty where the dataset has one fixed split. The
            `split` of the tracklets is that of identity_splits[0] where there are any.
        notes: counts worth keeping, such as left-out junk tracklets.
    """

    name: str
    root: str
    tracklets: tuple[Tracklet, ...]
    identity_splits: tuple[IdentitySplit, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        return sum(tracklet.num_frames for tracklet in self.tracklets)

    @property
    def num_shards(self) -> int:
        return 1 + max((tracklet.shard for tracklet in self.tracklets), default=-1)

    @cached_property
    def _by_shard(self) -> dict[int, list[Tracklet]]:
        shards: dict[int, list[Tracklet]] = {}
        for tracklet in self.tracklets:
            shards.setdefault(tracklet.shard, []).append(tracklet)
        return shards

    def shard(self, shard: int) -> tuple[Tracklet, ...]:
        """The tracklets of one shard, in order."""
        return tuple(self._by_shard.get(shard, ()))

    def split(self, name: str) -> tuple[Tracklet, ...]:
        """The tracklets of "train", "query" or "gallery", in order."""
        return tuple(tracklet for tracklet in self.tracklets if tracklet.split == name)

    def with_identity_split(self, index: int) -> Manifest:
        """The same tracklets, divided by identity_splits[index]."""
        if not 0 <= index < len(self.identity_splits):
            count = len(self.identity_splits)
            raise SettingsError(
                f"identity split {index} of {self.name}, which has {count or 'one fixed split'}",
                f"0 to {count - 1}" if count else "",
                "" if count else "leave --identity-split out",
            )
        chosen = self.identity_splits[index]
        train, test = set(chosen.train), set(chosen.test)
        tracklets = []
        for tracklet in self.tracklets:
            if tracklet.identity in train:
                split = "train"
            elif tracklet.identity in test:
                split = "query" if tracklet.camera == chosen.query_camera else "gallery"
            else:
                raise FormatError(f"identity {tracklet.identity} of {self.name} is in neither half of split {index}")
            tracklets.append(replace(tracklet, split=split))
        return replace(self, tracklets=tuple(tracklets))

    def counts(self) -> dict[str, dict[str, int]]:
        """For each split: tracklets, frames, identities and cameras."""
        result = {}
        for name in SPLITS:
            tracklets = self.split(name)
            result[name] = {
                "tracklets": len(tracklets),
                "frames": sum(tracklet.num_frames for tracklet in tracklets),
                "identities": len({tracklet.identity for tracklet in tracklets}),
                "cameras": len({tracklet.camera for tracklet in tracklets}),
            }
        return result


@dataclass(frozen=True)
class SourceTracklet:
    """What a dataset reader finds, before numbers and shards are given."""

    split: str
    identity: int
    camera: int
    frame_paths: tuple[str, ...]


def build_manifest(
    name: str,
    root: Path,
    tracklets: Iterable[SourceTracklet],
    *,
    identity_splits: Sequence[IdentitySplit] = (),
    notes: dict[str, Any] | None = None,
    frames_per_shard: int = 4096,
) -> Manifest:
    """Number the tracklets in the order given and fill shards with whole tracklets.

    A shard is closed when the next tracklet would bring it over `frames_per_shard`; a longer tracklet has a shard of
    its own.

    Raises:
        SourceError: no tracklet, a tracklet without frames, or an unknown split.
    """
    if frames_per_shard < 1:
        raise SettingsError(f"{frames_per_shard} frames per shard", "at least 1")
    numbered: list[Tracklet] = []
    shard, filled = 0, 0
    for source in tracklets:
        if not source.frame_paths:
            raise SourceError(f"a tracklet of identity {source.identity}, camera {source.camera} has no frames")
        if source.split not in SPLITS:
            raise SourceError(f"split {source.split!r}", "one of " + ", ".join(SPLITS))
        if filled and filled + len(source.frame_paths) > frames_per_shard:
            shard, filled = shard + 1, 0
        filled += len(source.frame_paths)
        numbered.append(
            Tracklet(len(numbered), source.split, source.identity, source.camera, shard, tuple(source.frame_paths))
        )
    if not numbered:
        raise SourceError(f"no tracklets in {root}", f"the layout of {name}", "see data_manifests/ for the layout")
    manifest = Manifest(name, str(root.resolve()), tuple(numbered), tuple(identity_splits), notes or {})
    return manifest.with_identity_split(0) if identity_splits else manifest


def manifest_path(prepared: Path) -> Path:
    return prepared / "manifest.parquet"


def dataset_path(prepared: Path) -> Path:
    return prepared / "dataset.json"


def write_manifest(prepared: Path, manifest: Manifest) -> str:
    """Write manifest.parquet and dataset.json; returns the manifest's fingerprint.

    Raises:
        FormatError: the folder already holds another manifest, whose keypoints and shards would become wrong.
    """
    identity = manifest_fingerprint(manifest)
    if dataset_path(prepared).exists():
        found = read_json(dataset_path(prepared)).get("manifest_fingerprint")
        if found == identity:
            return identity
        raise FormatError(
            f"{prepared} already holds another index (fingerprint {found})",
            f"fingerprint {identity} or an empty folder",
            "choose another folder, or delete this one if nobody needs it",
        )
    rows = [
        {**tracklet.__dict__, "num_frames": tracklet.num_frames, "frame_paths": list(tracklet.frame_paths)}
        for tracklet in manifest.tracklets
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    commit_file(manifest_path(prepared), lambda partial: pq.write_table(table, partial, compression="zstd"))
    write_json(
        dataset_path(prepared),
        {
            "format_version": FORMAT_VERSION,
            "name": manifest.name,
            "root": manifest.root,
            "counts": manifest.counts(),
            "notes": manifest.notes,
            "num_shards": manifest.num_shards,
            "identity_splits": [split.__dict__ for split in manifest.identity_splits],
            "manifest_fingerprint": identity,
        },
    )
    return identity


def read_manifest(prepared: Path) -> Manifest:
    """Read what write_manifest wrote.

    Raises:
        FormatError: not a prepared dataset, or of another format version.
    """
    if not dataset_path(prepared).is_file() or not manifest_path(prepared).is_file():
        raise FormatError(
            f"{prepared} is not a prepared dataset (no dataset.json and manifest.parquet)",
            "",
            "run keyreid-prep index first",
        )
    info = read_json(dataset_path(prepared))
    if info.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{prepared} has format version {info.get('format_version')}",
            f"version {FORMAT_VERSION}",
            "prepare it again with this version of keyreid-prep",
        )
    rows = pq.read_table(manifest_path(prepared), schema=SCHEMA).to_pylist()
    for row in rows:
        row.pop("num_frames")
        row["frame_paths"] = tuple(row["frame_paths"])
    splits = [
        IdentitySplit(tuple(split["train"]), tuple(split["test"]), split["query_camera"])
        for split in info["identity_splits"]
    ]
    return Manifest(info["name"], info["root"], tuple(Tracklet(**row) for row in rows), tuple(splits), info["notes"])


def cached_manifest(prepared: Path) -> Manifest:
    """read_manifest, once a process while the file does not change: for workers, which make many shards."""
    return _cached_manifest(prepared, manifest_path(prepared).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _cached_manifest(prepared: Path, changed: int) -> Manifest:
    return read_manifest(prepared)


def manifest_fingerprint(manifest: Manifest) -> str:
    """A hash of everything in the manifest but the root folder, which may move."""
    return fingerprint(
        [
            manifest.name,
            [[t.split, t.identity, t.camera, t.shard, t.frame_paths] for t in manifest.tracklets],
            [split.__dict__ for split in manifest.identity_splits],
        ]
    )
