"""Counts of a prepared dataset, against a few rows counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import TinyDataset

from keyreid.cli.prep import main
from keyreid.pipeline.commit import commit_shard
from keyreid.pipeline.errors import FormatError
from keyreid.pipeline.inspection.describe import describe
from keyreid.pipeline.keypoints import keypoints_path, read_keypoints, write_keypoints
from keyreid.pipeline.manifest import SourceTracklet, build_manifest, write_manifest
from keyreid.pipeline.records import FramePose
from keyreid.pipeline.skeleton import JOINT_INDEX

NOSE = JOINT_INDEX["nose"]


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """Three tracklets of 4, 2 and 3 frames under cameras 5, 9 and 5, each in a shard of its own; no image exists."""
    tracklets = [
        SourceTracklet(split, identity, camera, tuple(f"{split}{frame}.jpg" for frame in range(count)))
        for split, identity, camera, count in (("train", 7, 5, 4), ("query", 8, 9, 2), ("gallery", 8, 5, 3))
    ]
    write_manifest(tmp_path, build_manifest("few", tmp_path, tracklets, frames_per_shard=4))
    return tmp_path


def add_keypoints(prepared: Path, tracklet_id: int, statuses: list[str], nose: list[float]) -> None:
    """Keypoints of the shard that holds one tracklet, with confidences of the nose."""
    poses = []
    for frame, (status, confidence) in enumerate(zip(statuses, nose, strict=True)):
        keypoints = np.zeros((17, 3), np.float32)
        keypoints[NOSE] = (3, 4, confidence)
        poses.append(FramePose(tracklet_id, frame, 64, 128, status, 0.5, keypoints))
    path = keypoints_path(prepared, tracklet_id)
    facts = {"rows": len(poses), "settings": "", "inputs": "", "notes": {}, "made_with": {}}
    commit_shard(prepared, "keypoints", tracklet_id, path, lambda partial: write_keypoints(partial, poses), **facts)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in ("describe", *arguments)])


def test_what_is_known_after_index(indexed: Path) -> None:
    facts = describe(indexed)
    assert [(group.name, group.tracklets, group.frames) for group in facts.splits] == [
        ("train", 1, 4),
        ("query", 1, 2),
        ("gallery", 1, 3),
    ]
    assert [(g.name, g.tracklets, g.identities, g.frames) for g in facts.cameras] == [("5", 2, 2, 7), ("9", 1, 1, 2)]
    assert [(g.name, g.tracklets, g.cameras, g.frames) for g in facts.identities] == [("7", 1, 1, 4), ("8", 2, 2, 5)]
    assert facts.all.frames_examined == 0 and facts.joint_visibility == {}
    assert [(stage.num_made, stage.num_shards) for stage in facts.stages] == [(0, 3), (0, 3)]


def test_poses_are_counted_by_split_camera_and_identity(indexed: Path) -> None:
    add_keypoints(indexed, 0, ["ok", "interpolated", "no_pose", "unreadable"], [0.9, 0.05, 0, 0])
    add_keypoints(indexed, 1, ["no_pose", "no_pose"], [0, 0])
    add_keypoints(indexed, 2, ["ok", "ok", "quarantined"], [0.5, 0.1, 0])
    facts = describe(indexed)
    assert facts.all.statuses == {"ok": 3, "interpolated": 1, "no_pose": 3, "unreadable": 1, "quarantined": 1}
    assert [group.frames_without_pose for group in facts.splits] == [2, 2, 1]
    assert [group.frames_without_pose for group in facts.cameras] == [3, 2]
    assert [group.frames_without_pose for group in facts.identities] == [2, 3]
    # of the four frames with a pose under camera 5, confidences of the nose are 0.9, 0.05, 0.5 and 0.1
    assert facts.joint_visibility.keys() == {"5"}
    assert facts.joint_visibility["5"]["nose"] == 0.5 and facts.joint_visibility["5"]["left_hip"] == 0


def test_half_a_dataset_counts_what_there_is(indexed: Path) -> None:
    add_keypoints(indexed, 0, ["ok"] * 4, [1] * 4)
    facts = describe(indexed)
    assert (facts.stages[0].num_made, facts.stages[0].frames) == (1, 4)
    assert facts.all.frames_examined == 4 and facts.all.frames == 9 and facts.all.frames_without_pose == 0
    lines = run(indexed).stdout.splitlines()
    keypoints_path(indexed, 0).unlink()
    assert describe(indexed).stages[0].num_made == 0, "a receipt without its file"
    assert [line.split() for line in lines if line.startswith(("train", "query"))] == [
        ["train", "1", "1", "1", "4", "4", "0.0", "%"],
        ["query", "1", "1", "1", "2", "0", "-"],
    ]


def test_counts_agree_with_the_reader_of_rows(tiny_dataset: TinyDataset) -> None:
    facts = describe(tiny_dataset.prepared)
    poses = [pose for path in (tiny_dataset.prepared / "keypoints").iterdir() for pose in read_keypoints(path)]
    for status, count in facts.all.statuses.items():
        assert count == sum(pose.status == status for pose in poses)
    assert facts.all.frames == len(poses) == facts.stages[1].frames
    visible = sum(pose.keypoints[NOSE, 2] > 0.1 for pose in poses)
    posed = {group.name: group.frames_examined - group.frames_without_pose for group in facts.cameras}
    assert visible == pytest.approx(
        sum(posed[name] * joints["nose"] for name, joints in facts.joint_visibility.items())
    )
    sizes = [path.stat().st_size for path in (tiny_dataset.prepared / "shards").glob("*.h5")]
    assert facts.stages[1].bytes == sum(sizes) > 0


def test_tables_of_the_command(indexed: Path) -> None:
    add_keypoints(indexed, 0, ["ok", "ok", "no_pose", "ok"], [1, 1, 0, 0])
    result = run(indexed)
    assert result.exit_code == 0, result.output
    assert "keypoints: 1 of 3 shards, 4 frames" in result.stdout and "shards: not made yet" in result.stdout
    assert "unreadable" not in result.stdout, "columns of nothing but zeros are left out"
    assert "25.0 %" in result.stdout and "nose                67 %" in result.stdout
    assert "an identity has" in result.stdout
    assert "identity  tracklets  cameras  frames" in run(indexed, "--identities").stdout


def test_json_holds_every_identity(tiny_dataset: TinyDataset) -> None:
    found = json.loads(run(tiny_dataset.prepared, "--json").stdout)
    assert found["identities"][-1]["statuses"].keys() == found["all"]["statuses"].keys()
    assert sum(identity["frames"] for identity in found["identities"]) == found["all"]["frames"]
    assert set(found["joint_visibility"]) == {"1", "2"}


def test_help_teaches_with_examples() -> None:
    assert "keyreid-prep describe prepared/ --contact-sheet sheet.png --frames 48" in run("--help").stdout


def test_keypoints_of_another_manifest_are_refused(indexed: Path) -> None:
    add_keypoints(indexed, 2, ["ok"] * 3, [1] * 3)
    (indexed / "keypoints" / "00002.parquet").rename(indexed / "kept")
    add_keypoints(indexed, 7, ["ok"], [1])
    (indexed / "keypoints" / "00007.parquet").rename(indexed / "keypoints" / "00002.parquet")
    with pytest.raises(FormatError, match=r"rows of tracklets 7 to 7; expected 0 to 2, .* keyreid-prep verify"):
        describe(indexed)


def test_a_broken_keypoints_file_is_one_line(indexed: Path) -> None:
    add_keypoints(indexed, 0, ["ok"] * 4, [1] * 4)
    keypoints_path(indexed, 0).write_bytes(b"half")
    result = run(indexed)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and "keyreid-prep verify says what else is wrong" in result.stderr
