"""Keypoints as COCO JSON, and back again without the loss of a bit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from foreign_keypoints import HEIGHT, NAMES, WIDTH, index_blank_frames, person, stored, take

from keyreid.cli.prep import main
from keyreid.pipeline.commit import commit_shard, read_json, read_receipt, write_json
from keyreid.pipeline.errors import FormatError
from keyreid.pipeline.exchange.coco import export_keypoints
from keyreid.pipeline.keypoints import keypoints_path, read_keypoints, write_keypoints
from keyreid.pipeline.manifest import dataset_path
from keyreid.pipeline.records import FRAME_INTERPOLATED, FRAME_OK
from keyreid.pipeline.skeleton import JOINTS


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Six frames of all kinds: ok, interpolated, nobody; unreadable, ok, ok."""
    prepared = index_blank_frames(tmp_path)
    (tmp_path / "frames" / NAMES[3]).write_bytes(b"")
    people = [{"image_id": name, "keypoints": person(n).ravel().tolist()} for n, name in enumerate(NAMES) if n != 2]
    source = tmp_path / "source.json"
    source.write_text(json.dumps([entry | {"category_id": 1, "score": 0.3} for entry in people]))
    take(prepared, source)
    keypoints = np.random.default_rng(9).uniform(0, 60, (17, 3)).astype(np.float32)
    keypoints[:, 2] = np.geomspace(1e-7, 1, 17)  # interpolation may bring confidences under any threshold
    change_frame(prepared, 1, status=FRAME_INTERPOLATED, score=float(np.float32(1 / 3)), keypoints=keypoints)
    return prepared


def change_frame(prepared: Path, index: int, status: str, score: float, keypoints: np.ndarray) -> None:
    """Change a row of the first shard, and let its receipt fit."""
    rows = read_keypoints(keypoints_path(prepared, 0))
    changed = replace(rows, status=rows.status.astype("U20"), score=rows.score.copy(), keypoints=rows.keypoints.copy())
    changed.status[index], changed.score[index], changed.keypoints[index] = status, score, keypoints
    receipt = read_receipt(prepared, "keypoints", 0)
    facts = {
        name: getattr(receipt, name) for name in ("generation", "rows", "settings", "inputs", "notes", "made_with")
    }
    path = keypoints_path(prepared, 0)
    commit_shard(prepared, "keypoints", 0, path, lambda partial: write_keypoints(partial, changed), **facts)


def test_what_is_exported_and_imported_is_the_same_to_the_bit(prepared: Path, tmp_path: Path) -> None:
    export_keypoints(prepared, tmp_path / "out.json")
    copy = tmp_path / "copy"
    shutil.copytree(prepared / "manifest", copy / "manifest")
    write_json(dataset_path(copy), read_json(dataset_path(prepared)) | {"stages": {}})
    match = take(copy, tmp_path / "out.json").match
    assert (match.num_without_entry, match.unmatched) == (1, ()), "only the unreadable frame is not exported"
    found, expected = stored(copy), stored(prepared)
    assert list(found) == list(expected) and FRAME_INTERPOLATED in [pose.status for pose in expected.values()]
    for name, pose in expected.items():
        assert found[name].keypoints.tobytes() == pose.keypoints.tobytes(), name
        assert (found[name].score, *found[name].sizes) == (pose.score, *pose.sizes)
        assert found[name].status == (FRAME_OK if pose.status == FRAME_INTERPOLATED else pose.status)


def test_the_document_has_the_form_of_coco_annotations(prepared: Path, tmp_path: Path) -> None:
    """What pycocotools indexes, and the number of joints and flags that its evaluation reads."""
    summary = export_keypoints(prepared, tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    assert (summary.num_images, summary.num_people, summary.num_left_out) == (5, 4, 1)
    assert [image["file_name"] for image in document["images"]] == [name for name in NAMES if name != NAMES[3]]
    assert {(image["width"], image["height"]) for image in document["images"]} == {(WIDTH, HEIGHT)}
    images = {image["id"]: image["file_name"] for image in document["images"]}
    assert len(images) == len({annotation["id"] for annotation in document["annotations"]}) + 1 == 5
    (category,) = document["categories"]
    assert category["keypoints"] == list(JOINTS)
    assert all(1 <= joint <= 17 for bone in category["skeleton"] for joint in bone), "COCO counts joints from 1"
    first = document["annotations"][0]
    keypoints = np.reshape(first["keypoints"], (17, 3))
    assert images[first["image_id"]] == NAMES[0] and first["category_id"] == category["id"]
    assert keypoints[4].tolist() == [0, 0, 0] and (np.delete(keypoints[:, 2], 4) == 2).all()
    assert first["num_keypoints"] == 16 and first["iscrowd"] == 0
    x, y, width, height = first["bbox"]
    found = np.delete(keypoints[:, :2], 4, axis=0)
    np.testing.assert_allclose([x, y, x + width, y + height], [*found.min(0), *found.max(0)], atol=1e-5)
    assert first["area"] == pytest.approx(width * height)


def test_a_shard_that_is_not_as_its_receipt_says_is_refused(prepared: Path, tmp_path: Path) -> None:
    path = keypoints_path(prepared, 1)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(FormatError, match=r"00001.parquet has SHA-256"):
        export_keypoints(prepared, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_the_command_teaches_and_reports(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert "keyreid-prep export-keypoints prepared/ keypoints.json" in run("--help").output
    answer = run(prepared, out)
    assert answer.exit_code == 0 and "4 people in 5 frames, 1 frames left out" in answer.stdout, answer.output
    out.write_text("mine")
    answer = run(prepared, out)
    assert answer.exit_code == 1 and "out.json exists" in answer.stderr and "add --overwrite" in answer.stderr
    assert out.read_text() == "mine"
    again = json.loads(run(prepared, out, "--overwrite", "--json").stdout)
    assert again == {"num_images": 5, "num_people": 4, "num_left_out": 1} and json.loads(out.read_text())["images"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export-keypoints", *map(str, arguments)])
