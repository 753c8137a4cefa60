"""Damage done for real to a prepared dataset, each kind found and named with what to do about it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner, Result
from conftest import TinyDataset

from keyreid.cli.prep import main
from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.commit import read_json, read_receipt, receipt_path, sha256_of, write_json
from keyreid.pipeline.executor import SerialExecutor
from keyreid.pipeline.extract_keypoints import extract_keypoints
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.inspection.verify import verify
from keyreid.pipeline.keypoints import keypoints_path, read_keypoints, write_keypoints
from keyreid.pipeline.manifest import read_shard_frames
from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
from keyreid.pipeline.sources import read_source

Damage = Callable[[Path], object]


@pytest.fixture
def copy(tiny_dataset: TinyDataset, tmp_path: Path) -> Path:
    """The tiny prepared dataset, to be damaged."""
    return Path(shutil.copytree(tiny_dataset.prepared, tmp_path / "prepared"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


def kinds(prepared: Path) -> set[tuple[str, str]]:
    return {(problem.stage, problem.kind) for problem in verify(prepared).problems}


def vouch(prepared: Path, stage: str, shard: int, **changes: object) -> None:
    """Write a receipt that fits the file as it is now, but for `changes`."""
    receipt = read_receipt(prepared, stage, shard)
    assert receipt is not None
    path = prepared / receipt.file
    fitting = replace(receipt, sha256=sha256_of(path), num_bytes=path.stat().st_size)
    write_json(receipt_path(prepared, stage, shard), asdict(fitting) | changes)


def change_stages(prepared: Path, **stages: object) -> None:
    """Settings of stages in dataset.json; None removes one."""
    info = read_json(prepared / "dataset.json")
    info["stages"] = {name: one for name, one in (info["stages"] | stages).items() if one is not None}
    write_json(prepared / "dataset.json", info)


def flip_byte(name: str) -> Damage:
    def flip(prepared: Path) -> None:
        data = bytearray((prepared / name).read_bytes())
        data[len(data) // 2] ^= 1
        (prepared / name).write_bytes(data)

    return flip


def edit(name: str, old: str, new: str) -> Damage:
    return lambda prepared: (prepared / name).write_text((prepared / name).read_text().replace(old, new))


def swap(first: str, second: str) -> Damage:
    def exchange(prepared: Path) -> None:
        (prepared / first).rename(prepared / "third")
        (prepared / second).rename(prepared / first)
        (prepared / "third").rename(prepared / second)

    return exchange


def replace_keypoints(prepared: Path) -> None:
    """Others are committed in their place; the shards were built from those that were there before."""
    path = keypoints_path(prepared, 0)
    rows = read_keypoints(path)
    write_keypoints(path, replace(rows, score=rows.score / 2))
    vouch(prepared, "keypoints", 0)


# what is done -> what must be found, and a piece of what is said about it
DAMAGE: dict[str, tuple[Damage, set[tuple[str, str]], str]] = {
    "a byte of a shard": (flip_byte("shards/00001.h5"), {("shards", "hash")}, "shards/00001.h5 has SHA-256"),
    "a byte of the tracklets": (
        flip_byte("manifest/00000/tracklets.parquet"), {("manifest", "manifest")}, "tracklets.parquet is not what was"),
    "a byte of a shard's frames": (
        flip_byte("manifest/00000/frames/00001.parquet"), {("manifest", "manifest")}, "00001.parquet is not what was"),
    "dataset.json edited": (
        edit("dataset.json", "tracklet", "score"), {("manifest", "manifest")}, "was changed after it was written"),
    "a receipt edited": (
        edit("receipts/keypoints/00000.json", "shard", "Shard"), {("keypoints", "receipt")}, "was changed after"),
    "receipts swapped": (
        swap("receipts/shards/00000.json", "receipts/shards/00001.json"), {("shards", "receipt")},
        "receipts/shards/00000.json is of shards/00001.h5; expected shards/00000.h5"),
    "a file deleted": (
        lambda prepared: (prepared / "shards/00001.h5").unlink(), {("shards", "unfinished")},
        "shards/00001.h5 is missing, although it has a receipt"),
    "a receipt deleted": (
        lambda prepared: receipt_path(prepared, "shards", 1).unlink(), {("shards", "unfinished")},
        "receipts/shards/00001.json is missing"),
    "keypoints deleted": (
        lambda prepared: [shutil.rmtree(prepared / name) for name in ("keypoints", "receipts/keypoints")],
        {("keypoints", "unfinished")}, "receipts/keypoints/00000.json is missing"),
    "other keypoints than the shards are made of": (
        replace_keypoints, {("shards", "inputs")}, "of its keypoints"),
    "a receipt of other frames": (
        lambda prepared: vouch(prepared, "keypoints", 0, inputs="others"),
        {("keypoints", "inputs"), ("shards", "inputs")}, "has inputs others; expected"),
    "other settings in dataset.json": (
        lambda prepared: change_stages(prepared, keypoints={}), {("keypoints", "settings")}, "00000.json has settings"),
    "settings removed": (
        lambda prepared: change_stages(prepared, shards=None), {("shards", "settings")}, "json, which has none"),
    "a file that the disk does not give": (
        lambda prepared: [(prepared / "shards/00001.h5").unlink(), (prepared / "shards/00001.h5").mkdir()],
        {("shards", "surroundings")}, "shards/00001.h5 cannot be read now (Is a directory)"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_named(copy: Path, name: str) -> None:
    damage, expected, said = DAMAGE[name]
    damage(copy)
    assert kinds(copy) == expected
    result = run(copy)
    assert result.exit_code == 1 and said in result.stdout
    assert result.stdout.count("\n  -> ") == len(expected), "one remedy for each kind"


@pytest.mark.parametrize("deep", [False, True])
def test_an_untouched_dataset_is_complete(tiny_dataset: TinyDataset, deep: bool) -> None:
    report = verify(tiny_dataset.prepared, deep=deep)
    assert report.ok and report.leftovers == [] and not any(report.left_out.values())
    keypoints, shards = report.stages
    assert keypoints.num_complete == keypoints.num_shards == shards.num_complete > 1
    assert keypoints.num_frames == shards.num_frames == report.num_frames > 60


def zero_heatmap(file: h5py.File) -> None:
    """What the public code's writer did to every frame (docs/method.md, M10)."""
    file["frames/heatmaps"][2] = 0


