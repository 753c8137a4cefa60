"""The tables that every stage works from: tracklets, shards, and the frames of each shard. docs/data-format.md."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .commit import fingerprint, read_json
from .errors import FormatError, SettingsError
from .records import SPLITS, SourceFrames, Tracklet

FORMAT_VERSION = 2
ADDED_UP = ("junk", "distractors")  # notes that each generation states of itself alone

TRACKLETS = pa.schema(
    {
        "tracklet_id": pa.int64(),
        "split": pa.string(),
        "identity": pa.int64(),
        "camera": pa.int32(),
        "shard": pa.int32(),
        "num_frames": pa.int32(),
        "name": pa.string(),
        "identity_name": pa.string(),
        "camera_name": pa.string(),
        "frames_hash": pa.string(),  # of paths, numbers and times: tells an append what is there already
    }
)
SHARDS = pa.schema({"shard": pa.int32(), "num_tracklets": pa.int32(), "num_frames": pa.int64(), "sha256": pa.string()})
FRAMES = pa.schema(
    {
        "tracklet_id": pa.int64(),
        "frame_index": pa.int32(),
        "frame_number": pa.int64(),
        "time": pa.float64(),
        "path": pa.string(),
    }
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
class Generation:
    """What one run of `index` added, with hashes of its tables, and notes such as counts of left-out junk."""

    number: int
    root: str  # absolute
    first_shard: int
    num_shards: int
    num_tracklets: int
    num_frames: int
    tracklets_sha256: str
    shards_sha256: str
    notes: dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """Tracklets of one dataset; paths of frames stay on disk (read_shard_frames)."""

    name: str
    tracklets: tuple[Tracklet, ...]  # tracklets[i].tracklet_id == i
    generations: tuple[Generation, ...] = ()  # in order; each has its own root and shards
    # Further divisions of the identities; empty where the dataset has one fixed split. The `split` of the tracklets is
    # that of identity_splits[0] where there are any.
    identity_splits: tuple[IdentitySplit, ...] = ()
    fingerprint: str = ""  # hash of everything in it but the roots, which may move; read_manifest has compared it

    @property
    def notes(self) -> dict[str, Any]:
        """Of all generations: junk and distractors added up; of other notes of one name, the last one's."""
        merged: dict[str, Any] = {}
        for generation in self.generations:
            for key, value in generation.notes.items():
                if key in ADDED_UP and key in merged:
                    value = {noun: number + merged[key][noun] for noun, number in value.items()}
                merged[key] = value
        return merged

    @property
    def num_frames(self) -> int:
        return sum(tracklet.num_frames for tracklet in self.tracklets)

    @property
    def num_shards(self) -> int:
        return 1 + max((tracklet.shard for tracklet in self.tracklets), default=-1)

    def shard(self, shard: int) -> tuple[Tracklet, ...]:
        """The tracklets of one shard, in order."""
        return tuple(tracklet for tracklet in self.tracklets if tracklet.shard == shard)

    def split(self, name: str) -> tuple[Tracklet, ...]:
        """The tracklets of "train", "query" or "gallery", in order."""
        return tuple(tracklet for tracklet in self.tracklets if tracklet.split == name)

    def with_identity_split(self, index: int) -> Manifest:
        """The same tracklets, divided by identity_splits[index]."""
        count = len(self.identity_splits)
        if not 0 <= index < count:
            expected = f"0 to {count - 1}" if count else "no --identity-split, since it has one fixed split"
            raise SettingsError(f"identity split {index} of {self.name}, which has {count}", expected)
        chosen = self.identity_splits[index]
        tracklets = tuple(replace(t, split=split_of(chosen, t.identity, t.camera, index)) for t in self.tracklets)
        return replace(self, tracklets=tracklets)

    def counts(self) -> dict[str, dict[str, int]]:
        """For each split: tracklets, frames, identities and cameras."""
        return {name: totals(self.split(name)) for name in SPLITS}


def totals(tracklets: Sequence[Any]) -> dict[str, int]:
    """How many tracklets, frames, identities and cameras there are."""
    return {
        "tracklets": len(tracklets),
        "frames": sum(tracklet.num_frames for tracklet in tracklets),
        "identities": len({tracklet.identity for tracklet in tracklets}),
        "cameras": len({tracklet.camera for tracklet in tracklets}),
    }


def split_of(split: IdentitySplit, identity: int, camera: int, index: int) -> str:
    """Where a tracklet belongs under identity_splits[index]."""
    if identity in split.train:
        return "train"
    if identity in split.test:
        return "query" if camera == split.query_camera else "gallery"
    raise FormatError(f"identity {identity} is in neither half of identity split {index}")


def dataset_path(prepared: Path) -> Path:
    return prepared / "dataset.json"


def generation_folder(prepared: Path, number: int) -> Path:
    return prepared / "manifest" / f"{number:05d}"


def _read_table(path: Path, columns: Sequence[str], sha256: str) -> pa.Table:
    """Columns of a table whose bytes have the hash that dataset.json or the shards table states."""
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise FormatError(
            f"{path} is {'not what was written' if content else 'missing'}",
            f"SHA-256 {sha256[:16]}...",
            "restore the folder `manifest` and dataset.json from a copy, or index the source into an empty folder",
        )
    # pq.read_table imports pyarrow.dataset, and to_numpy imports pandas: slower and larger than MARS's own table
    return pq.ParquetFile(pa.BufferReader(content)).read(columns, use_threads=False)


