"""Damage done for real to a prepared dataset, each kind found and named."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from conftest import TinyDataset
from PIL import Image

from keyreid.cli.prep import main
from keyreid.pipeline.commit import read_receipt, receipt_path, sha256_of, write_receipt
from keyreid.pipeline.errors import FormatError
from keyreid.pipeline.inspection.findings import REMEDIES
from keyreid.pipeline.inspection.verify import verify


@pytest.fixture
def copy(tiny_dataset: TinyDataset, tmp_path: Path) -> Path:
    """The tiny prepared dataset, to be damaged."""
    return Path(shutil.copytree(tiny_dataset.prepared, tmp_path / "prepared"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in ("verify", *arguments)])


def kinds(prepared: Path, *, deep: bool = False) -> set[tuple[str, str]]:
    return set(verify(prepared, deep=deep).groups())


def vouch(prepared: Path, stage: str, shard: int = 0, **changes: object) -> None:
    """Make the receipt fit the file as it is now, so that its content is all that is wrong."""
    receipt = read_receipt(prepared, stage, shard)
    assert receipt is not None
    changed = {"sha256": sha256_of(prepared / receipt.file), **changes}
    write_receipt(prepared, replace(receipt, **changed))  # type: ignore[arg-type]
    keypoints, shards = (read_receipt(prepared, name, shard) for name in ("keypoints", "shards"))
    if stage == "keypoints" and keypoints is not None and shards is not None:
        from keyreid.pipeline.build_shards import keypoint_inputs

        write_receipt(prepared, replace(shards, inputs=keypoint_inputs(prepared, shard)))


def change_keypoints(prepared: Path, change: Callable[[list[dict]], list[dict]]) -> None:
    path = prepared / "keypoints" / "00000.parquet"
    table = pq.read_table(path)
    rows = change(table.to_pylist())
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    vouch(prepared, "keypoints")


def with_value(row: int, **values: object) -> Callable[[list[dict]], list[dict]]:
    return lambda rows: [{**old, **values} if number == row else old for number, old in enumerate(rows)]


@pytest.mark.parametrize("deep", [False, True])
def test_an_untouched_dataset_is_whole(tiny_dataset: TinyDataset, deep: bool) -> None:
    report = verify(tiny_dataset.prepared, deep=deep)
    assert report.problems == () and report.leftovers == () and report.ok
    keypoints, shards = report.stages
    assert keypoints.num_whole == keypoints.num_shards == shards.num_whole > 1
    assert keypoints.num_rows == shards.num_rows > 60


def test_frames_that_cannot_be_read_are_no_damage(tiny_mars: Path, tmp_path: Path) -> None:
    from keyreid.pipeline.build_shards import build_shards
    from keyreid.pipeline.executor import SerialExecutor
    from keyreid.pipeline.extract_keypoints import extract_keypoints
    from keyreid.pipeline.manifest import build_manifest, write_manifest
    from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
    from keyreid.pipeline.sources import read_source

    root = Path(shutil.copytree(tiny_mars, tmp_path / "mars"))
    few = read_source("mars", root).tracklets[:3]
    manifest = build_manifest("few", root, few)  # type: ignore[arg-type]
    (root / few[0].frame_paths[0]).write_bytes(b"broken")
    for name in few[1].frame_paths:
        (root / name).unlink()
    prepared = tmp_path / "prepared"
    write_manifest(prepared, manifest)
    extract_keypoints(prepared, resolve_checkpoint("synthetic"), SerialExecutor())
    build_shards(prepared, SerialExecutor())
    report = verify(prepared, deep=True)
    assert report.problems == ()
    assert report.stages[0].num_rows - report.stages[1].num_rows == 1 + few[1].num_frames


def flip_byte(prepared: Path) -> None:
    path = prepared / "shards" / "00001.h5"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def truncate(prepared: Path) -> None:
    path = prepared / "keypoints" / "00000.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def swap_files(prepared: Path) -> None:
    first, second = (prepared / "shards" / f"0000{n}.h5" for n in (0, 1))
    other = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(other)


def swap_receipts(prepared: Path) -> None:
    first, second = (receipt_path(prepared, "shards", n) for n in (0, 1))
    other = first.read_text()
    first.write_text(second.read_text())
    second.write_text(other)


def edit_dataset(prepared: Path, change: Callable[[dict], object]) -> None:
    path = prepared / "dataset.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def change_manifest(prepared: Path) -> None:
    path = prepared / "manifest.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["frame_paths"][0] = "another.jpg"
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


# what is done, what must be found, a piece of what is said about it
BYTES = {
    "a byte flipped": (flip_byte, {("shards", "checksum")}, "shards/00001.h5 has SHA-256"),
    "a truncated file": (truncate, {("keypoints", "checksum")}, "keypoints/00000.parquet has SHA-256"),
    "two files swapped": (swap_files, {("shards", "checksum")}, "shards/00000.h5 has SHA-256"),
    "two receipts swapped": (swap_receipts, {("shards", "receipt")}, "is the receipt of shard 1 of shards"),
    "a deleted file": (
        lambda prepared: (prepared / "shards" / "00001.h5").unlink(),
        {("shards", "file")},
        "shards/00001.h5 is missing, although it has a receipt",
    ),
    "a deleted receipt": (
        lambda prepared: receipt_path(prepared, "shards", 1).unlink(),
        {("shards", "unfinished")},
        "receipts/shards/00001.json is missing",
    ),
    "a deleted receipt that others rest on": (
        lambda prepared: receipt_path(prepared, "keypoints", 1).unlink(),
        {("keypoints", "unfinished"), ("shards", "inputs")},
        "keypoints of shard 00001 vanished",
    ),
    "a receipt that is none": (
        lambda prepared: receipt_path(prepared, "shards", 0).write_text("[1]"),
        {("shards", "receipt")},
        "00000.json is not a receipt",
    ),
    "a receipt of other settings": (
        lambda prepared: vouch(prepared, "shards", settings="another"),
        {("shards", "settings"), ("shards", "content")},
        "receipts/shards/00000.json has settings another; expected",
    ),
    "other settings in dataset.json": (
        lambda prepared: edit_dataset(prepared, lambda info: info["stages"]["keypoints"].update(input_height=7)),
        {("keypoints", "settings")},
        "those of dataset.json",
    ),
    "settings removed": (
        lambda prepared: edit_dataset(prepared, lambda info: info["stages"].pop("keypoints")),
        {("keypoints", "settings")},
        "dataset.json has no settings of keypoints",
    ),
    "a receipt of other keypoints": (
        lambda prepared: vouch(prepared, "shards", inputs="others"),
        {("shards", "inputs")},
        "has inputs others; expected",
    ),
    "a changed manifest": (
        change_manifest,
        {("", "dataset"), ("keypoints", "inputs")},
        "manifest.parquet has fingerprint",
    ),
    "a broken manifest": (
        lambda prepared: (prepared / "manifest.parquet").write_bytes(b"PAR1"),
        {("", "dataset")},
        "manifest.parquet and dataset.json cannot be read",
    ),
    "no manifest": (
        lambda prepared: (prepared / "manifest.parquet").unlink(),
        {("", "dataset")},
        "manifest.parquet and dataset.json cannot be read",
    ),
    "a broken dataset.json": (
        lambda prepared: (prepared / "dataset.json").write_text("{"),
        {("", "dataset")},
        "not readable as JSON",
    ),
    "counts that are not the manifest's": (
        lambda prepared: edit_dataset(prepared, lambda info: info["counts"]["train"].update(frames=1)),
        {("", "dataset")},
        "dataset.json says counts",
    ),
    "keypoints deleted whole": (
        lambda prepared: (shutil.rmtree(prepared / "keypoints"), shutil.rmtree(prepared / "receipts" / "keypoints")),
        {("keypoints", "unfinished"), ("shards", "inputs")},
        "receipts/keypoints/00000.json is missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BYTES)
def test_damage_to_files_and_receipts(copy: Path, name: str) -> None:
    damage, expected, said = BYTES[name]
    damage(copy)
    report = verify(copy)
    assert set(report.groups()) == expected
    assert any(said in problem.found for problem in report.problems), [p.found for p in report.problems]


# content that a fitting receipt vouches for: what is done to the rows of keypoints, what must be found and said
ROWS = {
    "a row removed": (lambda rows: rows[:4] + rows[5:], {"rows", "frames"}, r"1 frame missing \(first: tracklet"),
    "a row twice": (lambda rows: rows[:4] + rows[3:], {"rows", "frames"}, r"1 repeated"),
    "rows of a frame that is not there": (with_value(3, frame_index=99), {"frames"}, r"1 frame too many .*frame 99"),
    "rows out of order": (lambda rows: rows[::-1], {"frames"}, r"the frames are in another order"),
    "a confidence over 1": (with_value(3, keypoints=[1.5] * 51), {"values"}, r"1 frame .* confidence outside 0 to 1"),
    "a negative confidence": (with_value(3, keypoints=[-0.5] * 51), {"values"}, r"confidence outside 0 to 1"),
    "not a number": (with_value(3, keypoints=[float("nan")] * 51), {"values"}, r"keypoints that are not finite"),
    "a status nobody knows": (with_value(3, status="asleep"), {"values"}, r"a status other than ok, interpol"),
    "a score over 1": (with_value(3, score=1.5), {"values"}, r"a score outside 0 to 1"),
    "a score that is no number": (with_value(3, score=float("nan")), {"values"}, r"a score outside 0 to 1"),
    "coordinates of another scale": (
        with_value(3, keypoints=[999.0, 9.0, 0.5] * 17),
        {"values"},
        r"1 frame .* a joint more",
    ),
    "a frame without a size": (with_value(3, width=0), {"values"}, r"a width or height of 0 that could be read"),
    "keypoints of nobody": (with_value(3, status="no_pose"), {"values"}, r"keypoints but without a person"),
    "an empty cell": (with_value(3, score=None), {"content"}, r"not a readable keypoints file \(1 empty cells\)"),
}


@pytest.mark.parametrize("name", ROWS)
def test_damage_to_keypoints_under_a_fitting_receipt(copy: Path, name: str) -> None:
    change, expected, said = ROWS[name]
    change_keypoints(copy, change)
    report = verify(copy)
    assert {kind for stage, kind in report.groups() if stage == "keypoints"} == expected
    with pytest.raises(AssertionError, match=said):
        raise AssertionError("; ".join(problem.found for problem in report.problems))


def test_interpolated_frames_have_keypoints(copy: Path) -> None:
    change_keypoints(copy, with_value(3, status="interpolated", score=0.25))
    report = verify(copy)
    assert report.ok, report.problems


def test_notes_that_nobody_knows_are_no_damage(copy: Path) -> None:
    vouch(copy, "keypoints", notes={"versions": {"torch": "9.9"}, "device": "cuda"})
    assert verify(copy, deep=True).ok


def test_a_frame_that_shards_hold_and_keypoints_call_unreadable(copy: Path) -> None:
    unreadable = {"status": "unreadable", "width": 0, "height": 0, "score": 0.0, "keypoints": [0.0] * 51}
    change_keypoints(copy, with_value(3, **unreadable))
    (problem,) = verify(copy).problems
    assert (problem.stage, problem.kind) == ("shards", "frames") and "1 frame too many" in problem.found


def replace_dataset(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        values = change(file[name][:])
        del file[name]
        file[name] = values

    return damage


def zero_heatmap(file: h5py.File) -> None:
    """What the public code's writer did to every frame (docs/method.md, M10)."""
    file["frames/heatmaps"][2] = 0


