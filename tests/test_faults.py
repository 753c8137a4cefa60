"""Faults, tried for real: the command as a person starts it, Dask's own workers, signals, odd files, a full disk."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from keyreid.model.data.decode import decode_frame
from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.commit import exclusive, read_receipt, sha256_of
from keyreid.pipeline.errors import KeyReIDError, SettingsError
from keyreid.pipeline.executor import SerialExecutor
from keyreid.pipeline.extract_keypoints import extract_keypoints
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.keypoints import keypoints_path, read_keypoints
from keyreid.pipeline.manifest import read_manifest, read_shard_frames
from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
from keyreid.pipeline.shards import shard_path
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.store import TrackletStore

COMMAND = [str(Path(sys.executable).with_name("keyreid-prep"))]
FAULTS = Path(__file__).with_name("faults")
SYNTHETIC = ("--checkpoint", "synthetic", "--device", "cpu")


@pytest.fixture
def indexed(tiny_mars: Path, tmp_path: Path) -> Path:
    """The tiny dataset's frames, to be changed, and its index; returns the prepared folder."""
    root = Path(shutil.copytree(tiny_mars, tmp_path / "mars"))
    write_manifest(tmp_path / "prepared", read_source("mars", root), frames_per_shard=64)
    return tmp_path / "prepared"


def command(*arguments: object, faults: dict[str, object] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start keyreid-prep as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(FAULTS), "KEYREID_TEST_FAULTS": json.dumps(faults or {})}
    line = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(
        line, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", **options
    )


def hashes(prepared: Path, stage: str = "keypoints") -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted((prepared / stage).iterdir())}


def first_frames(prepared: Path, count: int) -> list[Path]:
    """The first frame of each of the first tracklets."""
    shards = (read_shard_frames(prepared, shard) for shard in range(read_manifest(prepared).num_shards))
    return [shard.root / tracklet.paths[0] for shard in shards for tracklet in shard.tracklets][:count]


def statuses(prepared: Path) -> dict[tuple[int, int], str]:
    found: dict[tuple[int, int], str] = {}
    for path in sorted((prepared / "keypoints").iterdir()):
        rows = read_keypoints(path)
        frames = zip(rows.tracklet_id.tolist(), rows.frame_index.tolist(), strict=True)
        found |= dict(zip(frames, rows.status.tolist(), strict=True))
    return found


