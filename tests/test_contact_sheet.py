"""Which frames the contact sheet shows, where they come from, and what is drawn over them."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import TinyDataset
from PIL import Image

from keyreid.cli.prep import main
from keyreid.pipeline.errors import SettingsError, SourceError
from keyreid.pipeline.inspection.contact_sheet import write_contact_sheet
from keyreid.pipeline.inspection.frame_picture import (
    FRAME_SIZE,
    GAP,
    PAPER,
    PART_COLOURS,
    STATUS_COLOURS,
    TILE_SIZE,
    TROUBLE,
    draw_frame,
)
from keyreid.pipeline.inspection.samples import SampledFrame, choose_frames, read_samples
from keyreid.pipeline.manifest import SourceTracklet, build_manifest, read_manifest
from keyreid.pipeline.skeleton import JOINT_INDEX, PARTS


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in ("describe", *arguments)])


def copy_without(tiny_dataset: TinyDataset, place: Path, *stages: str) -> Path:
    """The tiny prepared dataset as it was before some stages."""
    prepared = Path(shutil.copytree(tiny_dataset.prepared, place))
    for stage in stages:
        shutil.rmtree(prepared / stage)
        shutil.rmtree(prepared / "receipts" / stage)
    return prepared


def sample_of(tiny_dataset: TinyDataset) -> SampledFrame:
    manifest = read_manifest(tiny_dataset.prepared)
    (sample,) = read_samples(tiny_dataset.prepared, manifest, [(manifest.tracklets[3], 1)])
    return sample


def test_frames_are_spread_over_every_camera() -> None:
    sizes = [(1, 10), (2, 1), (1, 30), (3, 40)]  # camera, frames
    tracklets = [SourceTracklet("train", 1, camera, tuple(map(str, range(count)))) for camera, count in sizes]
    manifest = build_manifest("sizes", Path("/"), tracklets)
    chosen = choose_frames(manifest, 13)
    assert chosen == choose_frames(manifest, 13)
    assert len({(tracklet.tracklet_id, frame) for tracklet, frame in chosen}) == len(chosen)
    # 13 over three cameras is 5, 4, 4; camera 2 has one frame alone; camera 1's forty are cut into five
    assert Counter(tracklet.camera for tracklet, _ in chosen) == {1: 5, 2: 1, 3: 4}
    assert [(t.tracklet_id, frame) for t, frame in chosen] == [
        (0, 4), (2, 2), (2, 10), (2, 18), (2, 26), (1, 0), (3, 5), (3, 15), (3, 25), (3, 35),
    ]  # fmt: skip
    assert Counter(tracklet.camera for tracklet, _ in choose_frames(manifest, 1)) == {1: 1, 2: 1, 3: 1}
    assert len(choose_frames(manifest, 1000)) == 81, "every frame once"


def test_shards_give_what_the_source_gives(tiny_dataset: TinyDataset, tmp_path: Path) -> None:
    manifest = read_manifest(tiny_dataset.prepared)
    everything = choose_frames(manifest, manifest.num_frames)
    extracted = copy_without(tiny_dataset, tmp_path / "extracted", "shards")
    from_shards = read_samples(tiny_dataset.prepared, manifest, everything, tmp_path / "nowhere")
    from_source = read_samples(extracted, manifest, everything)
    assert [(s.tracklet.tracklet_id, s.frame_index) for s in from_shards] == [(t.tracklet_id, f) for t, f in everything]
    for ours, other in zip(from_shards, from_source, strict=True):
        assert ours.image is not None and other.image is not None
        assert ours.image.tobytes() == other.image.tobytes()
        assert ours.status == other.status and ours.score == other.score
        assert ours.heatmaps is not None and other.heatmaps is not None
        np.testing.assert_array_equal(ours.heatmaps, other.heatmaps)
        np.testing.assert_array_equal(ours.keypoints, other.keypoints)  # type: ignore[arg-type]


def test_frames_that_shards_leave_out_do_not_shift_the_others(tiny_mars: Path, tmp_path: Path) -> None:
    from keyreid.pipeline.build_shards import build_shards
    from keyreid.pipeline.executor import SerialExecutor
    from keyreid.pipeline.extract_keypoints import extract_keypoints
    from keyreid.pipeline.manifest import write_manifest
    from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
    from keyreid.pipeline.sources import read_source

    root = Path(shutil.copytree(tiny_mars, tmp_path / "mars"))
    few = max(read_source("mars", root).tracklets, key=lambda tracklet: tracklet.num_frames)
    (root / few.frame_paths[1]).write_bytes(b"broken")
    manifest = build_manifest("few", root, [few])  # type: ignore[list-item]
    write_manifest(tmp_path / "prepared", manifest)
    extract_keypoints(tmp_path / "prepared", resolve_checkpoint("synthetic"), SerialExecutor())
    build_shards(tmp_path / "prepared", SerialExecutor())
    (tracklet,) = manifest.tracklets
    samples = read_samples(tmp_path / "prepared", manifest, [(tracklet, frame) for frame in (2, 1, 0)])
    assert [(sample.status == "unreadable", sample.image is None) for sample in samples] == [
        (False, False), (True, True), (False, False),
    ]  # fmt: skip
    for sample in (samples[0], samples[2]):
        with Image.open(root / tracklet.frame_paths[sample.frame_index]) as image:
            assert sample.image == image.convert("RGB")


def test_joints_and_heatmaps_are_drawn_where_they_are(tiny_dataset: TinyDataset) -> None:
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[JOINT_INDEX["left_knee"]] = (16, 96, 0.9)
    keypoints[JOINT_INDEX["right_knee"]] = (48, 96, 0.1)  # at the threshold: not drawn
    heatmaps = np.zeros((6, 64, 32), np.uint8)
    place = list(PARTS).index("left_leg")
    heatmaps[place, 32:, :] = 255
    grey = Image.new("RGB", (64, 128), (100, 100, 100))
    sample = replace(sample_of(tiny_dataset), image=grey, keypoints=keypoints, heatmaps=heatmaps)
    picture = np.asarray(draw_frame(sample))
    colour = PART_COLOURS["left_leg"]
    assert tuple(picture[FRAME_SIZE[1] * 3 // 4, FRAME_SIZE[0] // 4]) == pytest.approx(colour, abs=3)
    assert tuple(picture[FRAME_SIZE[1] * 3 // 4, FRAME_SIZE[0] * 3 // 4]) == pytest.approx((100, 100, 100), abs=3)
    left, top = FRAME_SIZE[0] + GAP, 2 * (TILE_SIZE[1] + GAP)
    tile = picture[top : top + TILE_SIZE[1], left : left + TILE_SIZE[0]]
    assert tuple(tile[-5, 20]) == colour and tuple(tile[5, 20]) == (45, 45, 45)


@pytest.mark.parametrize("status", ["ok", "interpolated", "no_pose", "unreadable", "quarantined", None])
def test_captions_differ_by_status(tiny_dataset: TinyDataset, status: str | None) -> None:
    sample = sample_of(tiny_dataset)
    of_status, of_another = (draw_frame(replace(sample, status=name)) for name in (status, "another"))
    frames, dot = (0, 0, of_status.width, FRAME_SIZE[1]), (4, FRAME_SIZE[1] + 48)
    assert of_status.getpixel(dot) == STATUS_COLOURS.get(status, TROUBLE) != PAPER
    assert of_status != of_another and of_status.crop(frames) == of_another.crop(frames)


def test_the_sheet_is_the_same_at_every_stage_after_extraction(tiny_dataset: TinyDataset, tmp_path: Path) -> None:
    extracted = copy_without(tiny_dataset, tmp_path / "extracted", "shards")
    indexed = copy_without(tiny_dataset, tmp_path / "indexed", "shards", "keypoints")
    places = {
        "built": tiny_dataset.prepared,
        "again": tiny_dataset.prepared,
        "extracted": extracted,
        "indexed": indexed,
    }
    sheets = {}
    for name, prepared in places.items():
        result = run(prepared, "--contact-sheet", tmp_path / f"{name}.png", "--frames", 4)
        assert result.exit_code == 0, result.output
        assert f"{name}.png: 4 frames" in result.stderr and "camera" in result.stdout
        sheets[name] = (tmp_path / f"{name}.png").read_bytes()
    assert sheets["built"] == sheets["again"] == sheets["extracted"] != sheets["indexed"]
    assert {path.name for path in tmp_path.iterdir()} == {*(f"{name}.png" for name in places), "extracted", "indexed"}


def test_a_sheet_that_cannot_be_made(tiny_dataset: TinyDataset, tmp_path: Path) -> None:
    indexed = copy_without(tiny_dataset, tmp_path / "indexed", "shards", "keypoints")
    with pytest.raises(SourceError, match=r"not all shards are built; mount it, name its new place with --root"):
        write_contact_sheet(tmp_path / "sheet.png", indexed, root=tmp_path / "nowhere")
    with pytest.raises(SettingsError, match=r"sheet.jpg; expected a name that ends in .png"):
        write_contact_sheet(tmp_path / "sheet.jpg", indexed)
    with pytest.raises(SettingsError, match=r"0 frames on the contact sheet; expected at least 1"):
        write_contact_sheet(tmp_path / "sheet.png", indexed, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["indexed"]
