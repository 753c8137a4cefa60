"""Which frames the contact sheet shows, where they come from, and what is drawn over them."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import TinyDataset
from matplotlib.backends.backend_agg import FigureCanvasAgg

from keyreid.cli.prep import main
from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.commit import read_json, receipt_path, write_json
from keyreid.pipeline.errors import SettingsError, SurroundingsError
from keyreid.pipeline.executor import SerialExecutor
from keyreid.pipeline.extract_keypoints import extract_keypoints
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.inspection import contact_sheet as module
from keyreid.pipeline.inspection.contact_sheet import SampledFrame, choose_frames, read_samples, write_contact_sheet
from keyreid.pipeline.manifest import Manifest
from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
from keyreid.pipeline.records import FRAME_STATUSES, Tracklet
from keyreid.pipeline.skeleton import JOINT_INDEX, PARTS
from keyreid.pipeline.sources import read_source


def test_frames_are_spread_over_every_camera() -> None:
    sizes = [(1, 10), (2, 1), (1, 30), (3, 40)]  # camera, frames
    tracklets = tuple(Tracklet(row, "train", 1, camera, 0, count) for row, (camera, count) in enumerate(sizes))
    manifest = Manifest("sizes", tracklets)
    # 13 over three cameras is 5, 4, 4; camera 2 has only one frame; camera 1's forty are cut into five
    assert [(tracklet.tracklet_id, frame) for tracklet, frame in choose_frames(manifest, 13)] == [
        (0, 4), (2, 2), (2, 10), (2, 18), (2, 26), (1, 0), (3, 5), (3, 15), (3, 25), (3, 35),
    ]  # fmt: skip
    assert Counter(tracklet.camera for tracklet, _ in choose_frames(manifest, 1)) == {1: 1, 2: 1, 3: 1}
    assert len(choose_frames(manifest, 1000)) == 81, "every frame once"


def test_shards_give_what_the_source_gives(tiny_mars: Path, tmp_path: Path) -> None:
    """Also where a frame is left out: it does not shift the others. Equal datasets give equal sheets."""
    root, prepared = Path(shutil.copytree(tiny_mars, tmp_path / "mars")), tmp_path / "prepared"
    manifest = write_manifest(prepared, read_source("mars", root))
    everything = choose_frames(manifest, manifest.num_frames)
    broken = next(tracklet for tracklet in manifest.tracklets if tracklet.num_frames > 3)
    sorted(root.glob(f"**/{broken.name}F*"))[1].write_bytes(b"broken")
    samples, sheets = [], []
    for stage in ("index", "extract", "build"):
        if stage == "extract":
            extract_keypoints(prepared, resolve_checkpoint("synthetic"), SerialExecutor(), max_left_out=1)
        if stage == "build":
            build_shards(prepared, SerialExecutor(), max_left_out=1)
            root.rename(tmp_path / "gone")
        samples.append(read_samples(prepared, everything, {0: root}))
        options = ["--contact-sheet", str(tmp_path / "sheet.png"), "--frames", "4"]
        result = CliRunner().invoke(main, ["describe", str(prepared), *options])
        assert result.exit_code == 0 and "sheet.png: 4 frames" in result.stderr, result.output
        sheets.append((tmp_path / "sheet.png").read_bytes())
    assert sheets[0] != sheets[1] == sheets[2]
    assert [(one.tracklet, one.frame_index) for one in samples[2] if one.image is None] == [(broken, 1)]
    for ours, other in zip(samples[2], samples[1], strict=True):
        assert (ours.tracklet, ours.frame_index, ours.status) == (other.tracklet, other.frame_index, other.status)
        for name in ("image", "keypoints", "heatmaps"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(other, name))
    receipt = read_json(receipt_path(prepared, "shards", 0))
    write_json(receipt_path(prepared, "shards", 0), receipt | {"inputs": "other keypoints"})
    with pytest.raises(SurroundingsError, match=r"cannot read the frames' folder .*--root"):
        read_samples(prepared, everything, {0: root})  # outdated shards are not shown


def drawn(**changes: object) -> np.ndarray:
    """The sheet of one frame; uint8 (H, W, 3)."""
    tracklet = Tracklet(0, "train", 1, 1, 0, 4, "0001C1T0001", "0001", "1")
    sample = replace(SampledFrame(tracklet, 1, image=np.full((128, 64, 3), 100, np.uint8)), **changes)  # type: ignore[arg-type]
    canvas = FigureCanvasAgg(module.draw_contact_sheet(Manifest("one", (tracklet,)), [sample]))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def test_joints_and_heatmaps_are_drawn_where_they_are() -> None:
    leg = tuple(bytes.fromhex(module.PART_COLOURS["left_leg"][1:]))
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[JOINT_INDEX["left_knee"]] = (16, 96, 0.9)
    keypoints[JOINT_INDEX["right_knee"]] = (48, 96, 0.1)  # at the threshold: not drawn
    heatmaps = np.zeros((6, 64, 32), np.uint8)
    heatmaps[list(PARTS).index("left_leg"), 32:, :] = 255
    sheet = drawn(status="ok", keypoints=keypoints, heatmaps=heatmaps)
    left, top = module.MARGIN, module.HEADER + module.HEADING
    row = sheet[top + module.FRAME_SIZE[1] * 3 // 4, left : left + module.FRAME_SIZE[0]]
    assert tuple(row[module.FRAME_SIZE[0] // 4]) == pytest.approx(leg, abs=3)
    assert tuple(row[module.FRAME_SIZE[0] * 3 // 4]) == pytest.approx((100, 100, 100), abs=3)
    left, top = left + module.FRAME_SIZE[0] + module.TILE_GAP, top + 2 * (module.TILE_SIZE[1] + module.TILE_GAP)
    tile = sheet[top : top + module.TILE_SIZE[1], left : left + module.TILE_SIZE[0]]
    assert tuple(tile[-9, 20]) == pytest.approx(leg, abs=3)
    assert tuple(tile[30, 20]) == pytest.approx((45, 45, 45), abs=3)


def test_every_status_has_a_caption_of_its_own() -> None:
    sheets = [drawn(status=status).mean(axis=2).round().astype(np.uint8) for status in (*FRAME_STATUSES, "")]
    assert len({grey.tobytes() for grey in sheets}) == len(sheets), "not by colour alone"


def test_a_sheet_that_cannot_be_made(tiny_dataset: TinyDataset, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"sheet.jpg; expected a name that ends in .png"):
        write_contact_sheet(tmp_path / "sheet.jpg", tiny_dataset.prepared)
    with pytest.raises(SettingsError, match=r"0 frames on the contact sheet; expected at least 1"):
        write_contact_sheet(tmp_path / "sheet.png", tiny_dataset.prepared, 0)
