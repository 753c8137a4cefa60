import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TinyDataset

from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.commit import sha256_of
from keyreid.pipeline.errors import FormatError, SettingsError, SourceError
from keyreid.pipeline.executor import DaskExecutor, SerialExecutor
from keyreid.pipeline.extract_keypoints import extract_keypoints
from keyreid.pipeline.heatmaps import stored_heatmaps
from keyreid.pipeline.keypoints import keypoints_path, read_keypoints
from keyreid.pipeline.manifest import write_manifest
from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
from keyreid.pipeline.pose.settings import PoseSettings
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.store import TrackletStore


@pytest.fixture
def copy(tiny_dataset: TinyDataset, tmp_path: Path) -> Path:
    """The tiny prepared dataset, to be changed."""
    return Path(shutil.copytree(tiny_dataset.prepared, tmp_path / "prepared"))


def test_the_store_gives_the_files_own_bytes_and_the_heatmaps_of_its_keypoints(tiny_dataset: TinyDataset) -> None:
    store = TrackletStore(tiny_dataset.prepared)
    poses = {
        (pose.tracklet_id, pose.frame_index): pose
        for n in range(store.manifest.num_shards)
        for pose in read_keypoints(keypoints_path(tiny_dataset.prepared, n))
    }
    for tracklet in store.manifest.tracklets[::5]:
        assert store.num_frames(tracklet.tracklet_id) == tracklet.num_frames
        frames = [tracklet.num_frames - 1, 0]
        encoded, heatmaps = store.read(tracklet.tracklet_id, frames)
        assert encoded == [(tiny_dataset.root / tracklet.frame_paths[frame]).read_bytes() for frame in frames]
        keypoints = np.stack([poses[tracklet.tracklet_id, frame].keypoints for frame in frames])
        np.testing.assert_array_equal(heatmaps, stored_heatmaps(keypoints, np.array([[128, 256]] * 2)))
    assert max(store.read(t.tracklet_id, [0])[1].max() for t in store.tracklets("train")) > 200, "not all empty (M10)"


def test_a_second_run_does_nothing_and_dask_makes_the_same_bytes(copy: Path) -> None:
    expected = {path.name: sha256_of(path) for path in (copy / "shards").iterdir()}
    assert build_shards(copy, SerialExecutor()).num_made == 0
    shutil.rmtree(copy / "shards")
    assert build_shards(copy, DaskExecutor(workers=2)).num_made == len(expected)
    assert {path.name: sha256_of(path) for path in (copy / "shards").iterdir()} == expected


def test_new_keypoints_make_new_shards(copy: Path) -> None:
    extract_keypoints(copy, resolve_checkpoint("synthetic"), SerialExecutor(), pose=PoseSettings(96), overwrite=True)
    assert build_shards(copy, SerialExecutor()).num_kept == 0


def test_unreadable_frames_and_empty_tracklets_are_left_out(tiny_mars: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_mars, tmp_path / "mars"))
    manifest = read_source("mars", root)
    first, second = manifest.tracklets[:2]
    (root / first.frame_paths[0]).write_bytes(b"broken")
    for name in second.frame_paths:
        (root / name).unlink()
    prepared = tmp_path / "prepared"
    write_manifest(prepared, manifest)
    extract_keypoints(prepared, resolve_checkpoint("synthetic"), SerialExecutor())
    build_shards(prepared, SerialExecutor())
    store = TrackletStore(prepared)
    assert store.num_frames(first.tracklet_id) == first.num_frames - 1
    assert store.read(first.tracklet_id, [0])[0] == [(root / first.frame_paths[1]).read_bytes()]
    assert [tracklet.tracklet_id for tracklet in store.dropped] == [second.tracklet_id]
    assert second.tracklet_id not in [tracklet.tracklet_id for tracklet in store.tracklets("train")]


def test_keypoints_must_be_complete(copy: Path) -> None:
    (copy / "receipts" / "keypoints" / "00001.json").unlink()
    with pytest.raises(
        FormatError, match=r"keypoints of 1 of \d+ shards are missing .*00001.*goes on where it stopped"
    ):
        build_shards(copy, SerialExecutor())


def test_a_dataset_without_keypoints(tiny_mars: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, read_source("mars", tiny_mars))
    with pytest.raises(FormatError, match=r"has no keypoints yet; run the stages in order"):
        build_shards(tmp_path, SerialExecutor())


def test_a_frame_that_vanished_since(copy: Path, tiny_mars: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_mars, tmp_path / "mars"))
    shutil.rmtree(copy / "receipts" / "shards")
    next(iter(sorted((root / "bbox_train").rglob("*.jpg")))).unlink()
    with pytest.raises(SourceError, match=r"could be read when its keypoints were extracted and cannot be now"):
        build_shards(copy, SerialExecutor(), root=root)
    with pytest.raises(FormatError, match=r"shards of .* are not built"):
        TrackletStore(copy)


def test_an_identity_split_of_a_dataset_that_has_one(tiny_dataset: TinyDataset) -> None:
    with pytest.raises(
        SettingsError, match=r"identity split 3 of synthetic-mars, which has one fixed split; leave --id"
    ):
        TrackletStore(tiny_dataset.prepared, identity_split=3)
