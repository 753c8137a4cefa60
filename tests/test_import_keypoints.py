"""Keypoints in the files of other programs, as those programs write them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from foreign_keypoints import HEIGHT, NAMES, WIDTH, index_blank_frames, numbers, person, stored

from keyreid.cli.prep import main
from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.commit import receipt_path
from keyreid.pipeline.errors import FormatError, KeyReIDError, SettingsError, SourceError
from keyreid.pipeline.exchange.import_keypoints import import_keypoints
from keyreid.pipeline.exchange.table import JOINT_COLUMNS
from keyreid.pipeline.executor import SerialExecutor
from keyreid.pipeline.records import FRAME_NO_POSE, FRAME_OK, FRAME_UNREADABLE
from keyreid.pipeline.skeleton import JOINTS
from keyreid.pipeline.store import TrackletStore

Poses = dict[str, np.ndarray]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return index_blank_frames(tmp_path)


@pytest.fixture
def poses() -> Poses:
    """A person in every frame but the last one."""
    return {name: person(seed) for seed, name in enumerate(NAMES[:-1])}


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def result(image_id: object, keypoints: np.ndarray, score: float = 0.5, **more: object) -> dict[str, Any]:
    """One entry of what pycocotools' loadRes reads, and of openpifpaf.eval's NAME.pred.json."""
    return {"image_id": image_id, "category_id": 1, "keypoints": numbers(keypoints), "score": score, **more}


def coco_results(folder: Path, poses: Poses) -> Path:
    return write_json(folder / "results.json", [result(name, keypoints) for name, keypoints in poses.items()])


def coco_annotations(folder: Path, poses: Poses) -> Path:
    """The form of person_keypoints_val2017.json, with confidences for flags; other boxes lie between the people."""
    images = [{"id": 7 + n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in enumerate(NAMES)]
    ids = {image["file_name"]: image["id"] for image in images}
    annotations: list[dict[str, Any]] = [{"id": 900, "image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9]}]
    annotations += [result(ids[name], keypoints, num_keypoints=16) for name, keypoints in poses.items()]
    categories = [{"id": 1, "name": "person", "keypoints": list(JOINTS)}, {"id": 3, "name": "car"}]
    return write_json(
        folder / "annotations.json", {"images": images, "annotations": annotations, "categories": categories}
    )


def pifpaf_folder(folder: Path, poses: Poses) -> Path:
    """openpifpaf.predict --json-output: a list of people beside each image's name, empty where nobody is."""
    for name in NAMES:
        found: list[dict[str, Any]] = [
            {"category_id": 3, "category": "car", "score": 0.3, "bbox": [0.0, 0.0, 9.0, 9.0]}
        ]
        if name in poses:
            bbox = [1.0, 1.0, 60.0, 120.0]
            found.append({"keypoints": numbers(poses[name]), "bbox": bbox, "score": 0.5, "category_id": 1})
        write_json(folder / "predictions" / f"{name}.predictions.json", found)
    return folder / "predictions"


def pose_folder(folder: Path, poses: Poses) -> Path:
    """The authors' extract_keypoint.py: .pose in place of the image's suffix, indented JSON, zeros for nobody."""
    for name in NAMES:
        joints = np.reshape(numbers(poses.get(name, np.zeros((17, 3)))), (17, 3)).tolist()
        path = folder / "poses" / Path(name).with_suffix(".pose")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(joints, indent=4))
    return folder / "poses"


def csv_of_columns(folder: Path, poses: Poses) -> Path:
    rows = [dict(zip(JOINT_COLUMNS, numbers(keypoints), strict=True)) for keypoints in poses.values()]
    frames = pd.DataFrame(rows).assign(frame_path=list(poses), score=0.5)
    frames.to_csv(folder / "columns.csv", index=False)
    return folder / "columns.csv"


