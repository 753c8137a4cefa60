"""Sources that must not be imported: wrong units, damage, other joints."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from foreign_keypoints import (
    HEIGHT,
    NAMES,
    WIDTH,
    Poses,
    coco_annotations,
    coco_results,
    csv_of_columns,
    index_blank_frames,
    parquet_of_lists,
    person,
    result,
    stored,
    take,
    write_json,
)

from keyreid.pipeline.errors import KeyReIDError, SourceError
from keyreid.pipeline.skeleton import JOINTS


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return index_blank_frames(tmp_path)


@pytest.fixture
def poses() -> Poses:
    """A person in every frame but the last one."""
    return {name: person(seed) for seed, name in enumerate(NAMES[:-1])}


@pytest.mark.parametrize(
    ("scale", "shift", "message"),
    [
        ((1 / WIDTH, 1 / HEIGHT), (0, 0), r"all coordinates lie between .* normalised to 0..1"),
        ((4, 4), (0, 0), r"far outside their frames, such as \w+ at \(.*\) of train/0001/\S+, which is 64x128"),
        ((1, 1), (200, 0), r"far outside .* of the whole picture"),
        ((1, 1), (-WIDTH / 2, -HEIGHT / 2), r"far outside .*expected pixels of the frame, origin at its top left"),
    ],
)
def test_wrong_units_are_refused_before_anything_is_written(
    scale: tuple[float, float], shift: tuple[float, float], message: str, prepared: Path, poses: Poses, tmp_path: Path
) -> None:
    for keypoints in poses.values():
        keypoints[:, :2] = keypoints[:, :2] * scale + shift
    before = sorted(prepared.rglob("*")), (prepared / "dataset.json").read_bytes()
    with pytest.raises(SourceError, match=message):
        take(prepared, coco_results(tmp_path, poses))
    assert (sorted(prepared.rglob("*")), (prepared / "dataset.json").read_bytes()) == before


def test_joints_a_little_outside_are_no_wrong_unit(prepared: Path, tmp_path: Path) -> None:
    keypoints = person(0)
    keypoints[3, :2] = (-4, HEIGHT + 9)
    take(prepared, write_json(tmp_path / "results.json", [result(NAMES[0], keypoints)]))
    np.testing.assert_array_equal(stored(prepared)[NAMES[0]].keypoints, keypoints)


def test_sizes_that_the_source_names_must_be_those_of_the_frames(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    source = coco_annotations(tmp_path, poses)
    source.write_text(source.read_text().replace('"width": 64', '"width": 128'))
    with pytest.raises(SourceError, match=r"the source says that train/\S+ is 128x128; expected 64x128"):
        take(prepared, source)


def shortened(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def changed(folder: Path, **change: object) -> Path:
    return write_json(folder / "results.json", [result(NAMES[0], person(0)) | change])


def with_nan(keypoints: np.ndarray) -> np.ndarray:
    keypoints[3, 0] = np.nan
    return keypoints


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder, poses: shortened(coco_results(folder, poses)), r"results.json is not readable as JSON"),
        (lambda folder, poses: shortened(parquet_of_lists(folder, poses)), r"lists.parquet cannot be read"),
        (lambda folder, _: write_json(folder / "x.json", {"people": []}), r"neither a list nor an object with annota"),
        (lambda folder, _: write_json(folder / "x.json", [5]), r"something else than objects among its annotations"),
        (lambda folder, _: changed(folder, keypoints=[1.0] * 54), r"person 1 has 54 numbers; expected 51 or 17 x 3"),
        (lambda folder, _: changed(folder, keypoints=[[1.0] * 17] * 3), r"person 1 has 3 x 17 numbers"),
        (lambda folder, _: changed(folder, keypoints=["left"] * 51), r"person 1 holds something that is no number"),
        (lambda folder, _: changed(folder, keypoints=[float("nan")] * 51), r"person 1 holds NaN, null or infinity"),
        (lambda folder, _: changed(folder, keypoints=[None] * 51), r"person 1 holds NaN, null or infinity"),
        (lambda folder, _: changed(folder, keypoints=[1e300] * 51), r"person 1 holds NaN, null or infinity"),
        (lambda folder, _: changed(folder, keypoints=[90.0] * 51), r"a joint of confidence 90; expected 0 to 1"),
        (lambda folder, _: changed(folder, score=-1), r"person 1 has score -1"),
        (lambda folder, _: changed(folder, image_id=[3]), r"image_id \[3\], and no list of images names it"),
        (lambda folder, _: csv_of_columns(folder, {NAMES[0]: with_nan(person(0))}), r"columns.csv, row 1 holds NaN"),
        (lambda folder, _: coco_results(folder, {}), r"no entry matches a frame: the source has no entries"),
        (lambda folder, _: parquet_of_lists(folder, {"": person(0)}), r"row 1 has no frame_path"),
        (lambda folder, _: folder / "nowhere.json", r"nowhere.json is not there; expected a file .json"),
        (lambda folder, _: folder / "prepared", r"holds neither \*.predictions.json nor \*.pose"),
    ],
)
def test_damaged_sources_are_refused_in_words(
    damage: Callable[[Path, Poses], Path], message: str, prepared: Path, poses: Poses, tmp_path: Path
) -> None:
    with pytest.raises(KeyReIDError, match=message):
        take(prepared, damage(tmp_path, poses))
    assert not (prepared / "receipts").exists()


def test_other_joints_of_a_category_are_refused(prepared: Path, tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "dog", "keypoints": ["muzzle", *JOINTS[1:]]}]
    annotations = [result("a", person(0))]
    source = write_json(tmp_path / "dogs.json", {"categories": categories, "annotations": annotations})
    with pytest.raises(SourceError, match=r"person 1 is a dog with the joints \['muzzle'"):
        take(prepared, source)


def test_a_table_without_joints_says_which(prepared: Path, tmp_path: Path) -> None:
    pd.DataFrame({"frame_path": [NAMES[0]], "nose_x": [1.0], "nose_y": [1.0]}).to_csv(tmp_path / "t.csv")
    with pytest.raises(SourceError, match=r"has no column nose_c, left_eye_x, left_eye_y, left_eye_c \.\.\."):
        take(prepared, tmp_path / "t.csv")
