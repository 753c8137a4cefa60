"""Counts of a prepared dataset, against a few rows counted by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from keyreid.cli.prep import main
from keyreid.pipeline.commit import fingerprint, read_json, write_json
from keyreid.pipeline.extract_keypoints import commit_keypoints
from keyreid.pipeline.index import Reading, SourceTracklet, write_manifest
from keyreid.pipeline.inspection.describe import describe
from keyreid.pipeline.keypoints import KeypointColumns, keypoints_path
from keyreid.pipeline.manifest import read_shard_frames
from keyreid.pipeline.skeleton import JOINT_INDEX

NOSE = JOINT_INDEX["nose"]
SETTINGS = {"select": "tracklet"}


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """Four tracklets in a shard each, the last one junk, and one of a second generation; no image exists."""
    rows = (("train", 7, "door", 4), ("query", 8, "yard", 2), ("gallery", 8, "door", 3), ("gallery", -1, "yard", 5))
    tracklets = [
        SourceTracklet(split, number, camera, [f"{split}{frame}.jpg" for frame in range(count)])
        for split, number, camera, count in rows
    ]
    write_manifest(tmp_path, Reading("few", tmp_path, tracklets), frames_per_shard=4)
    info = read_json(tmp_path / "dataset.json")
    write_json(tmp_path / "dataset.json", info | {"stages": {"keypoints": SETTINGS}})
    more = [*tracklets[:1], SourceTracklet("gallery", 0, "roof", ["later.jpg"])]
    write_manifest(tmp_path, Reading("few", tmp_path, more), append=True)
    return tmp_path


def add_keypoints(prepared: Path, shard: int, statuses: list[str], nose: list[float], inputs: str = "") -> None:
    """Keypoints of a shard of one tracklet, with confidences of the nose."""
    frames, count = read_shard_frames(prepared, shard), len(statuses)
    rows = KeypointColumns(
        np.full(count, frames.tracklets[0].tracklet_id),
        np.arange(count, dtype=np.int32),
        np.full((count, 2), (64, 128), np.int32),
        np.array(statuses),
        np.full(count, 0.5, np.float32),
        np.zeros((count, 17, 3), np.float32),
    )
    rows.keypoints[:, NOSE] = [(3, 4, confidence) for confidence in nose]
    commit_keypoints(prepared, replace(frames, sha256=inputs or frames.sha256), rows, fingerprint(SETTINGS), {})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["describe", *map(str, arguments)])


def test_what_is_known_after_index(indexed: Path) -> None:
    facts = describe(indexed).to_dict()
    assert [(one["name"], one["tracklets"], one["frames"]) for one in facts["splits"]] == [
        ("train", 1, 4), ("query", 1, 2), ("gallery", 2, 4),
    ]  # fmt: skip
    assert [(one["name"], one["number"], one["identities"], one["frames"]) for one in facts["cameras"]] == [
        ("door", 1, 2, 7), ("yard", 2, 1, 2), ("roof", 3, 1, 1),
    ]  # fmt: skip
    assert [(one["name"], one["cameras"], one["frames"]) for one in facts["identities"]] == [
        ("0", 1, 1), ("7", 1, 4), ("8", 2, 5),
    ]  # fmt: skip
    assert [one["num_made"] for one in facts["stages"]] == [0, 0] and facts["joint_visibility"] == {}
    first, second = facts["generations"]
    assert first["notes"] == {"junk": {"tracklets": 1, "frames": 5}} and first["root"] == str(indexed)
    assert second["notes"]["distractors"] == {"tracklets": 1, "frames": 1}


def test_poses_are_counted_by_split_camera_and_identity(indexed: Path) -> None:
    add_keypoints(indexed, 0, ["ok", "interpolated", "no_pose", "unreadable"], [0.9, 0.05, 0, 0])
    add_keypoints(indexed, 1, ["no_pose", "no_pose"], [0, 0])
    add_keypoints(indexed, 2, ["ok", "ok", "skipped"], [0.5, 0.1, 0])
    facts = describe(indexed).to_dict()
    assert facts["all"]["statuses"] == {"ok": 3, "interpolated": 1, "no_pose": 3, "unreadable": 1, "skipped": 1}
    found = {one["name"]: one["statuses"]["ok"] for key in ("splits", "cameras", "identities") for one in facts[key]}
    assert found == {"train": 1, "query": 0, "gallery": 2, "door": 3, "yard": 0, "roof": 0, "0": 0, "7": 1, "8": 2}
    # of the four frames with a pose in camera door, confidences of the nose are 0.9, 0.05, 0.5 and 0.1
    assert facts["joint_visibility"].keys() == {"door"}
    assert facts["joint_visibility"]["door"]["nose"] == 0.5 and facts["joint_visibility"]["door"]["left_hip"] == 0
    assert facts["left_out"] == {"unreadable": ["train3.jpg"], "skipped": ["gallery2.jpg"]}
    assert facts["stages"][0]["num_made"] == 3


def test_what_is_outdated_does_not_count(indexed: Path) -> None:
    add_keypoints(indexed, 0, ["ok"] * 4, [1] * 4)
    assert describe(indexed).stages[0].frames == 4
    keypoints_path(indexed, 0).unlink()
    assert describe(indexed).stages[0].frames == 0
    add_keypoints(indexed, 0, ["ok"] * 4, [1] * 4, inputs="others")
    facts = describe(indexed).to_dict()
    assert facts["stages"][0]["num_made"] == facts["all"]["statuses"]["ok"] == 0


def test_tables_of_the_command(indexed: Path) -> None:
    add_keypoints(indexed, 0, ["ok", "ok", "no_pose", "skipped"], [1, 0, 0, 0])
    said = run(indexed).stdout
    for part in (
        "generation 0: 3 tracklets, 9 frames, 3 shards from",
        "junk: 5 frames, 1 tracklets",
        "distractors: 1 frames, 1 tracklets",
        "keypoints: 1 of 4 shards, 4 frames",
        "shards: not made yet",
        "left out, skipped: 1 frames: train3.jpg",
        "an identity has",
    ):
        assert part in said
    lines = [line.split() for line in said.splitlines()]
    assert ["train", "1", "1", "1", "4", "2", "1", "1", "50.0", "%"] in lines
    assert ["query", "1", "1", "1", "2", "0", "0", "0", "-"] in lines
    assert "unreadable" not in said, "columns of nothing but zeros are left out"
    assert ["nose", "50", "%"] in lines
    assert ["identity", "tracklets", "cameras", "frames", "ok"] in [
        line.split()[:5] for line in run(indexed, "--identities").stdout.splitlines()
    ]
    assert len(json.loads(run(indexed, "--json").stdout)["identities"]) == 3
    keypoints_path(indexed, 0).write_bytes(bytes(keypoints_path(indexed, 0).stat().st_size))
    result = run(indexed)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and "keyreid-prep verify says what to do" in result.stderr