def test_workers_killed_in_the_middle_of_a_shard(indexed: Path, tiny_dataset: Any, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    faults = {"after": 20, "times": 2, "marks": str(tmp_path / "marks")}
    process = command("extract-keypoints", indexed, *SYNTHETIC, "--workers", 2, faults=faults)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert len(list((tmp_path / "marks").iterdir())) == 2, "both kills happened"
    assert "of 118 frames" in output
    assert hashes(indexed) == hashes(tiny_dataset.prepared)


def test_the_command_killed_while_its_workers_are_at_work(indexed: Path, tiny_dataset: Any) -> None:
    process = command("extract-keypoints", indexed, *SYNTHETIC, "--workers", 2)
    while not any((indexed / "receipts").glob("keypoints/*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive, "workers must end when the command is gone"
    again = command("extract-keypoints", indexed, *SYNTHETIC, "--serial")
    output, errors = again.communicate()
    assert again.returncode == 0, errors
    assert "already complete" in output and ", 0 shards made" not in output
    assert hashes(indexed) == hashes(tiny_dataset.prepared)


def test_a_frame_that_crashes_is_found_and_skipped(tiny_mars: Path, tmp_path: Path) -> None:
    """As the messages say: the run names the shard, find-bad-frames the frame, --skip-frames leaves it out."""
    root, indexed = Path(shutil.copytree(tiny_mars, tmp_path / "mars")), tmp_path / "prepared"
    reading = read_source("mars", root)
    few = [replace(t, frame_paths=t.frame_paths[:2], frame_numbers=None) for t in list(reading.tracklets)[:3]]
    manifest = write_manifest(indexed, replace(reading, tracklets=few), frames_per_shard=2)
    crashes = first_frames(indexed, 1)[0]
    Image.new("RGB", (128, 256), (255, 0, 255)).save(crashes, "PNG")
    faults = {"colours": True}
    process = command("extract-keypoints", indexed, *SYNTHETIC, "--workers", 1, faults=faults)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert f"1 of {manifest.num_shards} shards of keypoints failed" in errors and "shard 00000" in errors
    assert f"keyreid-prep find-bad-frames {indexed} --shard 0" in errors and "Traceback" not in errors
    done = [read_receipt(indexed, "keypoints", shard) is not None for shard in range(manifest.num_shards)]
    assert done == [False] + [True] * (manifest.num_shards - 1), "the others finish"
    listed = tmp_path / "bad.txt"
    process = command("find-bad-frames", indexed, "--shard", 0, "--out", listed, faults=faults)
    assert process.communicate() and process.returncode == 0
    name = crashes.relative_to(root).as_posix()
    assert [line for line in listed.read_text().splitlines() if not line.startswith("#")] == [name]
    again = command("extract-keypoints", indexed, *SYNTHETIC, "--serial", "--skip-frames", listed, "--max-left-out", 20,
                    faults=faults)  # fmt: skip
    output, errors = again.communicate()
    assert again.returncode == 0 and "1 shards made" in output, errors
    assert "1 frames are left out, as --skip-frames asked" in errors and name in errors
    assert [frame for frame, status in statuses(indexed).items() if status == "skipped"] == [(0, 0)]


def test_odd_images_end_in_a_complete_dataset(indexed: Path) -> None:
    odd = first_frames(indexed, 8)
    complete = odd[0].read_bytes()
    odd[0].write_bytes(complete[: len(complete) // 2])
    odd[1].write_bytes(b"")
    Image.new("L", (10_000, 10_000), 90).save(odd[2])  # over the limit of pixels
    Image.fromarray(np.arange(256 * 128, dtype=np.uint16).reshape(256, 128) * 2).save(odd[3], "PNG")
    Image.open(odd[4]).convert("CMYK").save(odd[4], "JPEG")
    Image.new("RGB", (1, 1), "red").save(odd[5])
    Image.new("L", (5_000, 5_000), 90).save(odd[6])
    Image.new("RGB", (9_000, 1), "blue").save(odd[7])
    summary = extract_keypoints(indexed, resolve_checkpoint("synthetic"), SerialExecutor(), max_left_out=0.03)
    assert sum(receipt.rows for receipt in summary.receipts) == 118
    found = statuses(indexed)
    assert [found[number, 0] == "unreadable" for number in range(8)] == [True] * 3 + [False] * 5
    build_shards(indexed, SerialExecutor(), max_left_out=0.03)
    store = TrackletStore(indexed)
    for tracklet in store.tracklets("train", "query", "gallery"):
        encoded, heatmaps = store.read(tracklet.tracklet_id, range(store.num_frames(tracklet.tracklet_id)))
        assert len(encoded) == tracklet.num_frames - (tracklet.tracklet_id < 3)
        for image in encoded[tracklet.tracklet_id == 6 :]:  # the large one takes seconds
            assert decode_frame(image, (256, 128)).shape == (3, 256, 128)
        assert np.isfinite(heatmaps).all()


@pytest.mark.parametrize("stage", ["extract-keypoints", "build-shards"])
def test_a_full_disk(indexed: Path, tiny_dataset: Any, tmp_path: Path, stage: str) -> None:
    """A quota a file that is too small for the largest shard; test_a_filesystem_that_is_full mounts a small one."""
    arguments: list[object] = [stage, indexed, "--serial", *(SYNTHETIC if stage == "extract-keypoints" else ())]
    if stage == "build-shards":
        extract_keypoints(indexed, resolve_checkpoint("synthetic"), SerialExecutor())
    size = sorted(path.stat().st_size for path in (tiny_dataset.prepared / FOLDER[stage]).iterdir())[-1]

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, size - 1))

    process = command(*arguments, preexec_fn=limit)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "Error: " in errors and "there is no room to write" in errors and "Traceback" not in errors, errors
    assert not list(indexed.rglob("*.partial")), "nothing half-written is left"
    whole = [read_receipt(indexed, FOLDER[stage], shard) for shard in range(read_manifest(indexed).num_shards)]
    assert None in whole, "the largest shard could not be written"
    for receipt in whole:
        assert receipt is None or sha256_of(indexed / receipt.file) == receipt.sha256
    process = command(*arguments)
    assert process.communicate() and process.returncode == 0
    assert hashes(indexed, FOLDER[stage]) == hashes(tiny_dataset.prepared, FOLDER[stage])


FOLDER = {"extract-keypoints": "keypoints", "build-shards": "shards"}


def test_a_filesystem_that_is_full(tiny_dataset: Any, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    needed = sum(path.stat().st_size for path in tiny_dataset.prepared.rglob("*") if path.is_file())
    script = (
        f"mount -t tmpfs -o size={needed // 2 // 4096 * 4096} tmpfs {small} && "
        f"cp -r {tiny_dataset.prepared}/[dmk]* {small} && mkdir {small}/receipts && "
        f"cp -r {tiny_dataset.prepared}/receipts/keypoints {small}/receipts && "
        f"{' '.join(COMMAND)} build-shards {small} --serial; status=$?; ls -A {small} {small}/shards; exit $status"
    )
    allowed = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(small)], capture_output=True)
    if allowed.returncode:
        pytest.skip("this machine lets nobody mount a filesystem; test_a_full_disk tries a quota")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, cwd="/")
    assert done.returncode == 1, done
    assert "there is no room to write" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "partial" not in done.stdout


def test_two_runs_at_once(indexed: Path) -> None:
    with exclusive(indexed):
        process = command("extract-keypoints", indexed, *SYNTHETIC, "--serial")
        _, errors = process.communicate()
        assert process.returncode == 1
        assert f"another run (process {os.getpid()} on " in errors and "one at a time" in errors
    with pytest.raises(SettingsError, match="another run"), exclusive(indexed), exclusive(indexed):
        pass
    with exclusive(indexed):
        pass


def test_a_short_soak(tmp_path: Path) -> None:
    """benchmarks/soak.py with a few kills; the long one stands in docs/reliability.md."""
    command = [sys.executable, FAULTS.parents[1] / "benchmarks" / "soak.py", "--kills", "3", "--identities", "6"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    # A quick machine may complete a dataset between two kills; every one that was begun must end complete.
    assert result["bad_reads"] == [] and 1 <= result["datasets_completed"] == result["datasets_begun"]
    assert sum(result["kills"].values()) >= 3 and result["files_checked"] >= result["files_in_the_dataset"]


def test_what_a_killed_run_left_half_written_is_cleared_away(tiny_dataset: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_dataset.prepared, tmp_path / "prepared"))
    leftovers = [copy / "shards/.00001.h5.x1.partial", copy / "receipts/shards/.00001.json.x2.partial"]
    others = [copy / "keypoints/.00000.parquet.x3.partial"]  # of another stage, which clears its own
    for path in (*leftovers, *others):
        path.write_bytes(b"half")
    assert build_shards(copy, SerialExecutor()).num_made == 0
    assert not any(path.exists() for path in leftovers) and all(path.exists() for path in others)


def test_a_file_changed_after_its_receipt(tiny_dataset: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_dataset.prepared, tmp_path / "prepared"))
    flip_a_byte(keypoints_path(copy, 1))
    shutil.rmtree(copy / "receipts" / "shards")
    with pytest.raises(KeyReIDError, match=r"00001.parquet has SHA-256 .*expected .* of its receipt"):
        build_shards(copy, SerialExecutor())
    assert read_receipt(copy, "shards", 1) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: shutil.copy(path.with_name("00000.h5"), path),
    ],
    ids=["shortened", "another shard's"],
)
def test_a_shard_changed_after_its_receipt(tiny_dataset: Any, tmp_path: Path, change: Callable[[Path], Any]) -> None:
    copy = Path(shutil.copytree(tiny_dataset.prepared, tmp_path / "prepared"))
    change(shard_path(copy, 1))
    with pytest.raises(KeyReIDError, match=r"00001 is not the file that its receipt was written for"):
        TrackletStore(copy)
    summary = build_shards(copy, SerialExecutor())
    assert summary.num_made == 1, "a shard of another length is rebuilt"
    assert hashes(copy, "shards") == hashes(tiny_dataset.prepared, "shards")


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
