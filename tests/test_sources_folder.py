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
    make_tree(
        tmp_path,
        "train/0007/3/walk/f10.jpg",
        "train/0007/3/walk/f2.JPEG",
        "train/0007/3/walk/notes.txt",
        "query/ann/1/a/1.png",
        "gallery/ann/door/a/1.BMP",
        "gallery/ann/door/a/2.webp",
        "gallery/ann/door/a/3.tif",
        "gallery/ann/door/a/4.TIFF",
        "gallery/0/door/a/1.jpg",
        "gallery/-1/door/a/1.jpg",
    )
    reading = read(tmp_path)
    assert [(t.split, t.identity, t.camera, t.name, t.frame_paths) for t in reading.tracklets] == [
        ("train", "0007", "3", "walk", ("train/0007/3/walk/f2.JPEG", "train/0007/3/walk/f10.jpg")),
        ("query", "ann", "1", "a", ("query/ann/1/a/1.png",)),
        ("gallery", "0", "door", "a", ("gallery/0/door/a/1.jpg",)),
        ("gallery", "-1", "door", "a", ("gallery/-1/door/a/1.jpg",)),
        (
            "gallery",
            "ann",
            "door",
            "a",
            tuple(f"gallery/ann/door/a/{n}" for n in ("1.BMP", "2.webp", "3.tif", "4.TIFF")),
        ),
    ]
    assert reading.notes == {}


def test_one_name_among_numbers_renumbers_nobody(tmp_path: Path) -> None:
    """Before, junk and distractors became persons 1 and 2 here."""
    make_tree(tmp_path, *(f"gallery/{identity}/{identity}/t/1.jpg" for identity in ("-1", "0", "0007", "ann", "12")))
    made = write_manifest(tmp_path / "p", read_source("folder", tmp_path))
    expected = [("0", 0), ("0007", 7), ("12", 12), ("ann", 13)]
    assert [(t.identity_name, t.identity) for t in made.tracklets] == expected
    assert made.notes["junk"] == made.notes["distractors"] == {"tracklets": 1, "frames": 1}


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["f9.jpg", "f10.jpg", "f0500.jpg"], (9, 10, 500)),
        (["0001C1T0001F003.jpg", "0001C1T0001F007.jpg"], (3, 7)),
        (["a1.jpg", "b1.jpg"], None),
        (["1.jpg", "1.png"], None),
        (["b1.jpg", "a2.jpg"], None),
        (["1.jpg", "2.jpg", "x.jpg"], None),
        ([f"{10**18}.jpg"], None),
    ],
    ids=["digits", "of MARS", "the same", "twice", "falling", "not all", "too long"],
)
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


def test_a_dataset_name_does_not_bring_its_counts(tmp_path: Path) -> None:
    assert read_source("folder", make_tree(tmp_path / "mars", "train/1/1/t/1.jpg")).name == "mars"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["pictures/1.jpg"], r"has none of the folders train, query and gallery; expected ROOT/train"),
        (["train/1.jpg"], r"train/1.jpg is an image; expected an identity folder"),
        (["train/1/1.jpg"], r"train/1/1.jpg is an image; expected a camera folder"),
        (["train/1/2/1.jpg"], r"train/1/2/1.jpg is an image; expected a tracklet folder"),
        (["train/1/c1/t/notes.txt"], r"no tracklets in .*\n  missing: train/1/c1/t/"),
        (["train/-1/c1/t/1.jpg"], r"no tracklets in"),
    ],
    ids=["no dataset", "level 1", "level 2", "level 3", "no frames at all", "junk alone"],
)
def test_bad_input(tmp_path: Path, paths: list[str], message: str) -> None:
    make_tree(tmp_path, *paths)
    with pytest.raises(SourceError, match=message):
        read_source("folder", tmp_path)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda root: shutil.rmtree(root), SourceError, "shop is not a folder"),
        (lambda root: (shutil.rmtree(root), os.mkfifo(root)), SourceError, "shop is not a folder"),
        (lambda root: (shutil.rmtree(root), root.symlink_to(root)), SourceError, "shop is not a folder"),
        (
            lambda root: os.mkfifo(root / "train/1/1/t/2.jpg"),
            SourceError,
            "2.jpg is a pipe or a device; expected an im",
        ),
        (lambda root: (root / "train/1/1/t/2.jpg").symlink_to("gone"), SourceError, "2.jpg is a link that leads nowhe"),
        (lambda root: (root / "train/1/1/t/2.jpg").symlink_to("2.jpg"), SourceError, "2.jpg is a link that leads nowh"),
        (lambda root: (root / "train/1/1/u").symlink_to(root), SourceError, r"missing: train/1/1/u/ \(no frames in it"),
        (lambda root: make_tree(root, "train/1/1/t/\udcff.jpg"), SourceError, "has a name that is not UTF-8"),
        (lambda root: make_tree(root, "train/\udcff/1/t/1.jpg"), SourceError, "has a name that is not UTF-8"),
    ],
    ids=[
        "no folder",
        "a pipe",
        "a loop",
        "a pipe within",
        "a link",
        "a loop within",
        "a loop of folders",
        "frame",
        "name",
    ],
)
def test_what_is_no_folder_or_file(
    tmp_path: Path, spoil: Callable[[Path], Any], error: type[Exception], message: str
) -> None:
    root = make_tree(tmp_path / "shop", "train/1/1/t/1.jpg")
    spoil(root)
    with pytest.raises(error, match=message):
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
