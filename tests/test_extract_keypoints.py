import errno
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TinyDataset
from PIL import Image

from keyreid.pipeline import images
from keyreid.pipeline.commit import read_receipt, sha256_of
from keyreid.pipeline.errors import FormatError, KeyReIDError, SettingsError, SourceError, SurroundingsError
from keyreid.pipeline.executor import DaskExecutor, SerialExecutor
from keyreid.pipeline.extract_keypoints import MIN_CONFIDENCE, extract_keypoints
from keyreid.pipeline.images import read_frame
from keyreid.pipeline.index import Reading, SourceTracklet, write_manifest
from keyreid.pipeline.keypoints import KeypointColumns, keypoints_path, read_keypoints
from keyreid.pipeline.manifest import read_manifest, read_shard_frames
from keyreid.pipeline.pose.checkpoints import load_checkpoint, resolve_checkpoint
from keyreid.pipeline.pose.forward import PADDING_VALUE, PoseSettings, make_picture
from keyreid.pipeline.pose.pifpaf import PifPafEstimator
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.stages import StageSummary


def hashes(prepared: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted((prepared / "keypoints").iterdir())}


def all_rows(prepared: Path) -> KeypointColumns:
    shards = [read_keypoints(keypoints_path(prepared, n)) for n in range(read_manifest(prepared).num_shards)]
    return KeypointColumns(*(np.concatenate([getattr(s, f.name) for s in shards]) for f in fields(KeypointColumns)))


@pytest.fixture
def indexed(tiny_mars: Path, tmp_path: Path) -> Path:
    """Two shards of three short tracklets each, whose frames may be changed; returns the prepared folder."""
    root = Path(shutil.copytree(tiny_mars, tmp_path / "mars"))
    reading = read_source("mars", root)
    tracklets = [replace(t, frame_paths=t.frame_paths[:2], frame_numbers=(1, 2)) for t in reading.tracklets]
    write_manifest(tmp_path / "indexed", replace(reading, tracklets=tracklets[:6]), frames_per_shard=6)
    return tmp_path / "indexed"


def first_paths(prepared: Path) -> list[str]:
    """The first frame of each tracklet of the first shard, relative to the root."""
    return [tracklet.paths[0] for tracklet in read_shard_frames(prepared, 0).tracklets]


def test_every_frame_has_one_row_and_most_have_a_person(tiny_dataset: TinyDataset) -> None:
    manifest = read_manifest(tiny_dataset.prepared)
    assert manifest.num_shards > 1
    expected = [(t.tracklet_id, frame) for t in manifest.tracklets for frame in range(t.num_frames)]
    rows = all_rows(tiny_dataset.prepared)
    assert list(zip(rows.tracklet_id.tolist(), rows.frame_index.tolist(), strict=True)) == expected
    assert (rows.sizes == (128, 256)).all()
    found = rows.with_pose
    assert found.sum() > 0.85 * len(rows)
    confidence = rows.keypoints[found, :, 2]
    assert ((rows.score[found] > 0) & (rows.score[found] <= 1)).all()
    assert ((confidence == 0) | (confidence >= MIN_CONFIDENCE)).all()
    assert (rows.keypoints[found][confidence == 0] == 0).all()


