"""The tables that every stage works from: tracklets, shards, and the frames of each shard. docs/data-format.md."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .commit import exclusive, explain_full_disk, fingerprint, read_json, sync_folder, write_json
from .errors import FormatError, SettingsError, SourceError, SurroundingsError
from .records import SPLITS, SourceFrames, Tracklet

FORMAT_VERSION = 2
INTEGER = re.compile(r"-?\d{1,9}")  # longer ones, such as ticket numbers, are names: cameras are int32
UNUSUAL = ("\n/", "\n.", "\n\n", "..", "\0")  # of paths between newlines: these are looked at one by one
GENERATION_FOLDER = re.compile(r"\d{5}|\.\d{5}\.partial")
ADDED_UP = ("junk", "distractors")  # notes that each generation states of itself alone
FRAMES_PER_SHARD = 4096
BYTES_PER_SHARD = 256 << 20  # of encoded images, which the build of a shard holds in memory once

TRACKLETS = pa.schema(
    [
        ("tracklet_id", pa.int64()),
        ("split", pa.string()),
        ("identity", pa.int64()),
        ("camera", pa.int32()),
        ("shard", pa.int32()),
        ("num_frames", pa.int32()),
        ("name", pa.string()),
        ("identity_name", pa.string()),
        ("camera_name", pa.string()),
        ("frames_hash", pa.string()),  # of paths, numbers and times: tells an append what is there already
    ]
)
SHARDS = pa.schema(
    [("shard", pa.int32()), ("num_tracklets", pa.int32()), ("num_frames", pa.int64()), ("sha256", pa.string())]
)
FRAMES = pa.schema(
    [
        ("tracklet_id", pa.int64()),
        ("frame_index", pa.int32()),
        ("frame_number", pa.int64()),
        ("time", pa.float64()),
        ("path", pa.string()),
    ]
)


@dataclass(frozen=True)
class SourceTracklet:
    """What a dataset reader finds, before numbers and shards are given; F frames.

    Attributes:
        split: "train", "query" or "gallery".
        identity: number of the person, or a name to be numbered (see number_names). Negative means junk, which is
            left out and counted; 0 means a distractor.
        camera: likewise.
        frame_paths: (F,) image files relative to the root, in time order, "/" between folders.
        frame_numbers: (F,) rising frame numbers of the recording; None: unknown.
        times: (F,) seconds; None: unknown.
        name: of the tracklet in the source.
        identity_name, camera_name: where identity and camera are numbers: how the source writes them.
    """

    split: str
    identity: int | str
    camera: int | str
    frame_paths: Sequence[str]
    frame_numbers: Sequence[int] | None = None
    times: Sequence[float] | None = None
    name: str = ""
    identity_name: str = ""
    camera_name: str = ""


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
class Reading:
    """The tracklets of a dataset on disk, and what its own tables promise but the disk lacks.

    Attributes:
        name: name of the dataset, such as "mars".
        root: folder that frame paths are relative to.
        tracklets: in the order of the manifest, junk included; read once.
        missing: files and folders that should exist, relative to root; folders end with "/".
        identity_splits: see Manifest.
        notes: counts worth keeping.
    """

    name: str
    root: Path
    tracklets: Iterable[SourceTracklet]
    missing: tuple[str, ...] = ()
    identity_splits: tuple[IdentitySplit, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Generation:
    """What one run of `index` added.

    Attributes:
        number: from 0.
        root: absolute folder that its frame paths are relative to.
        first_shard, num_shards: its shards.
        num_tracklets, num_frames: how many it added.
        tracklets_sha256, shards_sha256: hashes of its tables.
        notes: counts worth keeping, such as left-out junk.
    """

    number: int
    root: str
    first_shard: int
    num_shards: int
    num_tracklets: int
    num_frames: int
    tracklets_sha256: str
    shards_sha256: str
    notes: dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """Tracklets of one dataset, in order of tracklet_id; paths of frames stay on disk (read_frames).

    Attributes:
        name: name of the dataset, such as "mars".
        tracklets: all of them; tracklets[i].tracklet_id == i.
        generations: in order; each has its own root and shards.
        identity_splits: further divisions of the identities; empty where the dataset has one fixed split. The
            `split` of the tracklets is that of identity_splits[0] where there are any.
        fingerprint: hash of everything in it but the roots, which may move; read_manifest has compared it.
    """

    name: str
    tracklets: tuple[Tracklet, ...]
    generations: tuple[Generation, ...] = ()
    identity_splits: tuple[IdentitySplit, ...] = ()
    fingerprint: str = ""

    @property
    def root(self) -> str:
        """The folder of the first generation's frames."""
        return self.generations[0].root if self.generations else ""

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
        tracklets = tuple(replace(t, split=split_of(chosen, t.identity, t.camera, index)) for t in self.tracklets)
        return replace(self, tracklets=tracklets)

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


