import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TinyDataset

from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.commit import read_json, sha256_of, write_json
from keyreid.pipeline.errors import FormatError, KeyReIDError, SettingsError, SourceError
from keyreid.pipeline.executor import DaskExecutor, SerialExecutor
from keyreid.pipeline.extract_keypoints import extract_keypoints
from keyreid.pipeline.heatmaps import stored_heatmaps
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.keypoints import keypoints_path, read_keypoints
from keyreid.pipeline.manifest import dataset_path, read_shard_frames
from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
from keyreid.pipeline.pose.forward import PoseSettings
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.store import TrackletStore


def test_the_store_gives_the_files_own_bytes_and_the_heatmaps_of_its_keypoints(tiny_dataset: TinyDataset) -> None:
    store = TrackletStore(tiny_dataset.prepared)
    for shard in range(store.manifest.num_shards):
        rows = read_keypoints(keypoints_path(tiny_dataset.prepared, shard))
        for tracklet in read_shard_frames(tiny_dataset.prepared, shard).tracklets[::5]:
            assert store.num_frames(tracklet.tracklet_id) == len(tracklet.paths)
            frames = [len(tracklet.paths) - 1, 0]
            encoded, heatmaps = store.read(tracklet.tracklet_id, frames)
            assert encoded == [(tiny_dataset.root / tracklet.paths[frame]).read_bytes() for frame in frames]
            keypoints = rows[rows.tracklet_id == tracklet.tracklet_id].keypoints[frames]
            np.testing.assert_array_equal(heatmaps, stored_heatmaps(keypoints, np.array([[128, 256]] * 2)))
    assert max(store.read(t.tracklet_id, [0])[1].max() for t in store.tracklets("train")) > 200, "not all empty (M10)"


def test_a_second_run_does_nothing_and_dask_makes_the_same_bytes(copy: Path) -> None:
    expected = {path.name: sha256_of(path) for path in (copy / "shards").iterdir()}
    assert build_shards(copy, SerialExecutor()).num_made == 0
    shutil.rmtree(copy / "shards")
    assert build_shards(copy, DaskExecutor(workers=2)).num_made == len(expected)
    assert {path.name: sha256_of(path) for path in (copy / "shards").iterdir()} == expected


def test_shards_of_other_keypoints_are_refused_until_rebuilt(copy: Path) -> None:
    checkpoint = resolve_checkpoint("synthetic")
    extract_keypoints(copy, checkpoint, SerialExecutor(), pose=PoseSettings(96), overwrite=True)
    with pytest.raises(
        FormatError, match=r"shards of 2 of 2 .*: 00000 is made from other keypoints .*run keyreid-prep build-s"
    ):
        TrackletStore(copy)
    assert build_shards(copy, SerialExecutor()).num_kept == 0
    TrackletStore(copy)


def test_left_out_frames_and_empty_tracklets(tiny_mars: Path, tmp_path: Path) -> None:
    root, prepared = Path(shutil.copytree(tiny_mars, tmp_path / "mars")), tmp_path / "prepared"
    write_manifest(prepared, read_source("mars", root))
    first, second = read_shard_frames(prepared, 0).tracklets[:2]
    (root / first.paths[0]).write_bytes(b"broken")
    for name in second.paths:
        (root / name).unlink()
    extract_keypoints(
        prepared, resolve_checkpoint("synthetic"), SerialExecutor(), skip_frames=second.paths, max_left_out=0.2
    )
    with pytest.raises(SourceError, match=r"frames are left out .*1 unreadable, \d skipped"):
        build_shards(prepared, SerialExecutor())
    build_shards(prepared, SerialExecutor(), max_left_out=0.2)
    store = TrackletStore(prepared)
    assert store.num_frames(0) == len(first.paths) - 1
    assert store.read(0, [0])[0] == [(root / first.paths[1]).read_bytes()]
    assert [tracklet.tracklet_id for tracklet in store.dropped] == [1]
    assert 1 not in [tracklet.tracklet_id for tracklet in store.tracklets("train")]


