"""Own data as folders."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from source_listings import reverse_listings

from keyreid.pipeline.errors import SourceError
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.sources.folder import read
from keyreid.pipeline.sources.folders import natural_key


def make_tree(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


def test_numbers_stay_what_they_are(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        "train/0007/3/walk/f10.jpg",
        "train/0007/3/walk/f2.JPEG",
        "train/0007/3/walk/notes.txt",
        "query/12/1/a/1.png",
        "gallery/12/2/a/1.BMP",
        "gallery/0/2/a/1.jpg",
    )
    reading = read(tmp_path)
    assert [(t.split, t.identity, t.camera, t.frame_paths) for t in reading.tracklets] == [
        ("train", 7, 3, ("train/0007/3/walk/f2.JPEG", "train/0007/3/walk/f10.jpg")),
        ("query", 12, 1, ("query/12/1/a/1.png",)),
        ("gallery", 0, 2, ("gallery/0/2/a/1.jpg",)),
        ("gallery", 12, 2, ("gallery/12/2/a/1.BMP",)),
    ]
    assert reading.notes == {}


def test_order_of_the_file_system_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(
        make_tree(tmp_path, *(f"train/{i}/{c}/t{t}/{f}.jpg" for i in "ab" for c in "12" for t in "34" for f in "56"))
    )
    reverse_listings(monkeypatch)
    assert read(tmp_path) == expected


def test_text_is_numbered_the_same_in_all_splits(tmp_path: Path) -> None:
    make_tree(tmp_path, "train/cleo/door/t/1.jpg", "query/bo/door/t/1.jpg", "gallery/bo/10/t/1.jpg")
    reading = read(tmp_path)
    assert [(t.split, t.identity, t.camera) for t in reading.tracklets] == [
        ("train", 2, 2),
        ("query", 1, 2),
        ("gallery", 1, 1),
    ]
    assert reading.notes == {"identity_numbers": {"bo": 1, "cleo": 2}, "camera_numbers": {"10": 1, "door": 2}}


@pytest.mark.parametrize(
    ("present", "absent"), [(["train"], ["query", "gallery"]), (["query", "gallery"], ["train"])], ids=["train", "test"]
)
def test_absent_splits_are_noted(tmp_path: Path, present: list[str], absent: list[str]) -> None:
    make_tree(tmp_path, *(f"{split}/1/1/t/1.jpg" for split in present))
    manifest = read_source("folder", tmp_path)
    assert manifest.notes["absent_splits"] == absent
    assert manifest.name == tmp_path.name


def test_other_folders_are_named_in_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_tree(tmp_path, "train/1/1/t/1.jpg", "Query/1/2/t/1.jpg", ".git/x/y/z/1.jpg")
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path).notes["ignored_folders"] == ["Query"]
    assert "were not read: Query" in caplog.text


def test_junk_is_left_out_and_counted(tmp_path: Path) -> None:
    reading = read(make_tree(tmp_path, "gallery/-1/1/t/1.jpg", "gallery/-1/1/t/2.jpg", "gallery/0/1/t/1.jpg"))
    assert [t.identity for t in reading.tracklets] == [0]
    assert reading.notes["junk"] == {"tracklets": 1, "frames": 2}


def test_an_empty_tracklet_folder_is_refused_unless_allowed(tmp_path: Path) -> None:
    make_tree(tmp_path, "train/1/1/t/1.jpg", "train/2/1/t/readme.txt")
    with pytest.raises(SourceError, match=r"missing: train/2/1/t/ \(no frames in it\)"):
        read_source("folder", tmp_path)
    manifest = read_source("folder", tmp_path, allow_incomplete=True)
    assert [t.identity for t in manifest.tracklets] == [1]
    assert manifest.notes["incomplete"] == ["train/2/1/t/ (no frames in it)"]


def test_a_dataset_name_does_not_bring_its_counts(tmp_path: Path) -> None:
    assert read_source("folder", make_tree(tmp_path / "mars", "train/1/1/t/1.jpg")).name == "mars"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["pictures/1.jpg"], r"has none of the folders train, query and gallery; expected ROOT/train"),
        (["train/1.jpg"], r"train/1.jpg is an image; expected an identity folder"),
        (["train/1/1.jpg"], r"train/1/1.jpg is an image; expected a camera folder"),
        (["train/1/2/1.jpg"], r"train/1/2/1.jpg is an image; expected a tracklet folder"),
        (["train/1/1/t/1.jpg", "query/01/1/t/1.jpg"], r"identity '01' and identity '1' are the same number"),
        (["train/1/c1/t/notes.txt"], r"no tracklets in .*\n  missing: train/1/c1/t/"),
    ],
    ids=["no dataset", "level 1", "level 2", "level 3", "1 and 01", "no frames at all"],
)
def test_bad_input(tmp_path: Path, paths: list[str], message: str) -> None:
    make_tree(tmp_path, *paths)
    with pytest.raises(SourceError, match=message):
        read_source("folder", tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere is not a folder"):
        read(tmp_path / "nowhere")


def test_natural_order() -> None:
    names = ["f10", "f2", "f02", "a", "2", "f2b", "10"]
    assert sorted(names, key=natural_key) == ["2", "10", "a", "f02", "f2", "f2b", "f10"]
