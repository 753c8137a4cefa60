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
    parquet_of_lists,
    person,
    pifpaf_folder,
    pose_folder,
    result,
    stored,
    take,
    write_json,
)
from PIL import Image

from keyreid.cli.prep import main
from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.commit import receipt_path
from keyreid.pipeline.errors import FormatError, KeyReIDError, SettingsError, SourceError
from keyreid.pipeline.exchange import coco
from keyreid.pipeline.executor import SerialExecutor
from keyreid.pipeline.pose.selection import GapSettings
from keyreid.pipeline.records import FRAME_INTERPOLATED, FRAME_NO_POSE, FRAME_OK, FRAME_SKIPPED, FRAME_UNREADABLE
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
    """And frames that the source is silent about are told from empty ones."""
    summary = take(prepared, write(tmp_path, poses))
    assert summary.match.num_without_entry == (0 if write in (coco_annotations, pifpaf_folder, pose_folder) else 1)
    found = stored(prepared)
    for name, keypoints in poses.items():
        np.testing.assert_array_equal(found[name].keypoints, keypoints)
        assert (found[name].status, *found[name].sizes) == (FRAME_OK, WIDTH, HEIGHT)
        mean = float(keypoints[:, 2].mean())  # .pose has no score
        assert found[name].score == pytest.approx(mean if write is pose_folder else 0.5)
    assert found[NAMES[-1]].status == FRAME_NO_POSE
    assert not found[NAMES[-1]].keypoints.any()
    assert not (prepared / "import").exists(), "temporary files are gone"


