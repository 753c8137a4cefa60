"""The LS-VID reader on a tree of two persons for training and two for testing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from source_listings import reverse_listings

from keyreid.cli.prep import main as prep
from keyreid.pipeline.commit import read_json
from keyreid.pipeline.errors import SourceError
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.manifest import read_manifest
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.sources.ls_vid import QUERY_FILE, read

# (identity, track, camera, frames) of each line; track 1 is the start of track 12's name.
LINES = {
    "train": [(1, "1", 4, 3), (1, "12", 15, 2), (3, "1", 4, 1)],
    "test": [(2, "1", 4, 2), (2, "2", 11, 12), (4, "1", 5, 1), (4, "2", 7, 1)],
}


def make_ls_vid(root: Path, shift: int = 0) -> Path:
    (root / "list_sequence").mkdir(parents=True)
    for half, rows in LINES.items():
        lines = []
        for identity, track, camera, num_frames in rows:
            start = f"tracklet_{half}/{identity:04d}/{identity:04d}_{track}_{camera:02d}"
            lines.append(f"{start} {identity + shift}\n")
            (root / start).parent.mkdir(parents=True, exist_ok=True)
            for frame in range(num_frames):
                (root / f"{start}_{frame + 1:05d}.{'png' if camera == 5 else 'jpg'}").touch()
        (root / f"list_sequence/list_seq_{half}.txt").write_text("".join(lines))
    (root / QUERY_FILE).parent.mkdir(parents=True)
    save([[1.0, 4.0]])(root)
    return root


def save(values: Any, name: str = "query", **options: Any) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        with h5py.File(root / QUERY_FILE, "w", userblock_size=512) as file:
            file.create_dataset(name, data=np.array(values), **options)

    return write


def test_splits_names_and_cameras_on_any_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (make_ls_vid(tmp_path) / "tracklet_train/0001/Thumbs.db").touch()
    reverse_listings(monkeypatch)
    reading = read(tmp_path)
    assert [(t.split, t.identity, t.camera, t.num_frames, t.name) for t in reading.tracklets] == [
        ("train", 1, 4, 3, "tracklet_train/0001/0001_1_04"),
        ("train", 1, 15, 2, "tracklet_train/0001/0001_12_15"),
        ("train", 3, 4, 1, "tracklet_train/0003/0003_1_04"),
        ("query", 2, 4, 2, "tracklet_test/0002/0002_1_04"),
        ("gallery", 2, 11, 12, "tracklet_test/0002/0002_2_11"),
        ("gallery", 4, 5, 1, "tracklet_test/0004/0004_1_05"),
        ("query", 4, 7, 1, "tracklet_test/0004/0004_2_07"),
    ]
    assert [path[-8:-4] for path in reading.tracklets[4].frame_paths] == [f"{n:04d}" for n in range(1, 13)]
    assert not reading.missing


def test_a_person_with_number_0_is_no_distractor(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "p", read(make_ls_vid(tmp_path / "a", shift=-1)))
    assert [(t.identity, t.identity_name) for t in manifest.tracklets[1:4]] == [(1, "0"), (3, "2"), (2, "1")]
    assert not manifest.notes


def test_compressed_queries_are_read_alike(tmp_path: Path) -> None:
    expected = read(make_ls_vid(tmp_path))
    save(np.array([[1], [4]], np.uint16), chunks=(1, 1), compression="gzip", shuffle=True)(tmp_path)
    assert read(tmp_path) == expected


def test_tracklets_without_frames_are_named(tmp_path: Path) -> None:
    shutil.rmtree(make_ls_vid(tmp_path) / "tracklet_test/0004")
    reading = read_source("ls-vid", tmp_path, allow_incomplete=True)
    assert len(reading.tracklets) == 5 and reading.missing[0] == "tracklet_test/0004/0004_1_05_* (no frames)"
    assert reading.notes["incomplete"][0] == "train.tracklets: 3 found, 2,831 expected"


def link_elsewhere(root: Path) -> None:
    with h5py.File(root / QUERY_FILE, "w", userblock_size=512) as file:
        file["query"] = h5py.ExternalLink("/etc/hostname", "query")


def cut(root: Path) -> None:
    path = root / QUERY_FILE
    path.write_bytes(path.read_bytes()[:700])


def add_line(line: str) -> Callable[[Path], Any]:
    def change(root: Path) -> None:
        path = root / "list_sequence/list_seq_train.txt"
        path.write_text(path.read_text() + line + "\n")

    return change


def add_frame(name: str) -> Callable[[Path], Any]:
    return lambda root: (root / "tracklet_train/0001" / name).touch()


BAD_INPUTS = [
    (lambda root: (root / QUERY_FILE).unlink(), r"lacks test/data/info_test.mat; expected the root folder of LS-VID"),
    (lambda root: (root / QUERY_FILE).write_bytes(b"MATLAB 5.0" * 99), r"mat cannot be read \(it does not begin as"),
    (cut, r"info_test.mat cannot be read \(.*; expected a file of MATLAB 7.3 \(HDF5\)"),
    (save([[1.0]], "other"), r"it holds no variable query"),
    (link_elsewhere, r"it holds no variable query"),
    (save([[b"x"]]), r"query is \|S1 of shape \(1, 1\)"),
    (save(np.zeros((1, 0))), r"query is float64 of shape \(1, 0\)"),
    (save([[0.0]]), r"names test tracklet 0; expected 1 to 4"),
    (save([[5]]), r"names test tracklet 5; expected 1 to 4"),
    (save([[1.5]]), r"names test tracklet 1.5"),
    (save([[float("nan")]]), r"names test tracklet nan"),
    (save([[2.0, 2.0]]), r"names a test tracklet twice"),
    (add_line("../../etc/passwd 1"), r"line 4 of .*list_seq_train.txt is '../../etc/passwd 1'"),
    (add_line("tracklet_train/0003/0003_1_04 -1"), r"line 4 of .*list_seq_train.txt"),
    (add_line("tracklet_train/0003/0003_1_04 3"), r"line 4 of .*each tracklet once"),
    (add_frame("0001_1_04_a_1.jpg"), r"a frame tracklet_train/0001/0001_1_04_a_1.jpg; expected a name of four fields"),
    (lambda root: (add_frame("0001_9_07_1.jpg")(root), add_line("tracklet_train/0001/0001 1")(root)),
     r"are of cameras \[4, 7, 15\]; expected one"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), BAD_INPUTS, ids=[message[:40] for _, message in BAD_INPUTS])
def test_bad_input(tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(make_ls_vid(tmp_path))
    with pytest.raises(SourceError, match=message):
        read(tmp_path)


def test_synthetic_tree_is_indexed_by_the_commands(tmp_path: Path) -> None:
    people, prepared = tmp_path / "people", tmp_path / "prepared"
    size = ["--identities", "4", "--cameras", "2", "--frames", "2", "3", "--wardrobe", "shared", "--workers", "1"]
    for arguments in (
        ["synthesize", str(people), "--layout", "ls-vid", *size],
        ["index", "ls-vid", str(people), str(prepared)],
    ):
        result = CliRunner().invoke(prep, arguments)
        assert result.exit_code == 0, result.output
    assert re.match(r"synthetic-ls-vid: 8 train, 4 query, 4 gallery tracklets; ", result.stdout)
    assert read_json(people / "SYNTHETIC.json")["settings"]["wardrobe"] == "shared"
    manifest = read_manifest(prepared)
    assert {t.identity for t in manifest.tracklets} == {1, 2, 3, 4} and "incomplete" not in manifest.notes
    assert {t.camera for t in manifest.split("query")} == {1, 2}
