"""Writes the manifest's tables: what a dataset reader found, numbered and divided into shards."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .commit import exclusive, explain_full_disk, read_json, sync_folder, write_json
from .errors import FormatError, SettingsError, SourceError
from .manifest import (
    FORMAT_VERSION,
    FRAMES,
    SHARDS,
    TRACKLETS,
    Generation,
    IdentitySplit,
    Manifest,
    dataset_path,
    frames_path,
    generation_folder,
    read_generation,
    read_manifest,
    split_of,
)
from .records import SPLITS

INTEGER = re.compile(r"-?\d{1,9}")  # longer ones, such as ticket numbers, are names: cameras are int32
UNUSUAL = ("\n/", "\n.", "\n\n", "..", "\0")  # of paths between newlines: these are looked at one by one
GENERATION_FOLDER = re.compile(r"\d{5}|\.\d{5}\.partial")
FRAMES_PER_SHARD = 4096
BYTES_PER_SHARD = 256 << 20  # of encoded images, which the build of a shard holds in memory once


@dataclass(frozen=True)
class SourceTracklet:
    """What a dataset reader finds, before numbers and shards are given; F frames."""

    split: str  # "train", "query" or "gallery"
    # Numbers, or names to be numbered (see number_names). Negative identities are junk, which is left out and counted;
    # 0 means a distractor.
    identity: int | str
    camera: int | str
    frame_paths: Sequence[str]  # (F,) image files relative to the root, in time order, "/" between folders
    frame_numbers: Sequence[int] | None = None  # (F,) rising frame numbers of the recording; None: unknown
    times: Sequence[float] | None = None  # (F,) seconds; None: unknown
    name: str = ""  # of the tracklet in the source
    identity_name: str = ""  # where identity is a number: how the source writes it; likewise camera_name
    camera_name: str = ""

    @property
    def num_frames(self) -> int:
        return len(self.frame_paths)


@dataclass(frozen=True)
class Reading:
    """The tracklets of a dataset on disk, and what its own tables promise but the disk lacks."""

    name: str
    root: Path
    tracklets: Iterable[SourceTracklet]  # in the order of the manifest, junk included; read once
    missing: tuple[str, ...] = ()  # files and folders that should exist, relative to root; folders end with "/"
    identity_splits: tuple[IdentitySplit, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)  # counts worth keeping


def number_names(pairs: Iterable[tuple[int | str, str]], noun: str, known: dict[str, int]) -> dict[str, int]:
    """A number for each name: a whole number keeps its value, so that -1 and 0 stay junk and distractors; other text
    gets the next free numbers in sorted order. Known names keep their numbers.
    `pairs` are identities or cameras as a reader gives them, and their names.

    Raises:
        SourceError: two names are the same number, such as 1 and 01, or a name or number has two of the other.
    """
    numbers, text = dict(known), []
    name_of = {number: name for name, number in numbers.items()}
    written = {int(name): name for name in numbers if INTEGER.fullmatch(name)}
    for number, name in sorted(dict.fromkeys(pairs), key=lambda pair: (isinstance(pair[0], str), pair[1])):
        value = int(name) if INTEGER.fullmatch(name) else None
        if isinstance(number, str) or number == value:
            if name in numbers:
                continue
            if value is not None and written.setdefault(value, name) != name:
                found = f"{noun} {written[value]!r} and {noun} {name!r} are the same number"
                raise SourceError(found, "one way of writing it", "rename one")
            if value is None or value in name_of:  # an earlier generation may have given the number to a text
                text.append(name)
                continue
            number = value
        if numbers.setdefault(name, number) != number or name_of.setdefault(number, name) != name:
            raise SourceError(
                f"{noun} {name!r} has number {numbers[name]} and {number}, and number {number} is {noun} "
                f"{name_of.get(number, name)!r}",
                "one number for each name",
                "rename one",
            )
    following = max([0, *name_of]) + 1
    return numbers | {name: following + place for place, name in enumerate(text)}


def write_manifest(
    prepared: Path,
    reading: Reading,
    *,
    frames_per_shard: int = FRAMES_PER_SHARD,
    bytes_per_shard: int = BYTES_PER_SHARD,
    append: bool = False,
) -> Manifest:
    """Number the tracklets in the order given, fill shards with whole tracklets, and write the tables.

    A shard is closed when the next tracklet would bring it over `frames_per_shard` or `bytes_per_shard`; a longer
    tracklet has a shard of its own. The tables appear in one step: a run that is killed leaves what was there before.
    Writing the same index again changes nothing but the root.

    Memory holds one shard's paths and one row per tracklet. With `append` they become a further generation: tracklets
    that are there already are passed over, known names keep their numbers. Returns the whole dataset's manifest.

    Raises:
        SourceError: a tracklet makes no sense, or changed since it was indexed.
        FormatError: the folder already holds another index, whose keypoints and shards would become wrong.
        SettingsError: another run is at work on `prepared`.
    """
    prepared.mkdir(parents=True, exist_ok=True)
    with exclusive(prepared):
        before = read_manifest(prepared) if dataset_path(prepared).exists() else None
        info = read_json(dataset_path(prepared)) if before else {}
        if append:
            _check_append(prepared, reading, before)
        counted = {f"{generation.number:05d}" for generation in before.generations} if before else set()
        for folder in (prepared / "manifest").glob("*"):
            if GENERATION_FOLDER.fullmatch(folder.name) and folder.name not in counted and not folder.is_symlink():
                shutil.rmtree(folder)  # of a run that was killed: the lock says that it is over
        grown = before if append and before else Manifest(reading.name, ())
        writer = _Writer(prepared, reading, grown, frames_per_shard, bytes_per_shard)
        try:
            with explain_full_disk(writer.partial):
                generation = writer.write()
            if before and not append:
                _check_same(prepared, reading, before, writer.partial)
                info["generations"][0]["root"] = str(reading.root.absolute())
            elif generation:
                writer.partial.rename(generation_folder(prepared, generation.number))
                sync_folder(prepared / "manifest")
                info = info or {
                    "format_version": FORMAT_VERSION,
                    "name": reading.name,
                    "identity_splits": [split.__dict__ for split in reading.identity_splits],
                    "generations": [],
                }
                if reading.name not in info["name"].split("+"):
                    info["name"] += f"+{reading.name}"  # figures on it are not figures on the published dataset
                info["generations"].append(generation.__dict__)
        finally:
            shutil.rmtree(writer.partial, ignore_errors=True)
        write_json(dataset_path(prepared), info)  # from now on the tables count
        return read_manifest(prepared)


def _check_append(prepared: Path, reading: Reading, before: Manifest | None) -> None:
    if before is None:
        raise FormatError(f"{prepared} holds no index to append to", "", "leave --append out the first time")
    if before.identity_splits or reading.identity_splits:
        raise SettingsError(f"--append with {before.name}, whose identity splits are fixed", "a dataset without")
    if reading.name.startswith("synthetic-") != before.name.startswith("synthetic-"):
        raise SettingsError(f"--append of {reading.name} to {before.name}", "synthetic people among themselves")


def _check_same(prepared: Path, reading: Reading, before: Manifest, partial: Path) -> None:
    """Refuse another index than the one that is there; values count, not the bytes that a version of Parquet makes."""
    # Their frames_hash columns speak for the frames.
    old, new = (pq.read_table(folder / "tracklets.parquet") for folder in (generation_folder(prepared, 0), partial))
    same = len(before.generations) == 1 and old.equals(new) and before.identity_splits == reading.identity_splits
    if not same:
        raise FormatError(
            f"{prepared} already holds another index ({before.name}, {before.num_frames:,} frames, fingerprint "
            f"{before.fingerprint})",
            "the same dataset with the same options, or an empty folder",
            "choose another folder; or add --append if these are further tracklets",
        )


class _Writer:
    """Streams tracklets into the tables of one generation, in a folder that is not yet part of the dataset."""

    def __init__(
        self, prepared: Path, reading: Reading, before: Manifest, frames_per_shard: int, bytes_per_shard: int
    ) -> None:
        self._reading, self._before = reading, before
        self._limits = frames_per_shard, bytes_per_shard
        self._root = reading.root.absolute()
        self._number, self._first_shard = len(before.generations), before.num_shards
        self._first_id = len(before.tracklets)
        self.partial = prepared / "manifest" / f".{self._number:05d}.partial"
        real = os.path.realpath(self._root)
        self._same_root = [one for one in before.generations if os.path.realpath(one.root) == real]
        self._there = _known_tracklets(prepared, before)
        self._columns: dict[str, list[Any]] = {name: [] for name in TRACKLETS.names}
        self._shards: dict[str, list[Any]] = {name: [] for name in SHARDS.names}
        self._filling: list[SourceTracklet] = []
        self._filled = (0, 0)  # frames and bytes
        self._junk = {"tracklets": 0, "frames": 0}
        self._num_there = 0  # tracklets that an earlier generation holds

    def write(self) -> Generation | None:
        """Write the tables; None where all tracklets are there already."""
        (self.partial / "frames").mkdir(parents=True)
        for tracklet in self._reading.tracklets:
            self._add(tracklet)
        if not self._columns["tracklet_id"]:
            if self._num_there:
                return None
            raise SourceError(
                f"no tracklets in {self._root}", f"the layout of {self._reading.name}", "docs/datasets.md shows it"
            )
        self._close_shard()
        for noun in ("identity", "camera"):
            names = self._columns[f"{noun}_name"]
            known = {getattr(one, f"{noun}_name"): getattr(one, noun) for one in self._before.tracklets}
            numbers = number_names(zip(self._columns[noun], names, strict=True), noun, known)
            self._columns[noun] = [numbers[name] for name in names]
        if self._reading.identity_splits:
            first = self._reading.identity_splits[0]
            pairs = zip(self._columns["identity"], self._columns["camera"], strict=True)
            self._columns["split"] = [split_of(first, identity, camera, 0) for identity, camera in pairs]
        hashes = [
            _write_table(self.partial / f"{name}.parquet", pa.table(columns, schema=schema))
            for name, columns, schema in (("tracklets", self._columns, TRACKLETS), ("shards", self._shards, SHARDS))
        ]
        sync_folder(self.partial / "frames")
        sync_folder(self.partial)
        return Generation(
            number=self._number,
            root=str(self._root),
            first_shard=self._first_shard,
            num_shards=len(self._shards["shard"]),
            num_tracklets=len(self._columns["tracklet_id"]),
            num_frames=sum(self._shards["num_frames"]),
            tracklets_sha256=hashes[0],
            shards_sha256=hashes[1],
            notes=self._notes(),
        )

    def _add(self, tracklet: SourceTracklet) -> None:
        if is_junk(tracklet.identity):
            self._junk["tracklets"] += 1
            self._junk["frames"] += tracklet.num_frames
            return
        digest = self._check(tracklet)
        if self._is_there(tracklet, digest):
            self._num_there += 1
            return
        size = _estimate_bytes(self._root, tracklet.frame_paths)
        frames, filled = self._filled[0] + tracklet.num_frames, self._filled[1] + size
        if self._filling and (frames > self._limits[0] or filled > self._limits[1]):
            self._close_shard()
            frames, filled = tracklet.num_frames, size
        self._filled = frames, filled
        self._filling.append(tracklet)
        row = {
            "tracklet_id": self._first_id + len(self._columns["tracklet_id"]),
            "split": tracklet.split,
            "identity": tracklet.identity,
            "camera": tracklet.camera,
            "shard": self._first_shard + len(self._shards["shard"]),
            "num_frames": tracklet.num_frames,
            "name": tracklet.name,
            "identity_name": _name(tracklet, "identity"),
            "camera_name": _name(tracklet, "camera"),
            "frames_hash": digest,
        }
        for name, value in row.items():
            self._columns[name].append(value)

    def _is_there(self, tracklet: SourceTracklet, digest: str) -> bool:
        """Whether an earlier generation holds a tracklet; refuses other frames and a root that is gone."""
        names = tracklet.split, _name(tracklet, "identity"), _name(tracklet, "camera"), tracklet.name
        known = self._there.get(names, ())
        label = tracklet.name or tracklet.frame_paths[0]
        here = [there for root, there in known if any(root == one.root for one in self._same_root)]
        if digest in here:
            return True
        if here and tracklet.name:
            raise SourceError(
                f"tracklet {label} has other frames than when it was indexed",
                "new tracklets; those there are stay as they were",
                "give the new frames a tracklet of their own, or index everything into a new folder",
            )
        gone = next((root for root, there in known if there == digest and not Path(root).is_dir()), None)
        if gone is not None:
            raise SourceError(
                f"tracklet {label} is there already with the same frames, under {gone}, which is gone",
                "tracklets of other names, or the folder that was indexed",
                f"if the dataset has moved, link {gone} to {self._root} for this run; else rename the tracklets",
            )
        return False

    def _check(self, tracklet: SourceTracklet) -> str:
        """Refuse what makes no sense; returns the hash of names, paths, numbers and times."""
        what = f"tracklet {tracklet.name!r} of identity {tracklet.identity!r}, camera {tracklet.camera!r}"
        paths = tracklet.frame_paths
        if not paths:
            raise SourceError(f"{what} has no frames")
        if tracklet.split not in SPLITS:
            raise SourceError(f"{what} has split {tracklet.split!r}", "one of " + ", ".join(SPLITS))
        joined = "\n" + "\n".join(paths) + "\n"
        for path in paths if any(text in joined for text in UNUSUAL) else ():
            if not path.strip("./") or path[0] == "/" or "\0" in path or ".." in path.split("/"):
                raise SourceError(f"{what} has a frame {path!r}, which leaves {self._root}", "a path below the root")
        names = (tracklet.name, _name(tracklet, "identity"), _name(tracklet, "camera"))
        try:
            digest = hashlib.sha256("\0".join([*names, *paths]).encode())
        except UnicodeEncodeError as error:
            raise SourceError(f"{what} or a frame of it has a name that is not UTF-8", "UTF-8", "rename it") from error
        if tracklet.frame_numbers is not None:
            numbers = np.asarray(tracklet.frame_numbers, np.int64)
            if len(numbers) != len(paths) or (numbers[1:] <= numbers[:-1]).any():
                raise SourceError(f"{what} has frame numbers that do not rise, or not one for each frame")
            digest.update(b"numbers" + numbers.tobytes())
        if tracklet.times is not None:
            times = np.asarray(tracklet.times, np.float64)
            if len(times) != len(paths) or np.isinf(times).any():
                raise SourceError(f"{what} has an infinite time, or not one for each frame")
            digest.update(b"times" + times.tobytes())
        return digest.hexdigest()[:16]

    def _close_shard(self) -> None:
        filled = self._filling
        lengths = [tracklet.num_frames for tracklet in filled]
        numbers = [range(one.num_frames) if one.frame_numbers is None else one.frame_numbers for one in filled]
        times = [np.full(one.num_frames, np.nan) if one.times is None else one.times for one in filled]
        first = self._first_id + len(self._columns["tracklet_id"]) - len(filled)
        columns = {
            "tracklet_id": np.repeat(np.arange(first, first + len(filled)), lengths),
            "frame_index": np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
            "frame_number": np.concatenate([np.asarray(values, np.int64) for values in numbers]),
            "time": np.concatenate([np.asarray(values, np.float64) for values in times]),
            "path": [path for tracklet in filled for path in tracklet.frame_paths],
        }
        shard = self._first_shard + len(self._shards["shard"])
        digest = _write_table(frames_path(self.partial, shard), pa.table(columns, schema=FRAMES))
        for name, value in zip(SHARDS.names, (shard, len(filled), sum(lengths), digest), strict=True):
            self._shards[name].append(value)
        self._filling, self._filled = [], (0, 0)

    def _notes(self) -> dict[str, Any]:
        notes = dict(self._reading.notes)
        pairs = zip(self._columns["identity"], self._columns["num_frames"], strict=True)
        distractors = [frames for identity, frames in pairs if identity == 0]
        if distractors:
            notes["distractors"] = {"tracklets": len(distractors), "frames": sum(distractors)}
        junk = self._junk
        for generation in self._same_root:  # less what was counted then
            junk = {noun: number - generation.notes.get("junk", {noun: 0})[noun] for noun, number in junk.items()}
        return notes | ({"junk": junk} if junk["tracklets"] > 0 else {})


def is_junk(identity: int | str) -> bool:
    """Whether an identity, or how a source writes it, is negative: crops that show no usable person."""
    return (isinstance(identity, int) or INTEGER.fullmatch(identity) is not None) and int(identity) < 0


def _name(tracklet: SourceTracklet, noun: str) -> str:
    return getattr(tracklet, f"{noun}_name") or str(getattr(tracklet, noun))


def _estimate_bytes(root: Path, paths: Sequence[str]) -> int:
    """Frames times the largest of three of them."""
    sizes = []
    for path in {paths[0], paths[len(paths) // 2], paths[-1]}:
        try:
            sizes.append(os.stat(f"{root}/{path}").st_size)  # noqa: PTH116 (three times as fast)
        except OSError:  # whoever reads the frame says so
            sizes.append(0)
    return max(sizes) * len(paths)


def _known_tracklets(prepared: Path, before: Manifest) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """Split, identity, camera and name -> root and hash of frames, of the tracklets that are there."""
    there: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for generation in before.generations:
        names = ("split", "identity_name", "camera_name", "name", "frames_hash")
        for *key, digest in zip(*read_generation(prepared, generation, names), strict=True):
            there.setdefault(tuple(key), []).append((generation.root, digest))
    return there


def _write_table(path: Path, table: pa.Table) -> str:
    """Write and sync; returns the SHA-256 of the bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue()
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()