def csv_of_lists(folder: Path, poses: Poses) -> Path:
    frames = pd.DataFrame({"frame_path": list(poses), "keypoints": [str(numbers(k)) for k in poses.values()]})
    frames.assign(score=0.5).to_csv(folder / "lists.csv", index=False, encoding="utf-8-sig")  # as Excel does
    return folder / "lists.csv"


def parquet_of_lists(folder: Path, poses: Poses) -> Path:
    frames = pd.DataFrame({"frame_path": list(poses), "keypoints": [numbers(k) for k in poses.values()]})
    frames.assign(score=0.5).to_parquet(folder / "lists.parquet")
    return folder / "lists.parquet"


WRITERS: tuple[Callable[[Path, Poses], Path], ...] = (
    coco_results, coco_annotations, pifpaf_folder, pose_folder, csv_of_columns, csv_of_lists, parquet_of_lists,
)  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_the_same_keypoints(
    write: Callable[[Path, Poses], Path], prepared: Path, poses: Poses, tmp_path: Path
) -> None:
    import_keypoints(prepared, write(tmp_path, poses))
    found = stored(prepared)
    for name, keypoints in poses.items():
        np.testing.assert_array_equal(found[name].keypoints, keypoints)
        assert (found[name].status, found[name].width, found[name].height) == (FRAME_OK, WIDTH, HEIGHT)
        mean = float(keypoints[:, 2].mean())  # .pose has no score
        assert found[name].score == pytest.approx(mean if write is pose_folder else 0.5)
    assert found[NAMES[-1]].status == FRAME_NO_POSE
    assert not found[NAMES[-1]].keypoints.any()


@pytest.mark.parametrize("write", WRITERS)
def test_frames_that_the_source_is_silent_about_are_told_from_empty_ones(
    write: Callable[[Path, Poses], Path], prepared: Path, poses: Poses, tmp_path: Path
) -> None:
    summary = import_keypoints(prepared, write(tmp_path, poses))
    knows_empty_frames = write in (coco_annotations, pifpaf_folder, pose_folder)
    assert summary.num_without_entry == (0 if knows_empty_frames else 1)


def test_results_with_numbers_for_images_need_the_file_that_names_them(
    prepared: Path, poses: Poses, tmp_path: Path
) -> None:
    source = write_json(tmp_path / "results.json", [result(7 + n, k) for n, k in enumerate(poses.values())])
    with pytest.raises(SourceError, match=r"image_id 7, and no list of images names it.*--images FILE"):
        import_keypoints(prepared, source)
    import_keypoints(prepared, source, images=coco_annotations(tmp_path, {}))
    np.testing.assert_array_equal(stored(prepared)[NAMES[2]].keypoints, poses[NAMES[2]])


def test_flags_of_ground_truth_become_confidences(prepared: Path, tmp_path: Path) -> None:
    keypoints = person(0)
    keypoints[:, 2] = [0, 1, *[2] * 15]
    import_keypoints(prepared, write_json(tmp_path / "truth.json", [result(NAMES[0], keypoints)]))
    pose = stored(prepared)[NAMES[0]]
    np.testing.assert_array_equal(pose.keypoints[:, 2], [0, 0.5, *[1] * 15])
    assert not pose.keypoints[0].any(), "a joint that is not labelled has no place"


def test_the_best_score_of_several_people_is_kept(prepared: Path, tmp_path: Path) -> None:
    people = [result(NAMES[0], person(1), 0.4), result(NAMES[0], person(2), 3.5), result(NAMES[0], person(3), 0.6)]
    import_keypoints(prepared, write_json(tmp_path / "results.json", people))
    pose = stored(prepared)[NAMES[0]]
    np.testing.assert_array_equal(pose.keypoints, person(2))
    assert pose.score == 1, "scores of some programs are sums; ours end at 1"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/data/my copy/train/0001/0001C1F1.jpg", "the path, under other folders"),
        ("0001/0001C1F1.jpg", "its last parts"),
        ("0001C1F1.jpg", "the file name"),
        (".\\train\\0001\\0001C1F1.jpg", "written under Windows"),
    ],
)
def test_names_fit_by_their_ends(name: str, why: str, prepared: Path, tmp_path: Path) -> None:
    import_keypoints(prepared, write_json(tmp_path / "results.json", [result(name, person(0))]))
    assert stored(prepared)[NAMES[0]].status == FRAME_OK, why


