import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TinyDataset
from PIL import Image

from keyreid.pipeline.commit import read_receipt, sha256_of
from keyreid.pipeline.errors import FormatError, SettingsError, SourceError
from keyreid.pipeline.executor import DaskExecutor, SerialExecutor
from keyreid.pipeline.extract_keypoints import MIN_CONFIDENCE, extract_keypoints
from keyreid.pipeline.images import read_frame
from keyreid.pipeline.keypoints import keypoints_path, read_keypoints
from keyreid.pipeline.manifest import read_manifest, write_manifest
from keyreid.pipeline.pose.checkpoints import load_checkpoint, resolve_checkpoint
from keyreid.pipeline.pose.frames import PADDING_VALUE, make_picture
from keyreid.pipeline.pose.pifpaf import PifPafEstimator
from keyreid.pipeline.pose.settings import DecoderSettings, PoseSettings
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
    found = [pose for pose in poses if pose.status in ("ok", "interpolated")]
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


def test_four_dask_workers_finish_an_interrupted_run_with_the_same_bytes(copy: Path) -> None:
    expected = hashes(copy)
    first, second = sorted((copy / "receipts" / "keypoints").iterdir())[:2]
    first.unlink()  # as if the run had stopped between the shard and its receipt
    second.unlink()
    (copy / "keypoints" / second.with_suffix(".parquet").name).unlink()  # and before the shard
    summary = extract_keypoints(copy, resolve_checkpoint("synthetic"), DaskExecutor(workers=4))
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


def test_the_authors_rule_keeps_the_best_score_of_each_frame(copy: Path) -> None:
    """And the default may keep another person or nobody; where it keeps one, it is one of PifPaf's or between two."""
    settings = PoseSettings(128)
    checkpoint = resolve_checkpoint("synthetic")
    extract_keypoints(copy, checkpoint, SerialExecutor(), select="best-score", overwrite=True)
    manifest = read_manifest(copy)
    estimator = PifPafEstimator(load_checkpoint(checkpoint))
    for shard in range(manifest.num_shards):
        rows = {(pose.tracklet_id, pose.frame_index): pose for pose in read_keypoints(keypoints_path(copy, shard))}
        for tracklet in manifest.shard(shard)[:4]:
            paths = [Path(manifest.root) / name for name in tracklet.frame_paths]
            found = estimator.estimate([(0, make_picture(read_frame(path), settings)) for path in paths])
            for index, people in enumerate(found):
                row = rows[tracklet.tracklet_id, index]
                assert row.status == ("ok" if people else "no_pose")
                if people:
                    assert row.score == pytest.approx(max(person.score for person in people), abs=1e-3)


def test_short_gaps_are_filled_and_say_so(tiny_mars: Path, tmp_path: Path) -> None:
    """A grey frame in the middle of a tracklet: nobody is in it, and the pose lies between its neighbours'."""
    root = Path(shutil.copytree(tiny_mars, tmp_path / "mars"))
    manifest = read_source("mars", root)
    tracklet = next(t for t in manifest.tracklets if t.num_frames >= 5)
    Image.new("RGB", (128, 256), (124, 116, 104)).save(root / tracklet.frame_paths[2])
    rows = {}
    for rule in ("tracklet", "best-score"):
        write_manifest(tmp_path / rule, manifest)
        summary = extract_keypoints(tmp_path / rule, resolve_checkpoint("synthetic"), SerialExecutor(), select=rule)
        poses = read_keypoints(keypoints_path(tmp_path / rule, tracklet.shard))
        rows[rule] = [pose for pose in poses if pose.tracklet_id == tracklet.tracklet_id]
        counted = [receipt.notes["statuses"]["interpolated"] for receipt in summary.receipts]  # type: ignore[index]
        assert (sum(counted) > 0) is (rule == "tracklet")
    assert rows["best-score"][2].status == "no_pose" and not rows["best-score"][2].keypoints.any()
    before, filled, after = rows["tracklet"][1:4]
    assert filled.status == "interpolated" and 0 < filled.score < min(before.score, after.score)
    joints = filled.keypoints[:, 2] > 0
    assert joints.sum() >= 5
    low, high = (pick(before.keypoints, after.keypoints)[joints, :2] - 1e-3 for pick in (np.minimum, np.maximum))
    assert ((filled.keypoints[joints, :2] >= low) & (filled.keypoints[joints, :2] <= high + 2e-3)).all()
    assert (filled.keypoints[joints, 2] < np.minimum(before.keypoints, after.keypoints)[joints, 2]).all()


def test_receipts_say_what_the_bytes_depend_on(tiny_dataset: TinyDataset) -> None:
    for stage, packages in (("keypoints", {"openpifpaf", "torch"}), ("shards", {"h5py", "pillow"})):
        receipt = read_receipt(tiny_dataset.prepared, stage, 0)
        assert receipt is not None
        assert packages | {"keyreid", "python", "device"} <= set(receipt.made_with)
        assert receipt.made_with["device"].startswith("cpu ")
        assert receipt.num_bytes == (tiny_dataset.prepared / receipt.file).stat().st_size


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_height": 128, "scale": 2.0}, "input height 128 and scale 2.0; expected one of them"),
        ({"input_height": None, "scale": 4.0}, "scale is 4.0; expected 1 to 3"),
        ({"input_height": 128, "batch_size": 0}, "batch size is 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        PoseSettings(**settings)
    with pytest.raises(SettingsError, match=r"threshold seed is 1\.5; expected 0 to 1"):
        DecoderSettings(seed=1.5)


@pytest.mark.parametrize(
    ("size", "settings", "padded", "scale"),
    [
        ((128, 256), PoseSettings(256), (257, 129), 1.0),
        ((64, 128), PoseSettings(256), (257, 129), 2.0),
        ((64, 128), PoseSettings(None, scale=1.5), (193, 97), 1.5),
        ((1, 1), PoseSettings(128), (129, 129), 128.0),
        ((9000, 1), PoseSettings(128), (1, 513), 512 / 9000),
        ((10_000, 5000), PoseSettings(None, scale=3.0), (1025, 2049), 0.2048),
    ],
)
def test_pictures_keep_their_aspect_ratio_and_a_bounded_size(
    size: tuple[int, int], settings: PoseSettings, padded: tuple[int, int], scale: float
) -> None:
    picture = make_picture(np.full((size[1], size[0], 3), 7, np.uint8), settings)
    assert picture.frame_size == size
    assert tuple(picture.pixels.shape) == (*padded, 3)
    assert picture.scale == pytest.approx(scale)
    assert (picture.pixels[0, 0] == 7).all() and (picture.pixels[-1, -1] == PADDING_VALUE).all()


def test_a_source_folder_that_is_gone(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"frames' folder .*elsewhere is not there; mount it, or name .* --root"):
        extract_keypoints(copy, resolve_checkpoint("synthetic"), SerialExecutor(), root=tmp_path / "elsewhere")
