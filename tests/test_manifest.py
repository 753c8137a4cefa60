"""The tables of a prepared dataset: round trip, numbers, shards, growing, damage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keyreid.pipeline.errors import FormatError, SettingsError, SourceError
from keyreid.pipeline.index import Reading, SourceTracklet, write_manifest
from keyreid.pipeline.manifest import (
    IdentitySplit,
    Manifest,
    dataset_path,
    read_manifest,
    read_shard_frames,
    shard_inputs,
    shard_sizes,
)

SPLITS = (IdentitySplit((1,), (2,), query_camera=1), IdentitySplit((2,), (1,), query_camera=2))


def source(
    identity: int | str, camera: int | str, frames: int = 2, split: str = "train", **more: Any
) -> SourceTracklet:
    name = f"{identity}-{camera}"
    paths = tuple(f"{split}/{name}/{frame}.jpg" for frame in range(frames))
    return replace(SourceTracklet(split, identity, camera, paths, name=name), **more)


PEOPLE = (source(1, 1), source(1, 2), source(2, 1, split="query"), source(2, 2, split="gallery"))


def reading(root: Path, *tracklets: SourceTracklet, **more: Any) -> Reading:
    return Reading("people", root, tracklets or PEOPLE, **more)


def facts(manifest: Manifest, *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(getattr(tracklet, field) for field in fields) for tracklet in manifest.tracklets]


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    first = source("ann", "door", 3, frame_numbers=(4, 5, 900), times=(0.5, float("nan"), 7.25), name="walk")
    made = write_manifest(tmp_path / "prepared", reading(tmp_path, first, source(7, 2, 1), notes={"times": "seconds"}))
    assert read_manifest(tmp_path / "prepared") == made
    fields = ("tracklet_id", "identity", "identity_name", "camera", "camera_name", "name", "num_frames", "shard")
    assert facts(made, *fields) == [(0, 8, "ann", 3, "door", "walk", 3, 0), (1, 7, "7", 2, "2", "7-2", 1, 0)]
    frames = read_shard_frames(tmp_path / "prepared", 0)
    assert (frames.root, frames.generation, len(frames.paths)) == (tmp_path, 0, 4)
    assert [one.tracklet_id for one in frames.tracklets] == [0, 1]
    assert frames.tracklets[0].paths == first.frame_paths
    np.testing.assert_array_equal(frames.tracklets[0].numbers, [4, 5, 900])
    np.testing.assert_array_equal(frames.tracklets[0].times, [0.5, np.nan, 7.25])
    np.testing.assert_array_equal(frames.tracklets[1].numbers, [0])
    assert shard_inputs(tmp_path / "prepared") == {0: frames.sha256} and shard_sizes(tmp_path / "prepared") == {0: 4}
    assert made.notes == {"times": "seconds"}


def test_shards_hold_whole_tracklets_and_close_before_they_overflow(tmp_path: Path) -> None:
    sources = [source(number, 1, length) for number, length in enumerate([3, 2, 4, 9, 1, 1], start=1)]
    made = write_manifest(tmp_path / "frames", reading(tmp_path, *sources), frames_per_shard=6)
    assert [tracklet.shard for tracklet in made.tracklets] == [0, 0, 1, 2, 3, 3]
    assert made.num_shards == 4 and [tracklet.tracklet_id for tracklet in made.shard(3)] == [4, 5]
    for tracklet, size in zip(sources, (100, 100, 100, 10, 1000, 10), strict=True):
        for path in tracklet.frame_paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(b"x" * size)
    made = write_manifest(tmp_path / "bytes", reading(tmp_path, *sources), bytes_per_shard=500)
    assert [tracklet.shard for tracklet in made.tracklets] == [0, 0, 1, 1, 2, 3]


@pytest.mark.parametrize(
    ("written", "numbers"),
    [
        (["7", "ann", "0", "bo"], [7, 8, 0, 9]),
        ([7, "ann", 0], [7, 8, 0]),
        (["cleo", "bo"], [2, 1]),
        (["1234567890", "3"], [4, 3]),
    ],
    ids=["a name among numbers", "int", "names", "a ticket number"],
)
def test_whole_numbers_stay_and_names_follow(tmp_path: Path, written: list[int | str], numbers: list[int]) -> None:
    made = write_manifest(tmp_path / "p", reading(tmp_path, *(source(one, one, 1) for one in written)))
    assert facts(made, "identity", "camera") == [(number, number) for number in numbers]
    assert facts(made, "identity_name") == [(str(one),) for one in written]


def test_junk_is_left_out_and_counted_and_distractors_are_counted(tmp_path: Path) -> None:
    tracklets = (source("-1", 1, 3), source(-2, 2, 1), source("0", 1, 5), source("ann", 1))
    made = write_manifest(tmp_path / "p", reading(tmp_path, *tracklets))
    assert facts(made, "identity", "identity_name") == [(0, "0"), (1, "ann")]
    assert made.notes == {"junk": {"tracklets": 2, "frames": 4}, "distractors": {"tracklets": 1, "frames": 5}}


def test_identity_splits_divide_the_tracklets(tmp_path: Path) -> None:
    made = write_manifest(tmp_path / "p", reading(tmp_path, identity_splits=SPLITS))
    assert facts(made, "split") == [("train",), ("train",), ("query",), ("gallery",)]
    assert facts(made.with_identity_split(1), "split") == [("gallery",), ("query",), ("train",), ("train",)]
    with pytest.raises(SettingsError, match=r"identity split 2 of people, which has 2; expected 0 to 1"):
        made.with_identity_split(2)
    with pytest.raises(SettingsError, match=r"identity split 1 of people, which has 0; expected no --identity-split"):
        replace(made, identity_splits=()).with_identity_split(1)
    with pytest.raises(FormatError, match="already holds another index"):
        write_manifest(tmp_path / "p", reading(tmp_path, identity_splits=SPLITS[:1]))
    with pytest.raises(SettingsError, match=r"--append with people, whose identity splits are fixed"):
        write_manifest(tmp_path / "p", reading(tmp_path, source(3, 1)), append=True)


def test_writing_the_same_index_again_is_fine_and_another_one_is_refused(tmp_path: Path) -> None:
    prepared, moved = tmp_path / "p", tmp_path / "moved"
    first = write_manifest(prepared, reading(tmp_path))
    before = contents(prepared)
    assert write_manifest(prepared, reading(tmp_path)) == first and contents(prepared) == before
    with pytest.raises(FormatError, match=r"already holds another index .*choose another folder; or add --append"):
        write_manifest(prepared, reading(tmp_path, source(1, 1)))
    with pytest.raises(FormatError, match="already holds another index"):
        write_manifest(prepared, reading(tmp_path, replace(PEOPLE[0], times=(1.0, 2.0)), *PEOPLE[1:]))
    assert contents(prepared) == before
    again = write_manifest(prepared, reading(moved))
    assert again.fingerprint == first.fingerprint
    assert read_shard_frames(prepared, 0).root == moved


BAD = [
    ((SourceTracklet("train", 1, 2, ()),), "identity 1, camera 2 has no frames"),
    ((source(1, 1, split="test"),), "split 'test'; expected one of train, query, gallery"),
    ((source(-1, 1),), "no tracklets in"),
    ((source(1, 1, 1, frame_paths=("/etc/passwd",)),), r"has a frame '/etc/passwd', which leaves .*a path below"),
    ((source(1, 1, 1, frame_paths=("a/../../b.jpg",)),), r"has a frame 'a/../../b.jpg', which leaves"),
    ((source(1, 1, 1, frame_paths=("a\0.jpg",)),), r"which leaves"),
    ((source(1, 1, 1, frame_paths=("\udcff.jpg",)),), r"name that is not UTF-8"),
    ((source("\udcff", 1, 1),), r"name that is not UTF-8"),
    ((source(1, 1, 2, frame_numbers=(1,)),), r"numbers that do not rise, or not one for each frame"),
    ((source(1, 1, 3, frame_numbers=(1, 5, 5)),), r"has frame numbers that do not rise"),
    ((source(1, 1, 1, times=(float("inf"),)),), r"has an infinite time"),
    ((source("1", 1), source("01", 2)), r"identity '01' and identity '1' are the same number"),
    ((source(1, 1, identity_name="ann"), source(2, 2, identity_name="ann")), r"identity 'ann' has number 1 and 2"),
    ((source(1, 1, identity_name="ann"), source(1, 2, identity_name="bo")), r"'bo' has .*number 1 is identity 'ann'"),
]


@pytest.mark.parametrize(("tracklets", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_sources_that_make_no_sense(tmp_path: Path, tracklets: tuple[SourceTracklet, ...], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        write_manifest(tmp_path / "p", reading(tmp_path, *tracklets))
    assert not dataset_path(tmp_path / "p").exists()


def test_a_folder_that_was_not_indexed_or_by_an_older_version(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"holds no index to append to"):
        write_manifest(tmp_path, reading(tmp_path), append=True)
    readers = (read_manifest, shard_inputs, lambda prepared: read_shard_frames(prepared, 0))
    for read in readers:
        with pytest.raises(FormatError, match=r"is not a prepared dataset .*run keyreid-prep index first"):
            read(tmp_path)
    old = {"format_version": 1, "name": "synthetic-mars", "root": "/data/MARS", "identity_splits": []}
    dataset_path(tmp_path).write_text(json.dumps(old))
    message = r"format version 1; expected version 2; .*keyreid-prep index mars /data/MARS NEW_FOLDER, then extract-key"
    for use in (*readers, lambda prepared: write_manifest(prepared, reading(tmp_path))):
        with pytest.raises(FormatError, match=message):
            use(tmp_path)


# Growing.


def grow(prepared: Path, root: Path, *tracklets: SourceTracklet, **more: Any) -> Manifest:
    return write_manifest(prepared, Reading("people", root, tracklets, **more), append=True)


def test_append_adds_a_generation_and_leaves_the_first_one_alone(tmp_path: Path) -> None:
    prepared, root = tmp_path / "p", tmp_path / "day1"
    root.mkdir()
    first = write_manifest(prepared, reading(root, source("ann", "door"), source("-1", "door", 3), source("5", "exit")))
    tables = contents(prepared / "manifest")
    new = (source("bo", "exit"), source("ann", "yard", split="query"), source("0", "door", 1), source("-1", "door", 4))
    made = grow(prepared, tmp_path / "day2", *new)
    assert contents(prepared / "manifest").items() >= tables.items()
    assert made.tracklets[:2] == first.tracklets and made.fingerprint != first.fingerprint
    fields = ("tracklet_id", "shard", "identity", "identity_name", "camera", "camera_name")
    assert facts(made, *fields)[1:] == [
        (1, 0, 5, "5", 2, "exit"),
        (2, 1, 7, "bo", 2, "exit"),
        (3, 1, 6, "ann", 3, "yard"),
        (4, 1, 0, "0", 1, "door"),
    ]
    assert [one.root for one in made.generations] == [str(root), str(tmp_path / "day2")]
    assert read_shard_frames(prepared, 1).generation == 1 and read_shard_frames(prepared, 0).root == root
    assert made.notes == {"junk": {"tracklets": 2, "frames": 7}, "distractors": {"tracklets": 1, "frames": 1}}
    assert read_manifest(prepared) == made


def test_append_from_the_same_root_passes_over_what_is_there(tmp_path: Path) -> None:
    prepared, junk = tmp_path / "p", source(-1, 1)
    first = write_manifest(prepared, reading(tmp_path, *PEOPLE, junk))
    before = contents(prepared)
    assert grow(prepared, tmp_path, *PEOPLE, junk) == first and contents(prepared) == before
    made = grow(prepared, tmp_path, *PEOPLE, junk, source(3, 1))
    assert facts(made, "identity")[4:] == [(3,)]
    assert made.notes["junk"] == {"tracklets": 1, "frames": 2}, "counted once"
    before = contents(prepared)
    changed = replace(PEOPLE[0], frame_paths=(*PEOPLE[0].frame_paths, "more.jpg"))
    with pytest.raises(SourceError, match=r"tracklet 1-1 has other frames than when it was indexed"):
        grow(prepared, tmp_path, changed, source(4, 1))
    with pytest.raises(SettingsError, match="--append of synthetic-people to people"):
        write_manifest(prepared, Reading("synthetic-people", tmp_path, [source(9, 1)]), append=True)
    assert contents(prepared) == before


def test_a_number_that_a_name_was_given_is_not_given_again(tmp_path: Path) -> None:
    """Numbers that are in use stay; the newcomer's name says who it is."""
    write_manifest(tmp_path / "p", reading(tmp_path, source("ann", "door")))
    made = grow(tmp_path / "p", tmp_path, source("1", "1"), source(5, 1))
    assert facts(made, "identity", "identity_name") == [(1, "ann"), (6, "1"), (5, "5")]
    with pytest.raises(SourceError, match="identity '1' and identity '01' are the same number"):
        grow(tmp_path / "p", tmp_path, source("01", "1"))


