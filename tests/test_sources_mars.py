"""The MARS reader on a tree of three persons, a distractor and junk."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from source_listings import reverse_listings

from keyreid.pipeline.errors import SourceError
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.sources.mars import read

# (identity, camera, frames) of each row, in the order of the name lists.
TRAIN = [(1, 1, 3), (1, 2, 2), (3, 1, 2)]
TEST = [(-1, 1, 2), (0, 2, 3), (2, 1, 2), (2, 3, 4), (4, 1, 2)]
QUERY = [3]  # 1-based row of TEST: identity 2 under camera 1


def make_mars(root: Path, query: list[int] | None = None) -> Path:
    (root / "info").mkdir(parents=True)
    for half, rows in (("train", TRAIN), ("test", TEST)):
        names: list[str] = []
        table = []
        for track, (identity, camera, num_frames) in enumerate(rows, start=1):
            person = "00-1" if identity == -1 else f"{identity:04d}"
            table.append((len(names) + 1, len(names) + num_frames, identity, camera))
            names += [f"{person}C{camera}T{track:04d}F{frame:03d}.jpg" for frame in range(1, num_frames + 1)]
        (root / f"info/{half}_name.txt").write_text("\n".join(names) + "\n")
        savemat(root / f"info/tracks_{half}_info.mat", {f"track_{half}_info": np.array(table, dtype=np.int32)})
        for name in names:
            path = root / f"bbox_{half}" / name[:4] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    savemat(root / "info/query_IDX.mat", {"query_IDX": np.array([query or QUERY], dtype=np.uint16)})
    return root


def rewrite(root: Path, half: str, change: Callable[[np.ndarray], Any]) -> None:
    """Change the table of a half in place."""
    path, key = root / f"info/tracks_{half}_info.mat", f"track_{half}_info"
    table = loadmat(path)[key]
    change(table)
    savemat(path, {key: table})


def test_splits_names_and_numbers(tmp_path: Path) -> None:
    reading = read(make_mars(tmp_path))
    found = [(t.split, t.identity, t.identity_name, t.camera, t.name, t.frame_numbers) for t in reading.tracklets]
    assert found == [
        ("train", 1, "0001", 1, "0001C1T0001", (1, 2, 3)),
        ("train", 1, "0001", 2, "0001C2T0002", (1, 2)),
        ("train", 3, "0003", 1, "0003C1T0003", (1, 2)),
        ("gallery", -1, "00-1", 1, "00-1C1T0001", (1, 2)),
        ("gallery", 0, "0000", 2, "0000C2T0002", (1, 2, 3)),
        ("query", 2, "0002", 1, "0002C1T0003", (1, 2)),
        ("gallery", 2, "0002", 3, "0002C3T0004", (1, 2, 3, 4)),
        ("gallery", 4, "0004", 1, "0004C1T0005", (1, 2)),
    ]
    assert reading.tracklets[1].frame_paths == (
        "bbox_train/0001/0001C2T0002F001.jpg",
        "bbox_train/0001/0001C2T0002F002.jpg",
    )
    assert not reading.missing
    made = write_manifest(tmp_path / "p", reading)
    assert made.notes == {"junk": {"tracklets": 1, "frames": 2}, "distractors": {"tracklets": 1, "frames": 3}}
    assert [(t.identity, t.identity_name, t.camera_name) for t in made.tracklets[2:4]] == [
        (3, "0003", "1"),
        (0, "0000", "2"),
    ]


def test_compressed_tables_without_junk_images_on_any_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read(make_mars(tmp_path))
    for path in (tmp_path / "info").glob("*.mat"):
        savemat(path, {"other": np.array(["x"], object), **loadmat(path)}, do_compression=True)
    shutil.rmtree(tmp_path / "bbox_test/00-1")
    reverse_listings(monkeypatch)
    assert read(tmp_path) == expected


def test_frames_are_sorted_by_number(tmp_path: Path) -> None:
    make_mars(tmp_path)
    names_path = tmp_path / "info/train_name.txt"
    lines = names_path.read_text().split()
    names_path.write_text("\n".join([lines[2], lines[0], lines[1], *lines[3:]]))
    tracklet = read(tmp_path).tracklets[0]
    assert [path[-8:-4] for path in tracklet.frame_paths] == ["F001", "F002", "F003"]
    assert tracklet.frame_numbers == (1, 2, 3)


def set_cell(half: str, row: int, column: int, value: int) -> Callable[[Path], None]:
    return lambda root: rewrite(root, half, lambda table: table.__setitem__((row, column), value))


def save(half: str, **variables: Any) -> Callable[[Path], None]:
    return lambda root: savemat(root / f"info/tracks_{half}_info.mat", variables)


def query(value: Any, **options: Any) -> Callable[[Path], None]:
    return lambda root: savemat(root / "info/query_IDX.mat", {"query_IDX": value}, **options)


def write(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda root: (root / "info" / name).write_bytes(content)


def claim_cells(root: Path) -> None:
    path = root / "info/query_IDX.mat"
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<ii", 1, 1), 128)  # the shape
    content[place + 4 : place + 8] = struct.pack("<i", 2_000_000_000)
    path.write_bytes(content)


def cut_compressed(root: Path) -> None:
    path = root / "info/tracks_test_info.mat"
    savemat(path, loadmat(path), do_compression=True)
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def make_pipe(root: Path) -> None:
    (root / "info/train_name.txt").unlink()
    os.mkfifo(root / "info/train_name.txt")


def nest(root: Path) -> None:
    inner = root.rename(root.parent / "inner")
    root.mkdir()
    inner.rename(root / "MARS")


BAD_INPUTS = [
    (lambda root: (root / "info/query_IDX.mat").unlink(), r"lacks info/query_IDX.mat; expected the root folder"),
    (make_pipe, r"lacks info/train_name.txt"),
    (write("tracks_train_info.mat", b"x" * 200), r"tracks_train_info.mat cannot be read"),
    (save("train", other=[[1]]), r"holds 'other' and no variable track_train_info"),
    (save("test", track_test_info=[[1, 2, 3]]), r"has 3 columns; expected 4"),
    (query([[1.5]]), r"cannot be read \(query_IDX is float64 of shape \(1, 1\)\); .*a table of whole numbers"),
    (query([[float("inf")]]), r"query_IDX is float64 .*a table of whole numbers"),
    (query([[]]), r"query_IDX is .* of shape \(1, 0\)"),
    (query([[1j]]), r"query_IDX.mat cannot be read \(.*no table of real numbers"),
    (query(np.array([["a"]], object)), r"query_IDX.mat cannot be read \(a matrix of class 1 "),
    (claim_cells, r"query_IDX.mat cannot be read \(shape \[1, 2000000000\], and 2 bytes of"),
    (query([[3]], format="4"), r"query_IDX.mat cannot be read .*expected a file of MATLAB 5 to 7.2"),
    (query(np.zeros((9 << 20, 1)), do_compression=True), r"variables are cut short or of more than 67,108,864 bytes"),
    (cut_compressed, r"tracks_test_info.mat cannot be read \(.*incorrect data check"),
    (write("train_name.txt", b"\xff\xfe"), r"train_name.txt cannot be read \('utf-8'.*expected UTF-8 text"),
    (write("train_name.txt", b"a.jpg\n" * 7), r"'a.jpg' in .*info/train_name.txt; expected"),
    (set_cell("train", 2, 1, 99), r"row 3 of .*tracks_train_info.mat names lines 6 to 99 of train_name.txt; .*1 to 7"),
    (set_cell("train", 0, 0, 5), r"row 1 of .* names lines 5 to 3"),
    (set_cell("train", 1, 2, 3), r"row 2 of .* says identity 3, camera 2 of 0001C2T0002F001.jpg"),
    (query([[6]]), r"query_IDX.mat names test tracklet 6; expected 1 to 5"),
    (query([[3, 3]]), r"names test tracklet 3, which is in it twice"),
    (query([[1]]), r"names test tracklet 1, which is junk"),
    (query([[2]]), r"names test tracklet 2, which is a distractor"),
    (lambda root: shutil.rmtree(root), r"mars is not a folder"),
    (nest, r"did you mean .*MARS\?"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), BAD_INPUTS, ids=[message[:40] for _, message in BAD_INPUTS])
def test_bad_input(tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(make_mars(tmp_path / "mars"))
    with pytest.raises(SourceError, match=message):
        read(tmp_path / "mars")


def test_missing_frames_are_named_and_left_out(tmp_path: Path) -> None:
    make_mars(tmp_path)
    (tmp_path / "bbox_train/0001/0001C1T0001F002.jpg").unlink()
    shutil.rmtree(tmp_path / "bbox_test/0004")
    reading = read(tmp_path)
    assert reading.missing == ("bbox_test/0004/ (2 frames)", "bbox_train/0001/0001C1T0001F002.jpg")
    assert reading.notes["missing_frames"] == 3
    assert [path[-8:-4] for path in reading.tracklets[0].frame_paths] == ["F001", "F003"]
    assert reading.tracklets[0].frame_numbers == (1, 3)
    assert 4 not in {tracklet.identity for tracklet in reading.tracklets}
    shutil.rmtree(tmp_path / "bbox_train")
    assert "bbox_train/ (7 frames)" in read(tmp_path).missing, "named once"


def test_folders_are_listed_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_mars(tmp_path)
    listed: list[str] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or real(path))
    read(tmp_path)
    assert len(listed) == len(set(listed)) == 5  # 0001, 0003; 0000, 0002, 0004


def test_through_read_source(tmp_path: Path) -> None:
    reading = read_source("mars", make_mars(tmp_path), allow_incomplete=True)
    assert reading.notes["incomplete"][0] == "train.tracklets: 3 found, 8,298 expected"
    assert "junk.tracklets: 1 found, 870 expected" in reading.notes["incomplete"]