def break_image(file: h5py.File) -> None:
    start, end = file["frames/offsets"][2:4]
    file["frames/blob"][(start + end) // 2 : end] = 0xFF  # the head says what it was; the rest is gone


def wrong_size(file: h5py.File) -> None:
    file["frames/sizes"][2] = (30_000, 30_000)  # drawing heatmaps at this size would take gigabytes


def move_joint(file: h5py.File) -> None:
    points = file["frames/keypoints"][2]
    points[:, :2] += 20
    file["frames/keypoints"][2] = points


# damage to an HDF5 shard, what the default mode finds, what --deep finds
SHARD = {
    "a heatmap changed": (zero_heatmap, set(), {"heatmaps"}),
    "an image broken": (break_image, set(), {"images"}),
    "a size changed": (wrong_size, set(), {"values", "images"}),
    "keypoints changed": (move_joint, set(), {"values", "heatmaps"}),
    "a frame's number changed": (replace_dataset("frames/frame_index", lambda old: old + 1), {"frames"}, {"frames"}),
    "tracklets in another order": (
        replace_dataset("tracklets/tracklet_id", lambda old: old[::-1]),
        {"frames"},
        {"frames"},
    ),
    "a heatmap too few": (replace_dataset("frames/heatmaps", lambda old: old[1:]), {"rows"}, {"rows"}),
    "offsets past the end": (replace_dataset("frames/offsets", lambda old: old + 1), {"rows"}, {"rows"}),
    "no images": (lambda file: file.__delitem__("frames/blob"), {"content"}, {"content"}),
    "another version": (lambda file: file.attrs.__setitem__("format_version", 99), {"content"}, {"content"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARD)
def test_damage_to_a_shard_under_a_fitting_receipt(copy: Path, name: str) -> None:
    damage, by_default, by_deep = SHARD[name]
    with h5py.File(copy / "shards" / "00000.h5", "r+") as file:
        damage(file)
    vouch(copy, "shards")
    assert kinds(copy) == {("shards", kind) for kind in by_default}
    assert kinds(copy, deep=True) == {("shards", kind) for kind in by_deep}


def test_heatmaps_of_another_version_are_not_called_damaged_alone(
    tiny_dataset: TinyDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyreid.pipeline.build_shards.shard_settings", lambda: {"shard_format": 2})
    assert kinds(tiny_dataset.prepared) == set()
    report = verify(tiny_dataset.prepared, deep=True)
    assert "shard_format 1, now 2" in report.problems[0].found
    assert "verify with the version that made these shards" in report.problems[0].remedy


def test_a_16_bit_png_has_no_place_in_a_shard(copy: Path) -> None:
    from keyreid.pipeline.inspection.shard_checks import _decodes

    for mode, fine in (("RGB", True), ("L", True), ("I;16", False)):
        Image.new(mode, (8, 16)).save(copy / "image.png")
        assert _decodes((copy / "image.png").read_bytes(), np.array([8, 16])) is fine
        assert not _decodes((copy / "image.png").read_bytes(), np.array([16, 8]))


def test_leftovers_are_named_and_harmless(copy: Path) -> None:
    names = ["keypoints/.00000.parquet.x1.partial", "keypoints/00077.parquet", "receipts/shards/00099.json"]
    for name in names:
        (copy / name).write_bytes(b"half")
    report = verify(copy)
    assert report.ok and list(report.leftovers) == sorted(names)
    result = run(copy)
    assert result.exit_code == 0
    assert "harmless, nothing reads it: keypoints/00077.parquet" in result.stdout


def test_stages_that_are_not_begun_are_said(copy: Path) -> None:
    for folder in ("shards", "receipts/shards"):
        shutil.rmtree(copy / folder)
    edit_dataset(copy, lambda info: info["stages"].pop("shards"))
    result = run(copy)
    assert result.exit_code == 0
    assert "shards: not begun" in result.stdout and "keypoints: 2 of 2 shards whole" in result.stdout
    for folder in ("keypoints", "receipts"):
        shutil.rmtree(copy / folder)
    edit_dataset(copy, lambda info: info.pop("stages"))
    result = run(copy)
    assert result.exit_code == 0
    assert "keypoints: not begun" in result.stdout


def test_what_the_command_says_of_a_whole_dataset(tiny_dataset: TinyDataset) -> None:
    result = run(tiny_dataset.prepared)
    assert result.exit_code == 0
    assert "nothing is wrong (--deep also decodes images and compares heatmaps)" in result.stdout
    assert "100%" in result.stderr, "progress"


def test_each_kind_gets_one_remedy_and_the_total_is_counted(copy: Path) -> None:
    flip_byte(copy)
    truncate(copy)
    receipt_path(copy, "shards", 0).unlink()
    result = run(copy)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert sum(line.startswith("  -> ") for line in lines) == 3
    assert "  -> run keyreid-prep build-shards again: it goes on where it stopped" in lines
    assert any(
        "delete their receipts in receipts/keypoints and run keyreid-prep extract-keypoints" in line for line in lines
    )
    assert lines[-1] == "3 problems in all"


def test_the_remedy_of_a_checksum_works(copy: Path) -> None:
    from keyreid.pipeline.build_shards import build_shards
    from keyreid.pipeline.executor import SerialExecutor

    flip_byte(copy)
    (problem,) = verify(copy).problems
    assert problem.remedy.startswith("delete their receipts in receipts/shards and run keyreid-prep build-shards again")
    receipt_path(copy, "shards", problem.shard or 0).unlink()
    build_shards(copy, SerialExecutor())
    assert verify(copy, deep=True).ok


def test_few_are_shown_and_all_are_in_the_json(copy: Path) -> None:
    for number in range(12):
        (copy / "shards" / f"{900 + number:05d}.h5").touch()
    assert "and 2 more (--json names all)" in run(copy).stdout
    flip_byte(copy)
    result = run(copy, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert len(found["leftovers"]) == 12 and not found["ok"]
    assert found["problems"][0]["kind"] == "checksum" and found["problems"][0]["shard"] == 1
    assert found["stages"][1]["num_whole"] == found["stages"][0]["num_whole"] - 1


def test_a_folder_that_is_no_prepared_dataset(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"is not a prepared dataset .*; run keyreid-prep index first"):
        verify(tmp_path)
    result = run(tmp_path)
    assert result.exit_code == 1 and "is not a prepared dataset" in result.stderr


def test_every_remedy_names_what_to_do() -> None:
    for remedy in REMEDIES.values():
        assert remedy.format(stage="shards", command="build-shards").startswith(
            ("run ", "delete ", "restore ", "verify ")
        )