def frames_path(folder: Path, shard: int) -> Path:
    return folder / "frames" / f"{shard:05d}.parquet"


def read_generation(prepared: Path, generation: Generation, columns: Sequence[str]) -> list[list[Any]]:
    """Columns of a generation's tracklets; equal texts are one object."""
    path = generation_folder(prepared, generation.number) / "tracklets.parquet"
    table = _read_table(path, columns, generation.tracklets_sha256)
    values = []
    for column in table.itercolumns():
        if pa.types.is_string(column.type):
            encoded = column.combine_chunks().dictionary_encode()
            texts = encoded.dictionary.to_pylist()
            values.append([texts[index] for index in np.from_dlpack(encoded.indices).tolist()])
        else:
            values.append(_numbers(column).tolist())
    return values


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.from_dlpack(column.combine_chunks())


def read_dataset(prepared: Path) -> dict[str, Any]:
    """The content of dataset.json; refuses what is no prepared dataset, or of another format version."""
    if not dataset_path(prepared).is_file():
        raise FormatError(f"{prepared} is not a prepared dataset (no dataset.json)", "", "run keyreid-prep index first")
    info = read_json(dataset_path(prepared), sealed=False)  # format version 1 had no seal
    version = info.get("format_version")
    if version != FORMAT_VERSION:
        root, name = info.get("root", "ROOT"), str(info.get("name", "")).removeprefix("synthetic-")
        source = name if name in ("mars", "ilids-vid", "prid2011") else "SOURCE"
        raise FormatError(
            f"{prepared} has format version {version}",
            f"version {FORMAT_VERSION}",
            f"prepare it again into a new folder: keyreid-prep index {source} {root} NEW_FOLDER, then "
            "extract-keypoints and build-shards",
        )
    return read_json(dataset_path(prepared))


def read_manifest(prepared: Path) -> Manifest:
    """Read the tracklets of all generations; never the frames' paths."""
    info = read_dataset(prepared)
    generations = tuple(Generation(**one) for one in info["generations"])
    names = [name for name in TRACKLETS.names if name != "frames_hash"]
    columns = [read_generation(prepared, generation, names) for generation in generations]
    splits = [IdentitySplit(tuple(s["train"]), tuple(s["test"]), s["query_camera"]) for s in info["identity_splits"]]
    tables = [[one.tracklets_sha256, one.shards_sha256] for one in generations]
    return Manifest(
        name=info["name"],
        tracklets=tuple(chain.from_iterable(map(Tracklet, *values) for values in columns)),
        generations=generations,
        identity_splits=tuple(splits),
        fingerprint=fingerprint([info["name"], tables, info["identity_splits"]]),
    )


@dataclass(frozen=True)
class ShardFrames:
    """The frames of one shard, in manifest order; `sha256` of their table is what keypoints are made from."""

    shard: int
    generation: int
    root: Path
    sha256: str
    tracklets: tuple[SourceFrames, ...]

    @property
    def paths(self) -> list[str]:
        """Of all frames, relative to the root."""
        return [path for tracklet in self.tracklets for path in tracklet.paths]


def read_shard_frames(prepared: Path, shard: int) -> ShardFrames:
    """The frames of one shard, without reading any other's."""
    found = _shards(prepared)
    if shard not in found:
        raise FormatError(f"{prepared} has no shard {shard:05d}", "", "keyreid-prep describe says how many there are")
    generation, _, digest = found[shard]
    path = frames_path(generation_folder(prepared, generation.number), shard)
    table = _read_table(path, FRAMES.names, digest)
    ids, numbers, times = [_numbers(table[name]) for name in ("tracklet_id", "frame_number", "time")]
    paths = table["path"].to_pylist()
    bounds = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
    tracklets = tuple(
        SourceFrames(int(ids[start]), tuple(paths[start:end]), numbers[start:end], times[start:end])
        for start, end in pairwise(bounds)
    )
    return ShardFrames(shard, generation.number, Path(generation.root), digest, tracklets)


def shard_inputs(prepared: Path) -> dict[int, str]:
    """Shard -> hash of the table of its frames, of all shards."""
    return {shard: digest for shard, (_, _, digest) in _shards(prepared).items()}


def shard_sizes(prepared: Path) -> dict[int, int]:
    """Shard -> frames, of all shards."""
    return {shard: frames for shard, (_, frames, _) in _shards(prepared).items()}


def _shards(prepared: Path) -> dict[int, tuple[Generation, int, str]]:
    """Shard -> generation, frames and hash."""
    path = dataset_path(prepared)
    return _read_shards(prepared, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=4)
def _read_shards(prepared: Path, changed: int) -> dict[int, tuple[Generation, int, str]]:
    """`changed`: of dataset.json; what is cached is of one state of it."""
    found: dict[int, tuple[Generation, int, str]] = {}
    for generation in (Generation(**one) for one in read_dataset(prepared)["generations"]):
        path = generation_folder(prepared, generation.number) / "shards.parquet"
        table = _read_table(path, SHARDS.names, generation.shards_sha256)
        shards, frames, digests = [table[name].to_pylist() for name in ("shard", "num_frames", "sha256")]
        found.update({shard: (generation, *rest) for shard, *rest in zip(shards, frames, digests, strict=True)})
    return found