def test_append_of_a_moved_dataset_does_not_double_it(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    write_manifest(tmp_path / "p", reading(old))
    old.rename(new)
    with pytest.raises(
        SourceError, match=r"under .*old, which is gone; .*if the dataset has moved, link .*old to .*new"
    ):
        grow(tmp_path / "p", new, *PEOPLE, source(3, 1))
    old.symlink_to(new)
    assert len(grow(tmp_path / "p", new, *PEOPLE, source(3, 1)).tracklets) == 5


KILLED = """
import os, signal, sys
from pathlib import Path
from keyreid.pipeline import index as manifest
def stop(*_): os.kill(os.getpid(), signal.SIGKILL)
def tracklets():
    yield manifest.SourceTracklet("train", 8, 1, ("8.jpg",) * 1)
    if sys.argv[2] == "reading": stop()
if sys.argv[2] == "commit": manifest.write_json = stop
manifest.write_manifest(Path(sys.argv[1]), manifest.Reading("people", Path(sys.argv[1]), tracklets()), append=True)
"""


@pytest.mark.parametrize("moment", ["reading", "commit"])
def test_a_killed_append_leaves_the_old_dataset_and_the_next_one_works(tmp_path: Path, moment: str) -> None:
    prepared = tmp_path / "p"
    first = write_manifest(prepared, reading(tmp_path))
    done = subprocess.run([sys.executable, "-c", KILLED, str(prepared), moment], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((prepared / "manifest").iterdir())) == 2
    assert read_manifest(prepared) == first
    made = grow(prepared, tmp_path, source(7, 1))
    assert facts(made, "identity")[4:] == [(7,)]
    assert sorted(path.name for path in (prepared / "manifest").iterdir()) == ["00000", "00001"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is not what was written"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "is missing"),
        (lambda path: (path.unlink(), path.mkdir()), "is missing"),
    ],
    ids=["missing", "cut short", "a pipe", "a folder"],
)
@pytest.mark.parametrize("name", ["tracklets", "shards", "frames/00000"])
def test_a_damaged_table_is_named(tmp_path: Path, name: str, damage: Callable[[Path], Any], message: str) -> None:
    write_manifest(tmp_path / "p", reading(tmp_path))
    damage(tmp_path / f"p/manifest/00000/{name}.parquet")
    with pytest.raises(
        FormatError, match=rf"{name}.parquet {message}; expected SHA-256 .*restore the folder `manifest`"
    ):
        read_manifest(tmp_path / "p"), read_shard_frames(tmp_path / "p", 0)