def test_names_that_fit_no_frame_are_counted_and_named(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    strangers = {f"train/0003/0003C1F{n}.jpg": person(n) for n in range(12)}
    strangers["other/0001C1F1.jpg"] = person(0)  # a known file name in an unknown folder
    command = ("import-keypoints", prepared, coco_results(tmp_path, poses | strangers))
    answer = run(*command)
    assert answer.exit_code == 0, answer.output
    assert "13 entries of the source match no frame and are left out" in answer.stderr
    assert "train/0003/0003C1F0.jpg" in answer.stderr and "and 3 more" in answer.stderr
    assert json.loads(run(*command, "--json").stdout)["unmatched"] == list(strangers)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["F1.jpg"], r"F1.jpg fits 2 frames, such as a/F1.jpg and b/F1.jpg; expected a name that fits one frame"),
        (["x/a/F1.jpg", "y/a/F1.jpg"], r"x/a/F1.jpg and y/a/F1.jpg both mean frame a/F1.jpg"),
        (["c/F9.jpg"], r"no entry matches a frame: the source has c/F9.jpg; expected paths such as a/F1.jpg"),
    ],
)
def test_names_that_leave_a_doubt_are_refused(names: list[str], message: str, tmp_path: Path) -> None:
    prepared = index_blank_frames(tmp_path, ("a/F1.jpg", "b/F1.jpg"))
    with pytest.raises(SourceError, match=message):
        import_keypoints(prepared, write_json(tmp_path / "results.json", [result(name, person(0)) for name in names]))


def test_pose_files_cannot_tell_a_jpg_from_a_png(tmp_path: Path) -> None:
    prepared = index_blank_frames(tmp_path, ("a/F1.jpg", "a/F1.png"))
    write_json(tmp_path / "poses/a/F1.pose", person(0).tolist())
    with pytest.raises(SourceError, match=r"a/F1.jpg and a/F1.png have the same name without suffix"):
        import_keypoints(prepared, tmp_path / "poses")


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
        import_keypoints(prepared, coco_results(tmp_path, poses))
    assert (sorted(prepared.rglob("*")), (prepared / "dataset.json").read_bytes()) == before


def test_joints_a_little_outside_are_no_wrong_unit(prepared: Path, tmp_path: Path) -> None:
    keypoints = person(0)
    keypoints[3, :2] = (-4, HEIGHT + 9)
    import_keypoints(prepared, write_json(tmp_path / "results.json", [result(NAMES[0], keypoints)]))
    np.testing.assert_array_equal(stored(prepared)[NAMES[0]].keypoints, keypoints)


def test_sizes_that_the_source_names_must_be_those_of_the_frames(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    source = coco_annotations(tmp_path, poses)
    source.write_text(source.read_text().replace('"width": 64', '"width": 128'))
    with pytest.raises(SourceError, match=r"the source says that train/\S+ is 128x128; expected 64x128"):
        import_keypoints(prepared, source)


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
        import_keypoints(prepared, damage(tmp_path, poses))
    assert not (prepared / "receipts").exists()


def test_other_joints_of_a_category_are_refused(prepared: Path, tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "dog", "keypoints": ["muzzle", *JOINTS[1:]]}]
    annotations = [result("a", person(0))]
    source = write_json(tmp_path / "dogs.json", {"categories": categories, "annotations": annotations})
    with pytest.raises(SourceError, match=r"person 1 is a dog with the joints \['muzzle'"):
        import_keypoints(prepared, source)