def split_of(split: IdentitySplit, identity: int, camera: int, index: int) -> str:
    """Where a tracklet belongs under identity_splits[index]."""
    if identity in split.train:
        return "train"
    if identity in split.test:
        return "query" if camera == split.query_camera else "gallery"
    raise FormatError(f"identity {identity} is in neither half of identity split {index}")


def number_names(names: Iterable[str], noun: str, known: dict[str, int] | None = None) -> dict[str, int]:
    """A number for each name: a whole number keeps its value, so that -1 and 0 stay junk and distractors; other text
    gets the next free numbers in sorted order. Known names keep their numbers.

    Args:
        names: as written, repeats allowed.
        noun: "identity" or "camera", for the message.
        known: names that have numbers already.

    Raises:
        SourceError: two names are the same number, such as 1 and 01.
    """
    numbers = dict(known or {})
    name_of = {number: name for name, number in numbers.items()}
    written = {int(name): name for name in numbers if INTEGER.fullmatch(name)}
    text = []
    for name in sorted(set(names) - set(numbers)):
        if INTEGER.fullmatch(name):
            other = written.setdefault(int(name), name)
            if other != name:
                raise SourceError(
                    f"{noun} {other!r} and {noun} {name!r} are the same number", "one way of writing it", "rename one"
                )
            if int(name) not in name_of:
                numbers[name] = int(name)
                name_of[int(name)] = name
                continue
        text.append(name)  # a number too, if an earlier generation gave it to a text
    following = max([0, *name_of]) + 1
    return numbers | {name: following + place for place, name in enumerate(text)}


def dataset_path(prepared: Path) -> Path:
    return prepared / "dataset.json"