def change_by_one(file: h5py.File) -> None:
    """What another processor may do."""
    heatmap = file["frames/heatmaps"][2]
    file["frames/heatmaps"][2] = heatmap + (heatmap < 255)


def break_image(file: h5py.File) -> None:
    start, end = file["frames/offsets"][2:4]
    file["frames/blob"][(start + end) // 2 : end] = 0xFF  # the head says what it was; the rest is gone


DEEP = [(zero_heatmap, {"heatmaps"}), (change_by_one, set()), (break_image, {"images"})]


@pytest.mark.parametrize(("damage", "found"), DEEP)
def test_deep_sees_what_a_fitting_receipt_hides(
    copy: Path, damage: Callable[[h5py.File], None], found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heatmaps of another version are not compared."""
    with h5py.File(copy / "shards" / "00000.h5", "r+") as file:
        damage(file)
    vouch(copy, "shards", 0)
    assert kinds(copy) == set()
    report = verify(copy, deep=True)
    assert {problem.kind for problem in report.problems} == found
    assert all("(first: tracklet 0, frame 2)" in problem.found for problem in report.problems)
    monkeypatch.setattr("keyreid.pipeline.inspection.verify.shard_settings", lambda: {"shard_format": 7})
    (problem,) = verify(copy, deep=True).problems
    assert "7" in problem.expected and "use the version that built them" in problem.remedy


def test_frames_that_are_left_out_are_named_and_no_damage(tiny_mars: Path, tmp_path: Path) -> None:
    root, prepared = Path(shutil.copytree(tiny_mars, tmp_path / "mars")), tmp_path / "prepared"
    write_manifest(prepared, read_source("mars", root))
    broken, skipped = (tracklet.paths[0] for tracklet in read_shard_frames(prepared, 0).tracklets[:2])
    (root / broken).write_bytes(b"broken")
    extract_keypoints(
        prepared, resolve_checkpoint("synthetic"), SerialExecutor(), skip_frames=[skipped], max_left_out=1
    )
    build_shards(prepared, SerialExecutor(), max_left_out=1)
    report = verify(prepared, deep=True)
    assert report.ok and report.left_out == {"unreadable": [broken], "skipped": [skipped]}
    assert report.stages[0].num_frames - report.stages[1].num_frames == 2
    said = run(prepared)
    assert said.exit_code == 0, "more than 1 % is a warning"
    assert "frames unreadable (the content is no image)" in said.stdout and broken in said.stdout
    assert "frames skipped (as --skip-frames asked)" in said.stdout and "warning" in said.stdout
    assert json.loads(run(prepared, "--json").stdout)["left_out"]["skipped"] == [skipped]


def test_a_bare_index_and_a_stage_that_is_not_started(copy: Path) -> None:
    for stage, said in (("shards", "no shard has been built yet"), ("keypoints", "nothing has been extracted yet")):
        shutil.rmtree(copy / stage)
        shutil.rmtree(copy / "receipts" / stage)
        change_stages(copy, **{stage: None})
        result = run(copy)
        assert result.exit_code == 0 and f"  {stage}: {said}" in result.stdout
        assert result.stdout.splitlines()[-1] == f"nothing is wrong; {said}"


def test_the_remedies_work(copy: Path) -> None:
    flip_byte("shards/00001.h5")(copy)
    receipt_path(copy, "keypoints", 0).unlink()
    keypoints, shards = verify(copy).problems
    assert json.loads(run(copy, "--json").stdout)["problems"] == [asdict(keypoints), asdict(shards)]
    assert keypoints.remedy.startswith(f"run keyreid-prep extract-keypoints {copy} --checkpoint synthetic")
    assert shards.remedy.startswith(
        f"delete the receipts of these shards in receipts/shards and run keyreid-prep build-shards {copy}"
    )
    receipt_path(copy, "shards", 1).unlink()
    extract_keypoints(copy, resolve_checkpoint("synthetic"), SerialExecutor())
    build_shards(copy, SerialExecutor())
    assert verify(copy, deep=True).ok
    change_stages(copy, keypoints={"source_format": "coco"})
    assert f"run keyreid-prep import-keypoints {copy}" in verify(copy).problems[0].remedy


def test_leftovers_are_named_and_harmless(copy: Path) -> None:
    names = ["keypoints/.00000.parquet.x1.partial", "receipts/shards/00099.json", "manifest/00001"]
    names += [f"shards/{900 + number:05d}.h5" for number in range(10)]
    for name in names:
        (copy / name).write_bytes(b"half")
    report, result = verify(copy), run(copy)
    assert report.ok and report.leftovers == sorted(names) and result.exit_code == 0
    assert "harmless, nothing reads it: keypoints/.00000" in result.stdout and "and 3 more (--json" in result.stdout


def test_a_folder_that_is_no_prepared_dataset(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "is not a prepared dataset" in result.stdout and "run keyreid-prep index first" in result.stdout