def test_a_second_run_does_nothing_unless_it_overwrites(copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.*") if path.name != ".lock"}
    summary = extract(copy)
    assert summary.num_made == 0 and summary.num_kept == read_manifest(copy).num_shards
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*.*") if path.name != ".lock"} == before
    assert extract(copy, overwrite=True).num_kept == 0


def test_four_dask_workers_finish_an_interrupted_run_with_the_same_bytes(copy: Path) -> None:
    expected = hashes(copy)
    first, second = sorted((copy / "receipts" / "keypoints").iterdir())[:2]
    first.unlink()  # as if the run had stopped between the shard and its receipt
    second.unlink()
    (copy / "keypoints" / second.with_suffix(".parquet").name).unlink()  # and before the shard
    summary = extract_keypoints(copy, resolve_checkpoint("synthetic"), DaskExecutor(workers=4))
    assert summary.num_made == 2
    assert hashes(copy) == expected


def test_frames_whose_content_is_no_image_are_left_out(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, names = read_shard_frames(indexed, 0).root, first_paths(indexed)
    (root / names[0]).write_bytes(b"")
    complete = (root / names[1]).read_bytes()
    (root / names[1]).write_bytes(complete[: len(complete) // 2])
    Image.new("CMYK", (128, 256)).save(root / names[2])  # unusual, but readable
    with pytest.raises(SourceError, match=r"2 of 12 frames are left out \(2 unreadable\), .*--max-left-out"):
        extract(indexed, max_left_out=0.01)
    summary = extract(indexed, max_left_out=0.2)
    assert summary.num_made == 0, "all the work was done"
    assert [name for receipt in summary.receipts for name in receipt.notes["unreadable"]] == names[:2]
    rows = all_rows(indexed)
    firsts = np.flatnonzero(rows.frame_index == 0)
    assert (rows.status[firsts[:2]] == "unreadable").all() and rows.status[firsts[2]] != "unreadable"
    assert not rows.keypoints[firsts[0]].any() and not rows.sizes[firsts[0]].any()
    (root / names[1]).write_bytes(complete)
    opened, read = [], images.read_file
    monkeypatch.setattr(images, "read_file", lambda path: opened.append(path) or read(path))
    summary = extract(indexed, retry_left_out=True, max_left_out=0.1)
    assert summary.num_made == 1 and summary.receipts[0].notes["unreadable"] == names[:1]
    tried = [root / path for tracklet in read_shard_frames(indexed, 0).tracklets[:2] for path in tracklet.paths]
    assert opened == tried, "the tracklets with frames left out, and no other"
    opened.clear()
    with monkeypatch.context() as patch:
        patch.setattr("keyreid.pipeline.extract_keypoints.package_versions", lambda *_: {"keyreid": "another"})
        extract(indexed, retry_left_out=True, max_left_out=0.1)
    assert len(opened) == len(read_shard_frames(indexed, 0).paths), "a receipt speaks for all of its rows"
    retried = hashes(indexed)
    extract(indexed, overwrite=True, max_left_out=0.1)
    assert hashes(indexed) == retried


def extract(prepared: Path, **options: Any) -> StageSummary:
    return extract_keypoints(prepared, resolve_checkpoint("synthetic"), SerialExecutor(), **options)


def fail_to_read(path: Path, error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one file, what a broken disk does: permissions do not stop root."""
    read = images.read_file

    def read_or_fail(name: Path) -> bytes:
        if name == path:
            raise error
        return read(name)

    monkeypatch.setattr(images, "read_file", read_or_fail)


@pytest.mark.parametrize("kind", ["missing", "I/O error", "no permission", "FIFO", "memory", "device"])
def test_what_the_surroundings_do_is_no_fact_about_a_frame(
    indexed: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError if kind == "memory" else RuntimeError("CUDA error: an illegal memory access was encountered")

    root, name = read_shard_frames(indexed, 0).root, first_paths(indexed)[0]
    path, content = root / name, (root / name).read_bytes()
    with monkeypatch.context() as patch:
        if kind in ("missing", "FIFO"):
            path.unlink()
            if kind == "FIFO":
                os.mkfifo(path)
        elif kind in ("memory", "device"):
            patch.setattr("keyreid.pipeline.pose.forward.FastForward.__call__", fail)
        else:
            fail_to_read(path, OSError(errno.EIO if kind == "I/O error" else errno.EACCES, "failed", str(path)), patch)
        with pytest.raises(KeyReIDError, match=r"of 2 shards of keypoints failed:\n  shard 00000") as caught:
            extract(indexed)
        assert read_receipt(indexed, "keypoints", 0) is None, "nothing is committed"
        if kind in ("memory", "device"):
            assert f"Error: {'CUDA' if kind == 'device' else ''}" in str(caught.value)
            assert f"find-bad-frames {indexed} --shard 0" in str(caught.value)
        else:
            assert read_receipt(indexed, "keypoints", 1) is not None, "the others are made"
            assert name in str(caught.value)
    if kind in ("missing", "FIFO"):
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    extract(indexed)
    assert read_receipt(indexed, "keypoints", 0) is not None


def test_a_root_that_is_gone_or_empty_is_refused(indexed: Path, tmp_path: Path) -> None:
    """An unmounted folder made 162 of 162 frames unreadable, exit code 0, for ever."""
    with pytest.raises(SurroundingsError, match=r"cannot read the frames' folder .*empty \(No such file.*--root"):
        extract(indexed, root=tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SurroundingsError, match=r"frames' folder .*empty is empty on .*; expected the frames; mount"):
        extract(indexed, root=tmp_path / "empty")
    (tmp_path / "empty" / "other.txt").touch()
    with pytest.raises(
        KeyReIDError, match=r"2 of 2 shards of keypoints failed:\n.*frame bbox_train/.* is not in .*--root"
    ):
        extract(indexed, root=tmp_path / "empty")
    assert extract(indexed).num_made == 2


def test_overwrite_destroys_nothing_before_it_can_work(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyreid.pipeline.executor.CONNECT_SECONDS", 1.0)
    before = {path: path.read_bytes() for path in copy.rglob("*.*") if path.is_file() and path.name != ".lock"}
    executor = DaskExecutor(scheduler_address="tcp://127.0.0.1:9")
    with pytest.raises(SettingsError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 .*`dask scheduler`"):
        extract_keypoints(copy, resolve_checkpoint("synthetic"), executor, pose=PoseSettings(96), overwrite=True)
    assert {path: path.read_bytes() for path in before} == before


def test_frames_far_apart_are_no_neighbours(tmp_path: Path, tiny_mars: Path) -> None:
    """The same pictures, numbered 1, 2, 3 ... or a thousand apart: gaps are filled in the first alone."""
    reading = read_source("mars", tiny_mars)
    tracklet = next(t for t in reading.tracklets if len(t.frame_paths) >= 5)
    root = tmp_path / "frames"
    root.mkdir()
    for place, path in enumerate(tracklet.frame_paths):
        shutil.copy(tiny_mars / path, root / f"{place}.jpg")
    Image.new("RGB", (128, 256), (124, 116, 104)).save(root / "2.jpg")
    names = tuple(f"{place}.jpg" for place in range(len(tracklet.frame_paths)))
    statuses = {}
    for step in (1, 1000):
        source = SourceTracklet("train", 1, 1, names, [step * place for place in range(len(names))])
        write_manifest(tmp_path / str(step), Reading("apart", root, [source]))
        extract(tmp_path / str(step))
        statuses[step] = all_rows(tmp_path / str(step)).status[2]
    assert statuses == {1: "interpolated", 1000: "no_pose"}


def test_other_settings_are_refused_until_overwrite(copy: Path) -> None:
    with pytest.raises(FormatError, match=r"other settings of keypoints: pose.input_height 128, now 96; .*--overwrite"):
        extract_keypoints(copy, resolve_checkpoint("synthetic"), SerialExecutor(), pose=PoseSettings(96))
    before = hashes(copy)
    summary = extract_keypoints(
        copy, resolve_checkpoint("synthetic"), SerialExecutor(), pose=PoseSettings(96), overwrite=True
    )
    assert summary.num_kept == 0 and hashes(copy) != before


def test_the_authors_rule_keeps_the_best_score_of_each_frame(copy: Path) -> None:
    settings, checkpoint = PoseSettings(128), resolve_checkpoint("synthetic")
    extract(copy, select="best-score", overwrite=True)
    estimator = PifPafEstimator(load_checkpoint(checkpoint))
    rows, frames = read_keypoints(keypoints_path(copy, 0)), read_shard_frames(copy, 0)
    for tracklet in frames.tracklets[:4]:
        own = rows[rows.tracklet_id == tracklet.tracklet_id]
        pictures = [(0, make_picture(read_frame(frames.root / name), settings)) for name in tracklet.paths]
        for index, people in enumerate(estimator.estimate(pictures)):
            assert own.status[index] == ("ok" if people else "no_pose")
            if people:
                assert own.score[index] == pytest.approx(max(person.score for person in people), abs=1e-3)


def test_receipts_say_what_the_bytes_depend_on(tiny_dataset: TinyDataset) -> None:
    for stage, packages in (("keypoints", {"openpifpaf", "torch"}), ("shards", {"h5py", "pillow"})):
        receipt = read_receipt(tiny_dataset.prepared, stage, 0)
        assert receipt is not None
        assert packages | {"keyreid", "python", "device"} <= set(receipt.made_with)
        assert receipt.made_with["device"].startswith("cpu ")
        assert receipt.num_bytes == (tiny_dataset.prepared / receipt.file).stat().st_size


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