def _generation_folder(prepared: Path, number: int) -> Path:
    return prepared / "manifest" / f"{number:05d}"


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

    Args:
        prepared: the folder.
        reading: what was found; memory holds one shard's paths and one row per tracklet.
        frames_per_shard, bytes_per_shard: limits; bytes are estimated from three frames of each tracklet.
        append: add a generation: tracklets that are there already are passed over, known names keep their numbers.

    Returns:
        The whole dataset's manifest.

    Raises:
        SourceError: no tracklet, a tracklet without frames, an unknown split, a path that leaves the root, or a
            tracklet that changed since it was indexed.
        FormatError: the folder already holds another index, whose keypoints and shards would become wrong.
        SettingsError: another run is at work on `prepared`.
        SurroundingsError: the folder cannot be made.
    """
    if frames_per_shard < 1 or bytes_per_shard < 1:
        raise SettingsError(f"{frames_per_shard} frames and {bytes_per_shard} bytes per shard", "at least 1")
    try:
        prepared.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SurroundingsError(
            f"{prepared} cannot be made ({error.strerror})", "a folder to write to", "choose another one"
        ) from error
    with exclusive(prepared):
        there = dataset_path(prepared).exists()
        if append and not there:
            raise FormatError(f"{prepared} holds no index to append to", "", "leave --append out the first time")
        before = read_manifest(prepared) if there else None
        if append and before is not None and (before.identity_splits or reading.identity_splits):
            raise SettingsError(f"--append with {before.name}, whose identity splits are fixed", "a dataset without")
        if (
            append
            and before is not None
            and reading.name.startswith("synthetic-") != before.name.startswith("synthetic-")
        ):
            raise SettingsError(f"--append of {reading.name} to {before.name}", "synthetic people among themselves")
        info = read_json(dataset_path(prepared)) if there else {}
        counted = {f"{one['number']:05d}" for one in info.get("generations", [])}
        for folder in (prepared / "manifest").glob("*"):
            if GENERATION_FOLDER.fullmatch(folder.name) and folder.name not in counted and not folder.is_symlink():
                shutil.rmtree(folder)  # of a run that was killed: the lock says that it is over
        writer = _Writer(prepared, reading, before if append else None, frames_per_shard, bytes_per_shard)
        try:
            with explain_full_disk(writer.partial):
                generation = writer.write()
            return _commit_generation(prepared, reading, before, info, writer, generation, append=append)
        finally:
            shutil.rmtree(writer.partial, ignore_errors=True)


def _commit_generation(
    prepared: Path,
    reading: Reading,
    before: Manifest | None,
    info: dict[str, Any],
    writer: _Writer,
    generation: Generation | None,
    *,
    append: bool,
) -> Manifest:
    """Move the tables into place, then write dataset.json: from then on they count."""
    if before is not None and not append:
        same = before.identity_splits == reading.identity_splits and _same_tables(prepared, writer.partial)
        if generation is None or not same:
            raise FormatError(
                f"{prepared} already holds another index ({before.name}, {before.num_frames:,} frames, fingerprint "
                f"{before.fingerprint})",
                "the same dataset with the same options, or an empty folder",
                "choose another folder; or add --append if these are further tracklets",
            )
        if before.root != str(reading.root.absolute()):
            info["generations"][0]["root"] = str(reading.root.absolute())
            write_json(dataset_path(prepared), info)
        return read_manifest(prepared)
    if generation is None:  # nothing new to append
        assert before is not None
        return before
    writer.partial.rename(_generation_folder(prepared, generation.number))
    sync_folder(prepared / "manifest")
    info = info or {
        "format_version": FORMAT_VERSION,
        "name": reading.name,
        "identity_splits": [split.__dict__ for split in reading.identity_splits],
        "generations": [],
    }
    info["generations"].append(generation.__dict__)
    write_json(dataset_path(prepared), info)
    return read_manifest(prepared)


def _same_tables(prepared: Path, partial: Path) -> bool:
    """Whether the dataset is this one generation; values count, not the bytes that a version of Parquet makes."""
    info = read_json(dataset_path(prepared))
    if len(info["generations"]) > 1:
        return False
    old, new = (pq.read_table(folder / "tracklets.parquet") for folder in (_generation_folder(prepared, 0), partial))
    return old.equals(new)  # their frames_hash columns speak for the frames


class _Writer:
    """Streams tracklets into the tables of one generation, in a folder that is not yet part of the dataset."""

    def __init__(
        self, prepared: Path, reading: Reading, before: Manifest | None, frames_per_shard: int, bytes_per_shard: int
    ) -> None:
        self._reading, self._before = reading, before
        self._limits = frames_per_shard, bytes_per_shard
        self._root = reading.root.absolute()
        self.number = len(before.generations) if before else 0
        self._first_shard = before.num_shards if before else 0
        self._next_id = self._first_id = len(before.tracklets) if before else 0
        self.partial = prepared / "manifest" / f".{self.number:05d}.partial"
        real = os.path.realpath(self._root)
        self._same_root = [one for one in before.generations if os.path.realpath(one.root) == real] if before else []
        self._there = _known_tracklets(prepared, before) if before else {}
        self._columns: dict[str, list[Any]] = {name: [] for name in TRACKLETS.names}
        self._shards: list[tuple[int, int, str]] = []  # tracklets, frames, hash
        self._filling: list[tuple[int, SourceTracklet]] = []
        self._filled = (0, 0)  # frames and bytes
        self._left_out = {"junk": [0, 0], "already_indexed": [0, 0]}  # tracklets and frames

    def write(self) -> Generation | None:
        """Write the tables; None where all tracklets are there already."""
        (self.partial / "frames").mkdir(parents=True)
        for tracklet in self._reading.tracklets:
            self._add(tracklet)
        if self._next_id == self._first_id:
            if self._left_out["already_indexed"][0]:
                return None
            raise SourceError(
                f"no tracklets in {self._root}", f"the layout of {self._reading.name}", "docs/datasets.md shows it"
            )
        self._close_shard()
        self._number()
        tracklets = _write_table(self.partial / "tracklets.parquet", pa.table(self._columns, schema=TRACKLETS))
        counts = list(zip(*self._shards, strict=True))
        numbers = range(self._first_shard, self._first_shard + len(self._shards))
        shards = _write_table(
            self.partial / "shards.parquet",
            pa.table(dict(zip(SHARDS.names, [list(numbers), *counts], strict=True)), schema=SHARDS),
        )
        sync_folder(self.partial / "frames")
        sync_folder(self.partial)
        return Generation(
            number=self.number,
            root=str(self._root),
            first_shard=self._first_shard,
            num_shards=len(self._shards),
            num_tracklets=self._next_id - self._first_id,
            num_frames=sum(count for _, count, _ in self._shards),
            tracklets_sha256=tracklets,
            shards_sha256=shards,
            notes=self._notes(),
        )

    def _add(self, tracklet: SourceTracklet) -> None:
        if is_junk(tracklet.identity):
            self._leave_out("junk", tracklet)
            return
        digest = self._check(tracklet)
        if self._is_there(tracklet, digest):
            self._leave_out("already_indexed", tracklet)
            return
        size = _estimate_bytes(self._root, tracklet.frame_paths)
        frames, filled = self._filled[0] + len(tracklet.frame_paths), self._filled[1] + size
        if self._filling and (frames > self._limits[0] or filled > self._limits[1]):
            self._close_shard()
            frames, filled = len(tracklet.frame_paths), size
        self._filled = frames, filled
        row = {
            "tracklet_id": self._next_id,
            "split": tracklet.split,
            "identity": tracklet.identity,
            "camera": tracklet.camera,
            "shard": self._first_shard + len(self._shards),
            "num_frames": len(tracklet.frame_paths),
            "name": tracklet.name,
            "identity_name": _name(tracklet, "identity"),
            "camera_name": _name(tracklet, "camera"),
            "frames_hash": digest,
        }
        for name, value in row.items():
            self._columns[name].append(value)
        self._filling.append((self._next_id, tracklet))
        self._next_id += 1

    def _is_there(self, tracklet: SourceTracklet, digest: str) -> bool:
        """Whether an earlier generation holds a tracklet.

        Raises:
            SourceError: it holds this one with other frames; or perhaps this one, under a root that is gone.
        """
        known = self._there.get(_key(tracklet), ())
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
        """Refuse what makes no sense; returns the hash of the frames."""
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
            encoded = "\0".join([*names, *paths]).encode()
        except UnicodeEncodeError as error:
            raise SourceError(f"{what} or a frame of it has a name that is not UTF-8", "UTF-8", "rename it") from error
        digest = hashlib.sha256(encoded)
        for values in (tracklet.frame_numbers, tracklet.times):
            if values is not None and len(values) != len(paths):
                raise SourceError(f"{what} has {len(values)} numbers or times for {len(paths)} frames", "one for each")
        if tracklet.frame_numbers is not None:
            numbers = np.asarray(tracklet.frame_numbers, np.int64)
            fallen = np.flatnonzero(numbers[1:] <= numbers[:-1])
            if fallen.size:
                before, after = numbers[fallen[0] : fallen[0] + 2].tolist()
                raise SourceError(
                    f"{what} has frame {after} after frame {before}", "numbers that rise within a tracklet"
                )
            digest.update(b"numbers" + numbers.tobytes())
        if tracklet.times is not None:
            times = np.asarray(tracklet.times, np.float64)
            if np.isinf(times).any():
                raise SourceError(f"{what} has an infinite time", "seconds")
            digest.update(b"times" + times.tobytes())
        return digest.hexdigest()[:16]

    def _leave_out(self, why: str, tracklet: SourceTracklet) -> None:
        self._left_out[why][0] += 1
        self._left_out[why][1] += len(tracklet.frame_paths)

    def _close_shard(self) -> None:
        tracklets = [tracklet for _, tracklet in self._filling]
        lengths = [len(tracklet.frame_paths) for tracklet in tracklets]
        numbers = [t.frame_numbers if t.frame_numbers is not None else range(len(t.frame_paths)) for t in tracklets]
        times = [t.times if t.times is not None else np.full(len(t.frame_paths), np.nan) for t in tracklets]
        columns = {
            "tracklet_id": np.repeat([tracklet_id for tracklet_id, _ in self._filling], lengths),
            "frame_index": np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
            "frame_number": np.concatenate([np.asarray(values, np.int64) for values in numbers]),
            "time": np.concatenate([np.asarray(values, np.float64) for values in times]),
            "path": [path for tracklet in tracklets for path in tracklet.frame_paths],
        }
        shard = self._first_shard + len(self._shards)
        digest = _write_table(_frames_path(self.partial, shard), pa.table(columns, schema=FRAMES))
        self._shards.append((len(tracklets), sum(lengths), digest))
        self._filling, self._filled = [], (0, 0)

    def _number(self) -> None:
        """Replace identities and cameras that are names by numbers, and set the first identity split."""
        for noun in ("identity", "camera"):
            names = self._columns[f"{noun}_name"]
            before = self._before.tracklets if self._before else ()
            numbers = {getattr(tracklet, f"{noun}_name"): getattr(tracklet, noun) for tracklet in before}
            name_of = {number: name for name, number in numbers.items()}
            for number, name in dict.fromkeys(zip(self._columns[noun], names, strict=True)):
                if isinstance(number, str) or (INTEGER.fullmatch(name) and int(name) == number):
                    continue  # number_names sees to these
                if numbers.setdefault(name, number) != number or name_of.setdefault(number, name) != name:
                    taken = f"number {number} is {noun} {name_of.get(number, name)!r}"
                    raise SourceError(
                        f"{noun} {name!r} has number {numbers[name]} and {number}, and {taken}",
                        "one number for each name",
                        "rename one",
                    )
            numbers = number_names(names, noun, numbers)
            self._columns[noun] = [numbers[name] for name in names]
        if self._reading.identity_splits:
            first = self._reading.identity_splits[0]
            pairs = zip(self._columns["identity"], self._columns["camera"], strict=True)
            self._columns["split"] = [split_of(first, identity, camera, 0) for identity, camera in pairs]

    def _notes(self) -> dict[str, Any]:
        notes = dict(self._reading.notes)
        distractors = [
            frames
            for identity, frames in zip(self._columns["identity"], self._columns["num_frames"], strict=True)
            if identity == 0
        ]
        if distractors:
            notes["distractors"] = {"tracklets": len(distractors), "frames": sum(distractors)}
        for generation in self._same_root:
            for place, noun in enumerate(("tracklets", "frames")):  # junk that was counted then
                self._left_out["junk"][place] -= generation.notes.get("junk", {noun: 0})[noun]
        tracklets, frames = self._left_out["junk"]
        if tracklets > 0:
            notes["junk"] = {"tracklets": tracklets, "frames": frames}
        return notes


def is_junk(identity: int | str) -> bool:
    """Whether an identity, or how a source writes it, is negative: crops that show no usable person."""
    return (isinstance(identity, int) or INTEGER.fullmatch(identity) is not None) and int(identity) < 0


def _name(tracklet: SourceTracklet, noun: str) -> str:
    return getattr(tracklet, f"{noun}_name") or str(getattr(tracklet, noun))


def _key(tracklet: SourceTracklet) -> tuple[str, str, str, str]:
    return tracklet.split, _name(tracklet, "identity"), _name(tracklet, "camera"), tracklet.name


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
        for *key, digest in zip(*_read_generation(prepared, generation, names), strict=True):
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


def _frames_path(folder: Path, shard: int) -> Path:
    return folder / "frames" / f"{shard:05d}.parquet"


def _read_generation(prepared: Path, generation: Generation, columns: Sequence[str]) -> list[list[Any]]:
    path = _generation_folder(prepared, generation.number) / "tracklets.parquet"
    table = _read_table(path, columns, generation.tracklets_sha256)
    return [_values(table[name]) for name in columns]


def read_dataset(prepared: Path) -> dict[str, Any]:
    """The content of dataset.json.

    Raises:
        FormatError: not a prepared dataset, or of another format version.
    """
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


def _generations(info: dict[str, Any]) -> tuple[Generation, ...]:
    return tuple(Generation(**one) for one in info["generations"])


def read_manifest(prepared: Path) -> Manifest:
    """Read the tracklets of all generations; never the frames' paths.

    Raises:
        FormatError: not a prepared dataset, of another format version, or damaged.
    """
    info = read_dataset(prepared)
    generations = _generations(info)
    tracklets: list[Tracklet] = []
    for generation in generations:
        names = [name for name in TRACKLETS.names if name != "frames_hash"]
        tracklets.extend(map(Tracklet, *_read_generation(prepared, generation, names)))
    splits = tuple(
        IdentitySplit(tuple(split["train"]), tuple(split["test"]), split["query_camera"])
        for split in info["identity_splits"]
    )
    tables = [[one.tracklets_sha256, one.shards_sha256] for one in generations]
    return Manifest(
        name=info["name"],
        tracklets=tuple(tracklets),
        generations=generations,
        identity_splits=splits,
        fingerprint=fingerprint([info["name"], tables, info["identity_splits"]]),
    )


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Python values; equal texts are one object."""
    if pa.types.is_string(column.type):
        encoded = column.combine_chunks().dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        return [texts[index] for index in _numbers(encoded.indices).tolist()]
    return _numbers(column).tolist()


