"""Keypoints in the files of other programs, as those programs write them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from foreign_keypoints import (
    HEIGHT,
    NAMES,
    WIDTH,
    WRITERS,
    Poses,
    coco_annotations,
    coco_results,
    csv_of_columns,
    index_blank_frames,
    person,
    pifpaf_folder,
    pose_folder,
    result,
    stored,
    write_json,
)
from PIL import Image

from keyreid.cli.prep import main
from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.commit import receipt_path
from keyreid.pipeline.errors import FormatError, KeyReIDError, SettingsError, SourceError
from keyreid.pipeline.exchange.import_keypoints import import_keypoints
from keyreid.pipeline.executor import SerialExecutor
from keyreid.pipeline.records import FRAME_NO_POSE, FRAME_OK, FRAME_UNREADABLE
from keyreid.pipeline.store import TrackletStore


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return index_blank_frames(tmp_path)


@pytest.fixture
def poses() -> Poses:
    """A person in every frame but the last one."""
    return {name: person(seed) for seed, name in enumerate(NAMES[:-1])}


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
    """A broken image is left out, whatever the source says of it; its header may be whole."""
    broken = tmp_path / "frames" / NAMES[1]
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(broken)
    broken.write_bytes(broken.read_bytes()[:-2000])
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
