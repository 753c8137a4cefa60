"""Sources that must not be imported: wrong units, damage, other joints, things that are no files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_keypoints import (
    HEIGHT,
    NAMES,
    WIDTH,
    Poses,
    coco_annotations,
    coco_results,
    index_blank_frames,
    parquet_of_lists,
    person,
    result,
    stored,
    take,
    write_json,
)

from keyreid.pipeline.errors import KeyReIDError
from keyreid.pipeline.exchange.formats import JOINT_COLUMNS
from keyreid.pipeline.skeleton import JOINTS


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return index_blank_frames(tmp_path)


@pytest.fixture
def poses() -> Poses:
    """A person in every frame but the last one."""
    return {name: person(seed) for seed, name in enumerate(NAMES[:-1])}


def refuse(prepared: Path, source: Path, message: str) -> None:
    with pytest.raises(KeyReIDError, match=message):
        take(prepared, source)
    assert not (prepared / "receipts").exists() and not (prepared / "import").exists()


@pytest.mark.parametrize(
    ("scale", "shift", "message"),
    [
        ((1 / WIDTH, 1 / HEIGHT), (0, 0), r"all coordinates lie between .* normalised to 0..1"),
        ((4, 4), (0, 0), r"far outside their frames, such as \w+ at \(.*\) of train/0001/\S+, which is 64x128"),
        ((1, 1), (200, 0), r"far outside .* of the complete picture"),
        ((1, 1), (-WIDTH / 2, -HEIGHT / 2), r"far outside .*expected pixels of the frame, origin at its top left"),
    ],
)
def test_wrong_units_are_refused_before_anything_is_written(
    scale: tuple[float, float], shift: tuple[float, float], message: str, prepared: Path, poses: Poses, tmp_path: Path
) -> None:
    for keypoints in poses.values():
        keypoints[:, :2] = keypoints[:, :2] * scale + shift
    before = (prepared / "dataset.json").read_bytes()
    refuse(prepared, coco_results(tmp_path, poses), message)
    assert (prepared / "dataset.json").read_bytes() == before


def test_joints_a_little_outside_are_no_wrong_unit(prepared: Path, tmp_path: Path) -> None:
    keypoints = person(0)
    keypoints[3, :2] = (-4, HEIGHT + 9)
    take(prepared, write_json(tmp_path / "results.json", [result(NAMES[0], keypoints)]))
    np.testing.assert_array_equal(stored(prepared)[NAMES[0]].keypoints, keypoints)


def test_sizes_that_the_source_names_must_be_those_of_the_frames(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    source = coco_annotations(tmp_path, poses)
    source.write_text(source.read_text().replace('"width": 64', '"width": 128'))
    refuse(prepared, source, r"the source has 128x128 pixels for train/\S+, which is 64x128")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": [1.0] * 54}, r"has 54 numbers; expected 51 or 17 x 3"),
        ({"keypoints": [[1.0] * 17] * 3}, r"has 3 x 17 numbers"),
        ({"keypoints": [[1.0] * 3, [1.0]]}, r"has .*inhomogeneous"),
        ({"keypoints": [*[1.0] * 50, "1.5"]}, r"has str\d+ in place of numbers"),
        ({"keypoints": [True] * 51}, r"has bool in place of numbers"),
        ({"keypoints": {"nose": 1}}, r"has .*expected 51 or"),
        ({"keypoints": [float("nan")] * 51}, r"has NaN, null or infinity"),
        ({"keypoints": [None] * 51}, r"has NaN, null or infinity"),
        ({"keypoints": [1e300] * 51}, r"has NaN, null or infinity"),
        ({"keypoints": [10**400] * 51}, r"has int too large"),
        ({"keypoints": [90.0] * 51}, r"has confidences from 90 to 90; expected 0 to 1"),
        ({"score": -1}, r"has score -1"),
        ({"score": [0.5]}, r"has 1 numbers; expected one score"),
        ({"image_id": [3]}, r"has image_id \[3\], and no list of images names it"),
    ],
)
def test_damaged_people_are_refused_in_words(
    change: dict[str, Any], message: str, prepared: Path, tmp_path: Path
) -> None:
    source = write_json(tmp_path / "results.json", [result(NAMES[0], person(0)) | change])
    refuse(prepared, source, "results.json, person 1 " + message)


def sized(width: object) -> dict[str, Any]:
    return {"images": [{"id": 1, "file_name": NAMES[0], "width": width, "height": HEIGHT}], "annotations": []}


NESTED = "[" * 100_000
TWICE = {"images": [{"id": 1, "file_name": "a"}] * 2, "annotations": []}
DOG = {"id": 1, "name": "dog", "keypoints": ["muzzle", *JOINTS[1:]]}
DOGS = {"categories": [DOG], "annotations": [result("a", person(0))]}
BINARY = b"\xff\xfe" + "frame_path,keypoints\n".encode("utf-16-le")
HEADER = "frame_path,keypoints\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", "", r"cannot be read \(the end in place of \[ or \{"),
        ("x.json", '[{"a": 1} {}]', r"'\{' in place of , or \] at character 10"),
        ("x.json", '{"a": [1], 2: 3}', r"2 in place of a key"),
        ("x.json", "[] []", r"more text after the document's end"),
        ("x.json", b'[{"image_id": "\xff"}]', r"cannot be read \('utf-8' codec"),
        ("x.json", NESTED, r"cannot be read \(maximum recursion depth"),
        ("x.json", '["' + "a" * (5 << 20), r"an element of more than 4,194,304 chara"),
        ("x.json", TWICE, r"an image \{.*\}; expected id and file_name, each id once"),
        ("x.json", DOGS, r"person 1 is a 'dog' with joints \['muzzle'"),
        ("x.json", {"people": []}, r"neither a list nor an object with annota"),
        ("x.json", {"annotations": {}}, r"annotations is no list"),
        ("x.json", {"images": [5]}, r"else than objects among its images"),
        ("x.json", [], r"no entry matches a frame: the source has no entries"),
        ("x.json", sized(1e12), r"an image of width and height \(1000000000000.0, 128\)"),
        ("folder/a.pose", NESTED, r"a.pose cannot be read \(maximum recursion"),
        ("folder/a.pose", "0" * (2 << 20), r"more than 1,048,576 bytes"),
        ("folder/a.pose", "null", r"a.pose has one numbers; expected 51"),
        ("x.csv", "", r"x.csv cannot be read \(Empty CSV file\)"),
        ("x.csv", "frame_path;keypoints\n", r"has no column frame_path, nose_x.* separated by commas"),
        ("x.csv", "frame_path,nose_x,nose_y\n", r"has no column nose_c, left_eye_x, left_eye_y, left_eye_c;"),
        ("x.csv", "frame_path,keypoints,keypoints\n", r"several columns keypoints"),
        ("x.csv", BINARY, r"x.csv cannot be read \("),
        ("x.csv", HEADER + "a,[]\na,b,c\n", r"Expected 2 columns, got 3"),
        ("x.csv", HEADER + 'a,"' + NESTED, r"row 1 has keypoints '\[\[\[\["),
        ("x.csv", HEADER + "a,half\n", r"row 1 has keypoints 'half'; expected text such as \[64.0"),
        ("x.csv", ",".join(["frame_path", *JOINT_COLUMNS]) + "\na" + ",1" * 50 + ",x", r"invalid value 'x'"),
        ("x.csv", ",".join(["frame_path", *JOINT_COLUMNS]) + "\na" + ",1" * 50 + ",", r"row 1 has NaN, null"),
        ("x.txt", "", r"x.txt is a file and looks like none of the formats; expected a file .json"),
        ("folder/x.txt", "", r"folder is a folder and looks like none of the formats"),
    ],
)
def test_damaged_files_are_refused_in_words(
    name: str, content: Any, message: str, prepared: Path, tmp_path: Path
) -> None:
    path = write_json(tmp_path / name, None if isinstance(content, bytes) else content)
    if isinstance(content, str | bytes):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    refuse(prepared, path if path.parent == tmp_path else path.parent, message)


def shortened(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def parquet(folder: Path, rows: int, joints: int) -> Path:
    """A small file with very many numbers: all of them 0."""
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * joints)
    zeros = pa.ListArray.from_arrays(offsets, pa.array(np.zeros(rows * joints, np.float32)))
    names = pa.array(["a.jpg"] * rows).dictionary_encode()
    pq.write_table(pa.table({"frame_path": names, "keypoints": zeros}), folder / "x.parquet", compression="zstd")
    return folder / "x.parquet"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: shortened(coco_results(folder, {"a": person(0)})), r"results.json cannot be read \(.*charact"),
        (lambda folder: shortened(parquet_of_lists(folder, {"a": person(0)})), r"lists.parquet cannot be read"),
        (lambda folder: parquet(folder, 3_000_000, 1), r"3,000,000 rows in [\d,]+ bytes"),
        (lambda folder: parquet(folder, 2, 1_000_000), r"2,000,000 values of keypoints.list.element in 2 rows"),
        (lambda folder: parquet_of_lists(folder, {"": person(0)}), r"row 1 has no frame_path"),
        (lambda folder: folder / "nowhere.json", r"nowhere.json is not there; expected a file .json"),
    ],
)
def test_other_damage_is_refused_in_words(
    write: Callable[[Path], Path], message: str, prepared: Path, tmp_path: Path
) -> None:
    refuse(prepared, write(tmp_path), message)


@pytest.mark.parametrize("place", ["x.json", "x.parquet", "x.csv", "folder/a.pose", "folder/a.jpg.predictions.json"])
@pytest.mark.parametrize("kind", ["FIFO", "device", "folder"])
def test_only_regular_files_are_read(place: str, kind: str, prepared: Path, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    if kind == "FIFO":
        os.mkfifo(path)  # it would be waited for
    elif kind == "device":
        path.symlink_to("/dev/zero")  # it never ends
    else:
        path.mkdir()
    source = path if path.parent == tmp_path else path.parent
    refuse(prepared, source, r"is not a regular file|looks like none of the formats")