@pytest.mark.parametrize("characters", [700, 1000, 1999])
@pytest.mark.parametrize("write", [coco_results, coco_annotations])
def test_json_is_read_in_pieces_wherever_they_are_cut(
    write: Callable[[Path, Poses], Path],
    characters: int,
    prepared: Path,
    poses: Poses,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = write(tmp_path, poses)
    monkeypatch.setattr(coco, "MAX_ELEMENT", characters)  # the documents are longer
    take(prepared, source)
    np.testing.assert_array_equal(stored(prepared)[NAMES[1]].keypoints, poses[NAMES[1]])


@pytest.mark.parametrize("order", [("annotations", "categories", "images"), ("categories", "images", "annotations")])
def test_the_lists_of_an_annotation_file_come_in_any_order(
    order: tuple[str, ...], prepared: Path, poses: Poses, tmp_path: Path
) -> None:
    document = json.loads(coco_annotations(tmp_path, poses).read_text())
    more = {"info": {"year": 2026, "version": 1.5}, "licenses": [{"id": 1}, 2], "note": None}
    take(prepared, write_json(tmp_path / "x.json", more | {key: document[key] for key in order}))
    np.testing.assert_array_equal(stored(prepared)[NAMES[1]].keypoints, poses[NAMES[1]])


def test_results_with_numbers_for_images_need_the_file_that_names_them(
    prepared: Path, poses: Poses, tmp_path: Path
) -> None:
    source = write_json(tmp_path / "results.json", [result(7 + n, k) for n, k in enumerate(poses.values())])
    with pytest.raises(SourceError, match=r"image_id 7, and no list of images names it.*--images FILE"):
        take(prepared, source)
    summary = take(prepared, source, images=coco_annotations(tmp_path, {}))
    np.testing.assert_array_equal(stored(prepared)[NAMES[2]].keypoints, poses[NAMES[2]])
    assert summary.match.num_without_entry == 1, "the file of names says nothing about people"


def test_flags_of_ground_truth_become_confidences(prepared: Path, tmp_path: Path) -> None:
    keypoints = person(0)
    keypoints[:, 2] = [0, 1, *[2] * 15]
    take(prepared, write_json(tmp_path / "truth.json", [result(NAMES[0], keypoints)]))
    pose = stored(prepared)[NAMES[0]]
    np.testing.assert_array_equal(pose.keypoints[:, 2], [0, 0.5, *[1] * 15])
    assert not pose.keypoints[0].any(), "a joint that is not labelled has no place"


def standing(x: float, frame: int = 0) -> np.ndarray:
    """A person of nearly the crop's height around a column, who moves a little from frame to frame."""
    side = np.where(np.arange(17) % 2, 6, -6)
    places = np.stack([x + side + frame, np.linspace(10, 118, 17), np.full(17, 0.9)], axis=1)
    return places.round(2).astype(np.float32)


def crowd(folder: Path, missing: tuple[str, ...] = ()) -> Path:
    """In each frame the person that the crop was cut around, and someone at its edge with a better score."""
    people = [
        result(name, keypoints, score)
        for frame, name in enumerate(NAMES[:3])
        for keypoints, score in ((standing(62, frame), 1.4), (standing(30, frame), 0.6))
        if name not in missing
    ]
    return write_json(folder / "crowd.json", people)


def test_several_people_are_chosen_among_over_the_tracklet(prepared: Path, tmp_path: Path) -> None:
    summary = take(prepared, crowd(tmp_path, missing=(NAMES[1],)))
    found = stored(prepared)
    for frame in (0, 2):
        np.testing.assert_array_equal(found[NAMES[frame]].keypoints, standing(30, frame))
    between = found[NAMES[1]]
    assert between.status == FRAME_INTERPOLATED and summary.match.num_several == 2
    np.testing.assert_allclose(between.keypoints[:, :2], standing(30, 1)[:, :2], atol=0.01)
    assert between.keypoints[:, 2] == pytest.approx(0.9 * GapSettings().decay)


def test_the_best_score_of_each_frame_is_kept_where_asked(prepared: Path, tmp_path: Path) -> None:
    take(prepared, crowd(tmp_path, missing=(NAMES[1],)), select="best-score")
    found = stored(prepared)
    np.testing.assert_array_equal(found[NAMES[2]].keypoints, standing(62, 2))
    assert found[NAMES[2]].score == 1, "scores of some programs are sums; ours end at 1"
    assert found[NAMES[1]].status == FRAME_NO_POSE, "gaps stay, as in extract-keypoints"


def test_frame_numbers_tell_how_long_a_gap_is(tmp_path: Path) -> None:
    prepared = index_blank_frames(tmp_path, numbers={1: (1, 250, 500)})
    take(prepared, crowd(tmp_path, missing=(NAMES[1],)))
    assert stored(prepared)[NAMES[1]].status == FRAME_NO_POSE


def test_one_person_per_frame_stays_whoever_it_is(prepared: Path, tmp_path: Path) -> None:
    """No one else could be meant: neither place nor size counts, and no gap is filled. Twice the same is one person."""
    strange = standing(62) * np.array([1, 0.2, 1], np.float32)
    people = [result(name, keypoints) for name, keypoints in ((NAMES[0], strange), (NAMES[2], standing(10)))]
    take(prepared, write_json(tmp_path / "results.json", people * 2))
    found = stored(prepared)
    np.testing.assert_array_equal(found[NAMES[0]].keypoints, np.float32(strange.round(2)))
    assert [found[name].status for name in NAMES[:3]] == [FRAME_OK, FRAME_NO_POSE, FRAME_OK]


def test_names_fit_by_their_ends(prepared: Path, tmp_path: Path) -> None:
    for name in (
        "/data/my copy/train/0001/0001C1F1.jpg",  # under other folders
        "0001/0001C1F1.jpg",
        "0001C1F1.jpg",
        ".\\train\\0001\\0001C1F1.jpg",  # written under Windows
    ):
        take(prepared, write_json(tmp_path / "results.json", [result(name, person(0))]), overwrite=True)
        assert stored(prepared)[NAMES[0]].status == FRAME_OK, name


def test_names_that_fit_no_frame_are_counted_and_named(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    strangers = {f"train/0003/0003C1F{n}.jpg": person(n) for n in range(12)}
    strangers["other/0001C1F1.jpg"] = person(0)  # a known file name in an unknown folder
    command = ("import-keypoints", prepared, coco_results(tmp_path, poses | strangers), "--serial")
    answer = run(*command)
    assert answer.exit_code == 0, answer.output
    assert "13 entries of the source match no frame and are left out" in answer.stderr
    assert "train/0003/0003C1F0.jpg" in answer.stderr and "and 3 more" in answer.stderr
    assert json.loads(run(*command, "--json").stdout)["unmatched"] == list(strangers)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["F1.jpg"], r"F1.jpg fits several frames, such as a/F1.jpg and b/F1.jpg; expected a name that fits one frame"),
        (["x/a/F1.jpg", "y/a/F1.jpg"], r"y/a/F1.jpg and an earlier name of the source both mean frame a/F1.jpg"),
        (["c/F9.jpg"], r"no entry matches a frame: the source has c/F9.jpg; expected paths such as a/F1.jpg"),
    ],
)
def test_names_that_leave_a_doubt_are_refused(names: list[str], message: str, tmp_path: Path) -> None:
    prepared = index_blank_frames(tmp_path, ("a/F1.jpg", "b/F1.jpg"))
    with pytest.raises(SourceError, match=message):
        take(prepared, write_json(tmp_path / "results.json", [result(name, person(0)) for name in names]))


