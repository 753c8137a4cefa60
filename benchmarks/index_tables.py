"""Tables of a prepared dataset, made up, without images: seconds and MB to index, open and read one shard's rows.

    .venv/bin/python benchmarks/index_tables.py                        # MARS's size, next to one table of lists
    .venv/bin/python benchmarks/index_tables.py --frames 100_000_000   # and an append of 1 %

Each measurement is a process of its own; MB are its largest resident memory less what it had after its imports. Names
are MARS's, tracklets have 58 frames on average. Indexing looks up three files of each tracklet, and here finds none.
Files are in the page cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from keyreid.pipeline.index import Reading, SourceTracklet, write_manifest
from keyreid.pipeline.manifest import read_manifest, read_shard_frames

MARS_TRACKLETS, MARS_FRAMES = 20_478, 1_191_003
SHORTEST, LONGEST = 2, 114  # frames of a tracklet; 58 on average
PER_IDENTITY = 16  # tracklets
CAMERAS = 6
PLAIN_SCHEMA = pa.schema(
    [
        ("tracklet_id", pa.int64()),
        ("split", pa.string()),
        ("identity", pa.int64()),
        ("camera", pa.int32()),
        ("shard", pa.int32()),
        ("frame_paths", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class PlainTracklet:
    """A tracklet that holds its paths."""

    tracklet_id: int
    split: str
    identity: int
    camera: int
    shard: int
    frame_paths: tuple[str, ...]


def made_tracklets(num_tracklets: int, num_frames: int, first_identity: int = 1) -> Iterator[SourceTracklet]:
    weights = np.random.default_rng(first_identity).uniform(SHORTEST, LONGEST, num_tracklets)
    ends = np.round(np.cumsum(weights) / weights.sum() * num_frames).astype(int)
    lengths = np.diff(ends, prepend=0)
    for row, length in enumerate(lengths.tolist()):
        identity = first_identity + row // PER_IDENTITY
        camera, number = 1 + row % CAMERAS, 1 + row % PER_IDENTITY // CAMERAS
        split = ("train", "gallery")[identity % 2]
        name = f"{identity:04d}C{camera}T{number:04d}"
        stem = f"bbox_{'train' if split == 'train' else 'test'}/{identity:04d}/{name}F"
        paths = [f"{stem}{frame:03d}.jpg" for frame in range(1, length + 1)]
        yield SourceTracklet(
            split, identity, camera, paths, range(1, length + 1), name=name, identity_name=f"{identity:04d}"
        )


def index(prepared: Path, num_tracklets: int, num_frames: int, first_identity: int = 1) -> None:
    """A first generation, or a further one where `prepared` has one."""
    tracklets = made_tracklets(num_tracklets, num_frames, first_identity)
    write_manifest(prepared, Reading("made", prepared / "frames", tracklets), append=prepared.exists())


def index_plainly(path: Path, shards: dict[int, int], num_tracklets: int, num_frames: int) -> None:
    """All in one table, as format version 1 had it."""
    rows = [
        PlainTracklet(number, one.split, int(one.identity), int(one.camera), shards[number], tuple(one.frame_paths))
        for number, one in enumerate(made_tracklets(num_tracklets, num_frames))
    ]
    pq.write_table(pa.Table.from_pylist([row.__dict__ for row in rows], PLAIN_SCHEMA), path, compression="zstd")


def open_plainly(path: Path) -> tuple[PlainTracklet, ...]:
    rows = pq.read_table(path, schema=PLAIN_SCHEMA).to_pylist()
    for row in rows:
        row["frame_paths"] = tuple(row["frame_paths"])
    return tuple(PlainTracklet(**row) for row in rows)


def read_shard_plainly(path: Path, shard: int) -> list[PlainTracklet]:
    return [tracklet for tracklet in open_plainly(path) if tracklet.shard == shard]


def memory(name: str) -> float:
    """MB of this process: "VmRSS" now, "VmHWM" at most; getrusage would count its parent's before it became its own."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) * 1024 / 1e6


def measure(function: Callable[..., Any], *arguments: Any) -> tuple[float, float, float]:
    """Seconds, those of them on a core, and MB beyond what this process has now."""
    before = memory("VmRSS")
    start, start_core = time.perf_counter(), time.process_time()
    function(*arguments)
    return time.perf_counter() - start, time.process_time() - start_core, memory("VmHWM") - before


def show(name: str, runs: int, function: Callable[..., Any], *arguments: Any) -> None:
    """Print a row of the table: medians over some processes."""
    found = []
    for _ in range(runs):
        with get_context("spawn").Pool(1) as pool:
            found.append(pool.apply(measure, (function, *arguments)))
    seconds, on_core, megabytes = np.median(found, axis=0)
    print(f"| {name} | {seconds:.3g} | {on_core:.3g} | {megabytes:,.0f} |", flush=True)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


def compare_ways(folder: Path, runs: int) -> None:
    """MARS's size, in tables that are read in parts and in one table of lists."""
    counts, prepared, plain = (MARS_TRACKLETS, MARS_FRAMES), folder / "prepared", folder / "plain.parquet"
    show("index", 1, index, prepared, *counts)
    show("open", runs, read_manifest, prepared)
    shards = {tracklet.tracklet_id: tracklet.shard for tracklet in read_manifest(prepared).tracklets}
    middle = max(shards.values()) // 2
    show("one shard's rows", runs, read_shard_frames, prepared, middle)
    show("index, one table", 1, index_plainly, plain, shards, *counts)
    show("open, one table", runs, open_plainly, plain)
    show("one shard's rows, one table", runs, read_shard_plainly, plain, middle)
    sizes = [size / MARS_FRAMES for size in (size_of(prepared), plain.stat().st_size)]
    print(f"\n{sizes[0]:.1f} bytes per frame on disk; one table {sizes[1]:.1f}")


def grow(folder: Path, num_frames: int, runs: int) -> None:
    """Many frames, then 1 % more."""
    num_tracklets = num_frames * 2 // (SHORTEST + LONGEST)
    prepared = folder / "prepared"
    show("index", 1, index, prepared, num_tracklets, num_frames)
    size = size_of(prepared)
    show("open", runs, read_manifest, prepared)
    show("one shard's rows", runs, read_shard_frames, prepared, num_frames // 8192)
    identities = 1 + num_tracklets // PER_IDENTITY
    show("append 1 %", 1, index, prepared, num_tracklets // 100, num_frames // 100, 1 + identities)
    show("open all of it", runs, read_manifest, prepared)
    print(f"\n{num_tracklets:,} tracklets; {size / num_frames:.1f} bytes per frame on disk")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, help="so many, instead of MARS's two ways")
    parser.add_argument("--runs", type=int, default=5, help="processes of which the median is shown")
    options = parser.parse_args()
    print(f"{options.frames or MARS_FRAMES:,} frames, {os.cpu_count()} cores\n")
    print("| | seconds | on a core | MB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        if options.frames:
            grow(Path(name), options.frames, options.runs)
        else:
            compare_ways(Path(name), options.runs)


if __name__ == "__main__":
    main()
