import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from keyreid.pipeline.errors import SettingsError, SurroundingsError
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.synthetic.layouts import SyntheticSettings, plan_tracklets, render_planned, synthesize
from keyreid.pipeline.synthetic.person import View, project, sample_appearance, walk

SMALL = SyntheticSettings(num_identities=4, num_cameras=2, tracklets_per_camera=1, min_frames=2, max_frames=3, seed=3)


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("layout", ["mars", "ilids-vid", "folder"])
def test_equal_seeds_give_equal_bytes_whatever_the_workers_and_others_other_people(tmp_path: Path, layout: str) -> None:
    (tmp_path / "one").mkdir()  # it may exist if it is empty
    for name, settings, workers in (("one", SMALL, 1), ("two", SMALL, 2), ("other", replace(SMALL, seed=4), 1)):
        synthesize(tmp_path / name, layout, settings, workers)
    one, other = tree(tmp_path / "one"), tree(tmp_path / "other")
    assert one == tree(tmp_path / "two")
    reading = read_source(layout, tmp_path / "one")
    assert len(list(reading.tracklets)) >= 8
    assert len(reading.identity_splits) == (10 if layout == "ilids-vid" else 0)
    frames = [name for name in set(one) & set(other) if name.endswith((".jpg", ".png"))]
    assert frames and all(one[name] != other[name] for name in frames)


def test_the_mars_tree_is_read_by_the_mars_reader(tiny_mars: Path) -> None:
    tracklets = list(read_source("mars", tiny_mars).tracklets)
    identities = {name: {t.identity for t in tracklets if t.split == name} for name in ("train", "query", "gallery")}
    assert not identities["train"] & identities["query"], "half of the people are for testing"
    assert len(identities["train"]) == len(identities["query"]) == 4
    assert {-1, 0} < identities["gallery"], "junk and distractors"
    with Image.open(tiny_mars / tracklets[0].frame_paths[0]) as image:
        assert image.size == (128, 256) and image.format == "JPEG"


def test_the_tree_holds_true_keypoints_of_every_frame(tiny_mars: Path) -> None:
    truth = pq.read_table(tiny_mars / "true_keypoints.parquet").to_pylist()
    assert sorted(row["frame_path"] for row in truth) == sorted(
        str(path.relative_to(tiny_mars)) for path in tiny_mars.rglob("*.jpg")
    )
    seen = np.array([row["keypoints"] for row in truth]).reshape(-1, 17, 3)[..., 2]
    assert 0.4 < seen.mean() < 0.95, "some joints are hidden, most are not"
    assert json.loads((tiny_mars / "SYNTHETIC.json").read_text())["layout"] == "mars"


def test_a_full_disk_ends_in_one_error_and_takes_no_room(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(SurroundingsError, match=r"people cannot be written .*File too large.*; make room"):
            synthesize(tmp_path / "people", "ilids-vid", SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_difficulty_hides_more_joints() -> None:
    def seen(difficulty: float) -> float:
        settings = SyntheticSettings(num_identities=20, num_cameras=2, max_frames=6, difficulty=difficulty)
        planned = plan_tracklets(settings, extras=False)[:30]
        tracklets = [render_planned(settings, t) for t in planned]
        return float(np.concatenate([keypoints[..., 2].ravel() for _, keypoints in tracklets]).mean())

    assert seen(1.0) < seen(0.0) - 0.05


def test_a_person_facing_the_camera_has_the_left_side_at_the_right_of_the_picture() -> None:
    appearance = sample_appearance(np.random.default_rng(0), 0.0, np.random.default_rng(1))
    facing = project(walk(appearance, 0.3), View(yaw=0.0, elevation=0.0, height=200, x=64, y=240))
    assert facing["left_shoulder"][0] > facing["right_shoulder"][0]
    turned = project(walk(appearance, 0.3), View(yaw=np.pi, elevation=0.0, height=200, x=64, y=240))
    assert turned["left_shoulder"][0] < turned["right_shoulder"][0]
    heights = [facing[name][1] for name in ("nose", "left_hip", "left_knee", "left_ankle")]
    assert heights == sorted(heights), "from the head down to the feet"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_identities": 5}, "num_identities is 5; expected an even number from 4"),
        ({"min_frames": 5, "max_frames": 4}, "min_frames and max_frames is 5, 4; expected 1 <= min"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"wardrobe": "mine"}, "wardrobe is mine; expected own or shared"),
        ({"num_cameras": 4}, "4 cameras with 1 tracklets each; expected 2 cameras with 1 tracklet"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        synthesize(tmp_path / "new", "ilids-vid", replace(SMALL, **changes))


def test_folders_that_will_not_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SettingsError, match="exists and is not an empty folder; expected a new folder"):
        synthesize(tmp_path, "mars", SMALL)
    with pytest.raises(SurroundingsError, match=r"file/new cannot be written .*Not a directory"):
        synthesize(tmp_path / "file/new", "mars", SMALL)