def test_pose_files_cannot_tell_a_jpg_from_a_png(tmp_path: Path) -> None:
    prepared = index_blank_frames(tmp_path, ("a/F1.jpg", "a/F1.png"))
    write_json(tmp_path / "poses/a/F1.pose", person(0).tolist())
    with pytest.raises(SourceError, match=r"a/F1 fits several frames, such as a/F1.jpg and a/F1.png; .* suffixes"):
        take(prepared, tmp_path / "poses")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"source_format": "openpose"}, SettingsError, r"format 'openpose'; expected one of auto, coco, pose, table"),
        ({"source_format": "pose"}, SourceError, r"results.json is a file and looks like no pose; expected a file"),
        ({"source_format": "table", "images": Path("x")}, SettingsError, r"--images with .*results.json"),
        ({"images": Path("nowhere.json")}, SourceError, r"nowhere.json is not there"),
        ({"select": "tallest"}, SettingsError, r"selection rule 'tallest'; expected one of tracklet, best-score"),
    ],
)
def test_options_that_contradict_the_source(
    options: dict[str, Any], error: type[KeyReIDError], message: str, prepared: Path, poses: Poses, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        take(prepared, coco_results(tmp_path, poses), **options)


def test_a_second_run_does_nothing(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    source = pose_folder(tmp_path, poses)
    assert take(prepared, source).stage.num_made == 2
    assert take(prepared, source).stage.num_made == 0
    receipt_path(prepared, "keypoints", 1).unlink()
    (prepared / "import").mkdir()  # as a killed run leaves it
    assert take(prepared, source).stage.num_made == 1, "it resumes where an earlier run stopped"
    (source / NAMES[0]).with_suffix(".pose").write_text(json.dumps(person(9).tolist()))
    with pytest.raises(FormatError, match="source_sha256"):  # one changed file makes it another source
        take(prepared, source)


def test_keypoints_of_another_origin_stay_without_overwrite(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    take(prepared, coco_results(tmp_path, poses))
    poses[NAMES[0]] = person(77)
    other = csv_of_columns(tmp_path, poses)
    with pytest.raises(FormatError, match=r"select 'tracklet', now 'best-score'.*--overwrite"):
        take(prepared, coco_results(tmp_path, poses | {NAMES[0]: person(0)}), select="best-score")
    np.testing.assert_array_equal(stored(prepared)[NAMES[0]].keypoints, person(0))
    take(prepared, other, overwrite=True)
    np.testing.assert_array_equal(stored(prepared)[NAMES[0]].keypoints, person(77))


def test_shards_are_built_from_imported_keypoints(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    """A broken image is left out, whatever the source says of it; its header may be undamaged."""
    broken = tmp_path / "frames" / NAMES[1]
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(broken)
    broken.write_bytes(broken.read_bytes()[:-2000])
    take(prepared, coco_results(tmp_path, poses))
    assert stored(prepared)[NAMES[1]].status == FRAME_UNREADABLE
    assert not stored(prepared)[NAMES[1]].keypoints.any()
    build_shards(prepared, SerialExecutor(), max_left_out=1.0)
    store = TrackletStore(prepared)
    assert [store.num_frames(tracklet_id) for tracklet_id in (0, 1)] == [2, 3]
    frames, heatmaps = store.read(1, [0, 1, 2])
    assert frames[0] == (tmp_path / "frames" / NAMES[3]).read_bytes()
    assert heatmaps[0].any() and heatmaps[1].any() and not heatmaps[2].any(), "nobody is in the last frame"


def test_a_missing_frame_fails_its_shard_alone(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    source = coco_results(tmp_path, poses)
    content = (tmp_path / "frames" / NAMES[1]).read_bytes()
    (tmp_path / "frames" / NAMES[1]).unlink()
    with pytest.raises(KeyReIDError, match=rf"1 of 2 shards of keypoints failed[\s\S]*{NAMES[1]}"):
        take(prepared, source)
    assert [receipt_path(prepared, "keypoints", shard).exists() for shard in (0, 1)] == [False, True]
    (tmp_path / "frames" / NAMES[1]).write_bytes(content)
    assert take(prepared, source).stage.num_made == 1


def test_frames_left_out_are_limited_and_tried_again(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    frame = tmp_path / "frames" / NAMES[1]
    content = frame.read_bytes()
    frame.write_bytes(b"no image")
    (tmp_path / "skip.txt").write_text(f"{NAMES[4]}\n")
    command = ("import-keypoints", prepared, coco_results(tmp_path, poses), "--serial")
    answer = run(*command, "--skip-frames", tmp_path / "skip.txt")
    assert answer.exit_code == 1 and "2 of 6 frames are left out (1 unreadable, 1 skipped)" in answer.stderr
    assert [stored(prepared)[NAMES[n]].status for n in (1, 4)] == [FRAME_UNREADABLE, FRAME_SKIPPED]
    frame.write_bytes(content)
    answer = run(*command, "--retry-left-out")
    assert answer.exit_code == 0, answer.output
    assert [stored(prepared)[NAMES[n]].status for n in (1, 4)] == [FRAME_OK, FRAME_OK]


def test_the_command_teaches_and_reports(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    assert "keyreid-prep import-keypoints prepared/ keypoints.parquet" in run("import-keypoints", "--help").output
    answer = run("import-keypoints", prepared, parquet_of_lists(tmp_path, poses), "--workers", 1)
    assert answer.exit_code == 0, answer.output
    assert "keypoints (table; 1 frames are not in it) of 6 frames, 1 without a person; 2 shards made" in answer.stdout
    np.testing.assert_array_equal(stored(prepared)[NAMES[1]].keypoints, poses[NAMES[1]])
    facts = json.loads(run("import-keypoints", prepared, crowd(tmp_path), "--serial", "--overwrite", "--json").stdout)
    assert (facts["format"], facts["frames_with_several_people"], facts["frames_without_entry"]) == ("coco", 3, 3)
    answer = run("import-keypoints", prepared, tmp_path / "nowhere.json")
    assert answer.exit_code == 1
    assert "nowhere.json is not there" in answer.stderr and "Traceback" not in answer.stderr


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