def _numbers(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    return np.from_dlpack(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)


@dataclass(frozen=True)
class ShardFrames:
    """The frames of one shard, as its stages read them.

    Attributes:
        shard, generation: numbers.
        root: folder that its paths are relative to.
        sha256: hash of the table of its frames: what keypoints are made from.
        tracklets: in manifest order.
    """

    shard: int
    generation: int
    root: Path
    sha256: str
    tracklets: tuple[SourceFrames, ...]

    @property
    def num_frames(self) -> int:
        return sum(len(tracklet.paths) for tracklet in self.tracklets)


def read_shard_frames(prepared: Path, shard: int) -> ShardFrames:
    """The frames of one shard, without reading any other's.

    Raises:
        FormatError: not a prepared dataset, no such shard, or damaged.
    """
    found = _shard_hashes(prepared, _changed(prepared))
    if shard not in found:
        raise FormatError(f"{prepared} has no shard {shard:05d}", "", "keyreid-prep describe says how many there are")
    generation, digest = found[shard]
    path = _frames_path(_generation_folder(prepared, generation.number), shard)
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
    return {shard: digest for shard, (_, digest) in _shard_hashes(prepared, _changed(prepared)).items()}


def shard_sizes(prepared: Path) -> dict[int, int]:
    """Shard -> frames, of all shards."""
    sizes: dict[int, int] = {}
    for generation in _generations(read_dataset(prepared)):
        table = _read_shards(prepared, generation)
        sizes.update(zip(table["shard"].to_pylist(), table["num_frames"].to_pylist(), strict=True))
    return sizes


def _changed(prepared: Path) -> int:
    """When dataset.json was written last, in ns; 0 where it is missing, which read_dataset says."""
    path = dataset_path(prepared)
    return path.stat().st_mtime_ns if path.is_file() else 0


@lru_cache(maxsize=4)
def _shard_hashes(prepared: Path, changed: int) -> dict[int, tuple[Generation, str]]:
    found: dict[int, tuple[Generation, str]] = {}
    for generation in _generations(read_dataset(prepared)):
        table = _read_shards(prepared, generation)
        pairs = zip(table["shard"].to_pylist(), table["sha256"].to_pylist(), strict=True)
        found.update({shard: (generation, digest) for shard, digest in pairs})
    return found


def _read_shards(prepared: Path, generation: Generation) -> pa.Table:
    path = _generation_folder(prepared, generation.number) / "shards.parquet"
    return _read_table(path, SHARDS.names, generation.shards_sha256)
