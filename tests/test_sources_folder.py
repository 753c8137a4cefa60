"""Own data as folders."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from source_listings import reverse_listings

from keyreid.pipeline.errors import SourceError, SurroundingsError
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.sources.folder import read
from keyreid.pipeline.sources.reading import natural_key


def make_tree(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


def test_tracklets_are_what_the_folders_say(tmp_path: Path) -> None:
    frames = ["1.BMP", "2.webp", "3.tif", "4.TIFF"]
    make_tree(
        tmp_path / "mars",
        *(f"train/0007/3/walk/{name}" for name in ("f10.jpg", "f2.JPEG", "notes.txt")),
        *(f"gallery/ann/door/a/{name}" for name in frames),
        *(f"{folder}/1.png" for folder in ("query/ann/1/a", "gallery/0/door/a", "gallery/-1/door/a")),
    )
    reading = read_source("folder", tmp_path / "mars")
    assert [(t.split, t.identity, t.camera, t.name, t.frame_paths) for t in reading.tracklets] == [
        ("train", "0007", "3", "walk", ("train/0007/3/walk/f2.JPEG", "train/0007/3/walk/f10.jpg")),
        ("query", "ann", "1", "a", ("query/ann/1/a/1.png",)),
        ("gallery", "0", "door", "a", ("gallery/0/door/a/1.png",)),
        ("gallery", "-1", "door", "a", ("gallery/-1/door/a/1.png",)),
        ("gallery", "ann", "door", "a", tuple(f"gallery/ann/door/a/{name}" for name in frames)),
    ]
    assert (reading.name, reading.notes) == ("mars", {}), "the name does not bring the counts of MARS"


NUMBERS: list[tuple[str, list[str], tuple[int, ...] | None]] = [
    ("digits", ["f9.jpg", "f10.jpg", "f0500.jpg"], (9, 10, 500)),
    ("of MARS", ["0001C1T0001F003.jpg", "0001C1T0001F007.jpg"], (3, 7)),
    ("the same", ["a1.jpg", "b1.jpg"], None),
    ("twice", ["1.jpg", "1.png"], None),
    ("falling", ["b1.jpg", "a2.jpg"], None),
    ("not all", ["1.jpg", "2.jpg", "x.jpg"], None),
    ("too long", [f"{10**18}.jpg"], None),
]


@pytest.mark.parametrize(("names", "numbers"), [case[1:] for case in NUMBERS], ids=[case[0] for case in NUMBERS])
def test_frame_numbers_are_the_digits_at_the_end_if_they_rise(
    tmp_path: Path, names: list[str], numbers: tuple[int, ...] | None
) -> None:
    (tracklet,) = read(make_tree(tmp_path, *(f"train/1/1/t/{name}" for name in names))).tracklets
    assert tracklet.frame_numbers == numbers


def test_order_of_the_file_system_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(
        make_tree(tmp_path, *(f"train/{i}/{c}/t{t}/{f}.jpg" for i in "ab" for c in "12" for t in "34" for f in "56"))
    )
    reverse_listings(monkeypatch)
    assert read(tmp_path) == expected


def test_other_folders_are_named_in_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_tree(tmp_path, "train/1/1/t/1.jpg", "Query/1/2/t/1.jpg", ".git/x/y/z/1.jpg")
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path).notes["ignored_folders"] == ["Query"]
    assert "were not read: Query" in caplog.text


def test_an_empty_tracklet_folder_is_refused_unless_allowed(tmp_path: Path) -> None:
    make_tree(tmp_path, "train/1/1/t/1.jpg", "train/2/1/t/readme.txt")
    with pytest.raises(SourceError, match=r"missing: train/2/1/t/ \(no frames in it\)"):
        read_source("folder", tmp_path)
    reading = read_source("folder", tmp_path, allow_incomplete=True)
    assert [t.identity for t in reading.tracklets] == ["1"]
    assert reading.notes["incomplete"] == ["train/2/1/t/ (no frames in it)"]


FRAME = "train/1/1/t/2.jpg"
BAD_TREES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("no dataset", lambda root: (root / "train").rename(root / "pictures"), r"has none of the folders train, query"),
    ("level 1", lambda root: make_tree(root, "train/1.jpg"), r"train/1.jpg is an image; expected an identity folder"),
    ("level 2", lambda root: make_tree(root, "train/1/1.jpg"), r"train/1/1.jpg is an image; expected a camera folder"),
    ("level 3", lambda root: make_tree(root, "train/1/1/1.jpg"), r"1/1/1.jpg is an image; expected a tracklet folder"),
    ("no frames", lambda root: (root / "train/1/1/t/1.jpg").unlink(), r"no tracklets in .*\n  missing: train/1/1/t/"),
    ("junk alone", lambda root: (root / "train/1").rename(root / "train/-1"), r"no tracklets in"),
    ("no folder", lambda root: shutil.rmtree(root), r"shop is not a folder"),
    ("a pipe", lambda root: (shutil.rmtree(root), os.mkfifo(root)), r"shop is not a folder"),
    ("a loop", lambda root: (shutil.rmtree(root), root.symlink_to(root)), r"shop is not a folder"),
    ("a pipe within", lambda root: os.mkfifo(root / FRAME), r"2.jpg is a pipe, a device or a broken link; expected"),
    ("a link", lambda root: (root / FRAME).symlink_to("gone"), r"2.jpg is a pipe, a device or a broken link"),
    ("a loop within", lambda root: (root / FRAME).symlink_to("2.jpg"), r"2.jpg is a pipe, a device or a broken link"),
    ("a loop of folders", lambda root: (root / "train/1/1/u").symlink_to(root), r"missing: train/1/1/u/ \(no frames"),
    ("frame", lambda root: make_tree(root, "train/1/1/t/\udcff.jpg"), r"has a name that is not UTF-8"),
    ("name", lambda root: make_tree(root, "train/\udcff/1/t/1.jpg"), r"has a name that is not UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), [case[1:] for case in BAD_TREES], ids=[case[0] for case in BAD_TREES])
def test_bad_input(tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(root := make_tree(tmp_path / "shop", "train/1/1/t/1.jpg"))
    with pytest.raises(SourceError, match=message):
        write_manifest(tmp_path / "p", read_source("folder", root))


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path, "train/1/1/t/1.jpg")

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SurroundingsError, match=r"cannot be listed \(Permission denied\); .*check the disk"):
        read_source("folder", tmp_path, allow_incomplete=True)


def test_natural_order() -> None:
    names = ["f10", "f2", "f02", "a", "2", "f2b", "10", "9" * 5000]
    assert sorted(names, key=natural_key) == ["2", "10", "9" * 5000, "a", "f02", "f2", "f2b", "f10"]