def test_a_shard_with_a_damaged_receipt_is_rebuilt(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    receipt = copy / "receipts" / "shards" / "00001.json"
    receipt.write_text(receipt.read_text().replace('"rows": ', '"rows": 1'))
    with pytest.raises(FormatError, match=r"00001.json was changed after it was written"):
        TrackletStore(copy)
    assert build_shards(copy, SerialExecutor()).num_made == 1
    assert "00001.json was changed" in caplog.text
    TrackletStore(copy)


def test_keypoints_must_be_complete(copy: Path) -> None:
    (copy / "receipts" / "keypoints" / "00001.json").unlink()
    for use in (lambda: build_shards(copy, SerialExecutor()), lambda: TrackletStore(copy)):
        with pytest.raises(
            FormatError, match=r"keypoints of 1 of 2 shards of .* cannot be used: 00001 is not made; .*it resumes"
        ):
            use()
    write_json(dataset_path(copy), read_json(dataset_path(copy)) | {"stages": {}})
    with pytest.raises(FormatError, match=r"has no keypoints yet; run the stages in order"):
        build_shards(copy, SerialExecutor())


def test_a_frame_that_vanished_since(copy: Path, tiny_mars: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_mars, tmp_path / "mars"))
    shutil.rmtree(copy / "receipts" / "shards")
    name = read_shard_frames(copy, 1).tracklets[0].paths[0]
    (root / name).unlink()
    with pytest.raises(KeyReIDError, match=rf"1 of 2 shards of shards failed:\n  shard 00001.*frame {name} is not in"):
        build_shards(copy, SerialExecutor(), root=root)
    (root / name).write_bytes(b"no image")
    with pytest.raises(KeyReIDError, match=r"was an image when its keypoints were extracted and is none now"):
        build_shards(copy, SerialExecutor(), root=root)
    with pytest.raises(FormatError, match=r"shards of 1 of 2 shards of .*: 00001 is not made"):
        TrackletStore(copy)


def test_a_dataset_that_grows(tiny_mars: Path, tmp_path: Path) -> None:
    """Two generations under two roots: what was made stays, and everything is seen."""
    prepared, roots = tmp_path / "prepared", (tmp_path / "day1", tmp_path / "day2")
    for day, (root, people) in enumerate(zip(roots, (("ann", "bo"), ("bo", "cleo")), strict=True)):
        for person, folder in zip(people, sorted((tiny_mars / "bbox_train").iterdir()), strict=False):
            for frame, path in enumerate(sorted(folder.iterdir())[:3]):
                target = root / "train" / person / "door" / f"day{day}" / f"{frame}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    checkpoint = resolve_checkpoint("synthetic")
    for root in roots:
        write_manifest(prepared, read_source("folder", root), append=root != roots[0])
        assert extract_keypoints(prepared, checkpoint, SerialExecutor()).num_made == 1
        assert build_shards(prepared, SerialExecutor()).num_made == 1
    store = TrackletStore(prepared)
    assert [(t.identity_name, t.identity, t.shard) for t in store.tracklets("train")] == [
        ("ann", 1, 0), ("bo", 2, 0), ("bo", 2, 1), ("cleo", 3, 1),
    ]  # fmt: skip
    assert [receipt.generation for receipt in store.receipts] == [0, 1]
    assert store.read(3, [0])[0] == [(roots[1] / "train/cleo/door/day1/0.jpg").read_bytes()]
    moved = roots[1].rename(tmp_path / "moved")
    with pytest.raises(SettingsError, match=r"--root OLD=NEW for each"):
        build_shards(prepared, SerialExecutor(), root=moved)
    assert build_shards(prepared, SerialExecutor(), root={str(roots[1]): moved}, overwrite=True).num_made == 2
