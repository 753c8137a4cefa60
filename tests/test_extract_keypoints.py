import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TinyDataset
from PIL import Image

from keyreid.pipeline.commit import sha256_of
from keyreid.pipeline.errors import FormatError, SourceError
from keyreid.pipeline.executor import DaskExecutor, SerialExecutor
from keyreid.pipeline.extract_keypoints import MIN_CONFIDENCE, extract_keypoints
from keyreid.pipeline.keypoints import keypoints_path, read_keypoints
from keyreid.pipeline.manifest import read_manifest, write_manifest
from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
from keyreid.pipeline.pose.settings import PoseSettings
from keyreid.pipeline.sources import read_source


@pytest.fixture
def copy(tiny_dataset: TinyDataset, tmp_path: Path) -> Path:
    """The tiny prepared dataset, to be changed."""
    return Path(shutil.copytree(tiny_dataset.prepared, tmp_path / "prepared"))


def hashes(prepared: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted((prepared / "keypoints").iterdir())}


def test_every_frame_has_one_row_and_most_have_a_person(tiny_dataset: TinyDataset) -> None:
    manifest = read_manifest(tiny_dataset.prepared)
    assert manifest.num_shards > 1
    expected = [(t.tracklet_id, frame) for t in manifest.tracklets for frame in range(t.num_frames)]
    poses = [p for n in range(manifest.num_shards) for p in read_keypoints(keypoints_path(tiny_dataset.prepared, n))]
    assert [(pose.tracklet_id, pose.frame_index) for pose in poses] == expected
    assert {(pose.width, pose.height) for pose in poses} == {(128, 256)}
    found = [pose for pose in poses if pose.status == "ok"]
    assert len(found) > 0.85 * len(poses)
    for pose in found:
        confidence = pose.keypoints[:, 2]
        assert 0 < pose.score <= 1
        assert ((confidence == 0) | (confidence >= MIN_CONFIDENCE)).all()
        assert (pose.keypoints[confidence == 0] == 0).all()


def test_a_second_run_does_nothing(copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.*") if path.name != ".lock"}
    summary = extract_keypoints(copy, resolve_checkpoint("synthetic"), SerialExecutor())
    assert summary.num_made == 0 and summary.num_kept == read_manifest(copy).num_shards
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*.*") if path.name != ".lock"} == before


def test_two_dask_workers_finish_an_interrupted_run_with_the_same_bytes(copy: Path) -> None:
    expected = hashes(copy)
    first, second = sorted((copy / "receipts" / "keypoints").iterdir())[:2]
    first.unlink()  # as if the run had stopped between the shard and its receipt
    second.unlink()
    (copy / "keypoints" / second.with_suffix(".parquet").name).unlink()  # and before the shard
    summary = extract_keypoints(copy, resolve_checkpoint("synthetic"), DaskExecutor(workers=2))
    assert summary.num_made == 2
    assert hashes(copy) == expected


def test_frames_that_cannot_be_read_get_a_status_and_never_stop_the_run(tiny_mars: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_mars, tmp_path / "mars"))
    manifest = read_source("mars", root)
    names = [tracklet.frame_paths[0] for tracklet in manifest.tracklets[:4]]
    (root / names[0]).unlink()
    (root / names[1]).write_bytes(b"")
    whole = (root / names[2]).read_bytes()
    (root / names[2]).write_bytes(whole[: len(whole) // 2])
    Image.new("CMYK", (128, 256)).save(root / names[3])  # unusual, but readable
    write_manifest(tmp_path / "prepared", manifest)
    summary = extract_keypoints(tmp_path / "prepared", resolve_checkpoint("synthetic"), SerialExecutor())
    assert [name for receipt in summary.receipts for name in receipt.notes["unreadable"]] == names[:3]  # type: ignore[attr-defined]
    poses = {
        (pose.tracklet_id, pose.frame_index): pose
        for n in range(manifest.num_shards)
        for pose in read_keypoints(keypoints_path(tmp_path / "prepared", n))
    }
    assert [poses[number, 0].status for number in range(3)] == ["unreadable"] * 3
    assert poses[3, 0].status != "unreadable"
    assert np.abs(poses[0, 0].keypoints).max() == 0 and poses[0, 0].width == 0


def test_other_settings_are_refused_until_overwrite(copy: Path) -> None:
    with pytest.raises(FormatError, match=r"other settings of keypoints: pose.input_height 128, now 96; .*--overwrite"):
        extract_keypoints(copy, resolve_checkpoint("synthetic"), SerialExecutor(), pose=PoseSettings(96))
    before = hashes(copy)
    summary = extract_keypoints(
        copy, resolve_checkpoint("synthetic"), SerialExecutor(), pose=PoseSettings(96), overwrite=True
    )
    assert summary.num_kept == 0 and hashes(copy) != before


def test_a_source_folder_that_is_gone(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"frames' folder .*elsewhere is not there; mount it, or name .* --root"):
        extract_keypoints(copy, resolve_checkpoint("synthetic"), SerialExecutor(), root=tmp_path / "elsewhere")