def test_a_table_without_joints_says_which(prepared: Path, tmp_path: Path) -> None:
    pd.DataFrame({"frame_path": [NAMES[0]], "nose_x": [1.0], "nose_y": [1.0]}).to_csv(tmp_path / "t.csv")
    with pytest.raises(SourceError, match=r"has no column nose_c, left_eye_x, left_eye_y, left_eye_c \.\.\."):
        import_keypoints(prepared, tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"source_format": "openpose"}, SettingsError, r"format 'openpose'; expected one of auto, coco, table"),
        ({"source_format": "pose"}, SourceError, r"results.json is a file; expected a folder, as format pose has it"),
        ({"source_format": "table", "images": Path("x")}, SettingsError, r"--images with format table"),
        ({"images": Path("nowhere.json")}, SourceError, r"nowhere.json is not a file"),
    ],
)
def test_options_that_contradict_the_source(
    options: dict[str, Any], error: type[KeyReIDError], message: str, prepared: Path, poses: Poses, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        import_keypoints(prepared, coco_results(tmp_path, poses), **options)


def test_a_second_run_does_nothing(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    source = pose_folder(tmp_path, poses)
    assert import_keypoints(prepared, source).stage.num_made == 2
    assert import_keypoints(prepared, source).stage.num_made == 0
    receipt_path(prepared, "keypoints", 1).unlink()
    assert import_keypoints(prepared, source).stage.num_made == 1, "it goes on where an earlier run stopped"


def test_keypoints_of_another_origin_stay_without_overwrite(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    import_keypoints(prepared, coco_results(tmp_path, poses))
    poses[NAMES[0]] = person(77)
    other = csv_of_columns(tmp_path, poses)
    with pytest.raises(FormatError, match=r"has keypoints imported from another coco source.*--overwrite"):
        import_keypoints(prepared, other)
    np.testing.assert_array_equal(stored(prepared)[NAMES[0]].keypoints, person(0))
    import_keypoints(prepared, other, overwrite=True)
    np.testing.assert_array_equal(stored(prepared)[NAMES[0]].keypoints, person(77))


def test_one_changed_file_of_a_folder_makes_it_another_source(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    source = pifpaf_folder(tmp_path, poses)
    import_keypoints(prepared, source)
    write_json(source / f"{NAMES[0]}.predictions.json", [])
    with pytest.raises(FormatError, match="imported from another pifpaf source"):
        import_keypoints(prepared, source)


def test_shards_are_built_from_imported_keypoints(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    """A broken image is left out, whatever the source says of it."""
    (tmp_path / "frames" / NAMES[1]).write_bytes(b"not an image")
    import_keypoints(prepared, coco_results(tmp_path, poses))
    assert stored(prepared)[NAMES[1]].status == FRAME_UNREADABLE
    assert not stored(prepared)[NAMES[1]].keypoints.any()
    build_shards(prepared, SerialExecutor())
    store = TrackletStore(prepared)
    assert [store.num_frames(tracklet_id) for tracklet_id in (0, 1)] == [2, 3]
    frames, heatmaps = store.read(1, [0, 1, 2])
    assert frames[0] == (tmp_path / "frames" / NAMES[3]).read_bytes()
    assert heatmaps[0].any() and heatmaps[1].any() and not heatmaps[2].any(), "nobody is in the last frame"


def test_the_command_teaches_and_reports(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    assert "keyreid-prep import-keypoints prepared/ keypoints.parquet" in run("import-keypoints", "--help").output
    answer = run("import-keypoints", prepared, coco_results(tmp_path, poses))
    assert answer.exit_code == 0, answer.output
    assert "keypoints (coco; 1 frames are not in it) of 6 frames, 1 without a person; 2 shards made" in answer.stdout
    answer = run("import-keypoints", prepared, tmp_path / "nowhere.json")
    assert answer.exit_code == 1
    assert "nowhere.json is not there" in answer.stderr and "Traceback" not in answer.stderr


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
