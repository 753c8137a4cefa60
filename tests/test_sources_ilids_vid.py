"""The iLIDS-VID reader on six persons whose folder numbers have gaps, as the real ones do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from source_listings import reverse_listings

from keyreid.pipeline.errors import SourceError
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.sources.ilids_vid import MAT_PATH, read

PERSONS = [f"person{number:03d}" for number in (1, 2, 4, 9, 10, 13)]
POSITIONS = np.stack([np.random.default_rng(row).permutation(6) + 1 for row in range(10)])
SEQUENCES = "i-LIDS-VID/sequences"


def make_ilids(root: Path, splits: str = "mat") -> Path:
    for camera in (1, 2):
        for index, person in enumerate(PERSONS):
            folder = root / SEQUENCES / f"cam{camera}" / person
            folder.mkdir(parents=True)
            for frame in range(8, 11 + index % 2):
                (folder / f"cam{camera}_{person}_{frame:05d}.png").write_bytes(b"")
    if splits == "mat":
        (root / MAT_PATH).parent.mkdir()
        savemat(root / MAT_PATH, {"ls_set": POSITIONS.astype(np.uint16)})
    else:
        write_json(root, json_splits())
    return root


def json_splits() -> list[dict[str, list[str]]]:
    """The splits of POSITIONS as torchreid writes them: test persons are the first half of a row."""
    return [
        {"train": [PERSONS[i - 1] for i in sorted(row[3:])], "test": [PERSONS[i - 1] for i in sorted(row[:3])]}
        for row in POSITIONS
    ]


def write_json(root: Path, value: Any) -> None:
    (root / "splits.json").write_text(json.dumps(value))


def test_ten_splits_from_mat_and_json_agree(tmp_path: Path) -> None:
    from_mat = read(make_ilids(tmp_path / "mat", "mat"))
    from_json = read(make_ilids(tmp_path / "json", "json"))
    assert len(from_mat.identity_splits) == 10
    assert from_mat.identity_splits == from_json.identity_splits
    assert from_mat.tracklets == from_json.tracklets
    assert from_mat.notes == {"splits_from": MAT_PATH}
    assert from_json.notes == {"splits_from": "splits.json"}


def test_first_half_of_a_row_is_for_testing_and_mat_goes_before_json(tmp_path: Path) -> None:
    write_json(make_ilids(tmp_path), json_splits()[:1])
    splits, numbers = read(tmp_path).identity_splits, (1, 2, 4, 9, 10, 13)
    assert len(splits) == 10 and splits[0].query_camera == 1
    assert splits[0].test == tuple(sorted(numbers[position - 1] for position in POSITIONS[0, :3]))
    assert splits[0].train == tuple(sorted(numbers[position - 1] for position in POSITIONS[0, 3:]))


def test_manifest_has_the_first_split(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "p", read_source("ilids-vid", make_ilids(tmp_path), allow_incomplete=True))
    assert len(manifest.tracklets) == 12
    assert {t.camera for t in manifest.split("query")} == {1} and {t.camera for t in manifest.split("gallery")} == {2}
    names = [(t.identity, t.identity_name, t.camera, t.camera_name, t.name) for t in manifest.tracklets[4:6]]
    assert names == [(4, "person004", 1, "cam1", "cam1_person004"), (4, "person004", 2, "cam2", "cam2_person004")]
    for index, split in enumerate(manifest.identity_splits):
        chosen = manifest.with_identity_split(index)
        assert {t.identity for t in chosen.split("query")} == set(split.test)
        assert {t.identity for t in chosen.split("train")} == set(split.train)


def test_neither_order_nor_other_files_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(make_ilids(tmp_path))
    assert [t.identity for t in expected.tracklets[::2]] == [1, 2, 4, 9, 10, 13]
    assert expected.tracklets[4].frame_numbers == (8, 9, 10)
    assert [path[-6:-4] for path in expected.tracklets[2].frame_paths] == ["08", "09", "10", "11"]
    for name in ("cam1/.DS_Store", "cam1/person001/._cam1_person001_00008.png", "cam1/person001/Thumbs.db"):
        (tmp_path / SEQUENCES / name).write_bytes(b"")
    reverse_listings(monkeypatch)
    assert read(tmp_path) == expected


@pytest.mark.parametrize("splits", ["mat", "json"])
@pytest.mark.parametrize("empty", [True, False], ids=["no frames", "no folder"])
def test_person_under_one_camera_is_left_out_of_all_splits(tmp_path: Path, splits: str, empty: bool) -> None:
    before = read(make_ilids(tmp_path, splits))
    folder = tmp_path / SEQUENCES / "cam2/person004"
    shutil.rmtree(folder)
    if empty:
        folder.mkdir()
    reading = read(tmp_path)
    assert reading.missing == (f"{SEQUENCES}/cam2/person004/",)
    assert 4 not in {tracklet.identity for tracklet in reading.tracklets}
    assert reading.notes["persons_left_out"] == 1
    for found, full in zip(reading.identity_splits, before.identity_splits, strict=True):
        # The positions after person004 must not shift.
        assert found.train == tuple(number for number in full.train if number != 4)
        assert found.test == tuple(number for number in full.test if number != 4)


def remove_person(root: Path) -> None:
    for camera in (1, 2):
        shutil.rmtree(root / SEQUENCES / f"cam{camera}/person004")


def test_a_person_without_folders_is_named_when_json_names_them(tmp_path: Path) -> None:
    remove_person(make_ilids(tmp_path, "json"))
    assert read(tmp_path).missing == tuple(f"{SEQUENCES}/cam{camera}/person004/" for camera in (1, 2))


def save_positions(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda root: savemat(root / MAT_PATH, {"ls_set": change(POSITIONS.copy())})


def twice(positions: np.ndarray) -> np.ndarray:
    positions[4, 0] = positions[4, 1]
    return positions


def add(name: str) -> Callable[[Path], Any]:
    """A folder, or an empty .png file."""
    return lambda root: (Path.touch if name.endswith(".png") else Path.mkdir)(root / SEQUENCES / name)


def write(content: bytes) -> Callable[[Path], Any]:
    return lambda root: (root / (MAT_PATH if content == b"broken" else "splits.json")).write_bytes(content)


def split(value: Any) -> Callable[[Path], Any]:
    return lambda root: write_json(root, value)


BAD_INPUTS = [
    ("mat", lambda root: shutil.rmtree(root / SEQUENCES / "cam2"), r"lacks i-LIDS-VID/sequences/cam2"),
    ("mat", lambda root: (root / MAT_PATH).unlink(), r"has no splits; expected .*train_test_splits_ilidsvid.mat"),
    ("mat", write(b"broken"), r"train_test_splits_ilidsvid.mat cannot be read"),
    ("mat", lambda root: savemat(root / MAT_PATH, {"x": [[1]]}), r"holds 'x' and no variable ls_set"),
    ("mat", remove_person, r"counts 6 persons by position, but there are 5 person folders"),
    ("mat", save_positions(lambda positions: positions - 1), r"row 1 of .*; expected each position 1 to 6 once"),
    ("mat", save_positions(twice), r"row 5 of .*; expected each position 1 to 6 once"),
    ("mat", add("cam1/group01"), r"a folder 'group01' in .*; expected names like person0001"),
    ("mat", add(f"cam1/person{'1' * 99}"), r"expected names like person0001"),
    ("mat", add("cam1/person001/cam2_person001_00001.png"), r"cam2_person001_00001.png contradicts .*like cam1"),
    ("json", write(b"{"), r"splits.json cannot be read .*expected a JSON list"),
    ("json", write(b"[" * 100_000), r"splits.json cannot be read .*expected a JSON list"),
    ("json", split({"train": []}), r"splits.json cannot be read .*expected a JSON list"),
    ("json", split([{"train": [0], "test": [1]}]), r"splits.json cannot be read .*expected a JSON list"),
    ("json", split([{"train": "ab", "test": []}]), r"splits.json cannot be read .*expected a JSON list"),
    ("json", split([{"train": PERSONS, "test": PERSONS}]), r"person001 in both halves"),
    ("json", split([{"train": PERSONS[:2], "test": PERSONS[3:]}]), r"person004 in neither half"),
]  # fmt: skip


@pytest.mark.parametrize(("splits", "spoil", "message"), BAD_INPUTS, ids=[message[:40] for *_, message in BAD_INPUTS])
def test_bad_input(tmp_path: Path, splits: str, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(make_ilids(tmp_path, splits))
    with pytest.raises(SourceError, match=message):
        read(tmp_path)
