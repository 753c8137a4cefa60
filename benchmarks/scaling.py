"""What Dask costs, what two workers gain, and whether a worker's memory grows.

    .venv/bin/python benchmarks/scaling.py

Shards of drawn people go through extract-keypoints' own task on the real executor. Each worker is pinned to a core, so
that two workers have twice the machine of one; clusters with one and with two workers take turns. Dask's share is the
part of the workers' time that is not spent in the task, from first submission to last result, workers being ready.
Memory is the resident set of a worker that makes shard after shard.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
from tqdm import tqdm

from keyreid.pipeline.executor import WORKER_VARIABLE, DaskExecutor, Report
from keyreid.pipeline.extract_keypoints import (
    STAGE,
    ExtractTask,
    KeypointSettings,
    extract_shard,
    prepare_worker,
)
from keyreid.pipeline.manifest import read_manifest, write_manifest
from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
from keyreid.pipeline.pose.gaps import GapSettings
from keyreid.pipeline.pose.selection import SelectionSettings
from keyreid.pipeline.pose.settings import PoseSettings
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.synthetic.layouts import synthesize
from keyreid.pipeline.synthetic.plan import SyntheticSettings


@contextmanager
def prepared_dataset(frames_per_shard: int, shards: int) -> Iterator[tuple[ExtractTask, int]]:
    """Shards of about as many drawn frames; yields the task, and how many shards there are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        identities = 4 + 2 * (frames_per_shard * shards // 140)
        synthesize(folder / "people", "mars", SyntheticSettings(num_identities=identities, seed=4))
        write_manifest(folder / "prepared", read_source("mars", folder / "people", frames_per_shard=frames_per_shard))
        checkpoint = resolve_checkpoint("synthetic")
        settings = KeypointSettings(
            checkpoint.sha256, PoseSettings(checkpoint.input_height), "tracklet", SelectionSettings(), GapSettings()
        )
        manifest = read_manifest(folder / "prepared")
        whole = sum(
            sum(tracklet.num_frames for tracklet in manifest.shard(shard)) > 0.9 * frames_per_shard
            for shard in range(manifest.num_shards)
        )
        yield ExtractTask(folder / "prepared", folder / "people", checkpoint, settings, "cpu"), min(whole, shards)


def timed(task: ExtractTask, shard: int, report: Report) -> tuple[float, int, int]:
    """Seconds that the task took, frames, and bytes of memory that this worker holds after it."""
    start = time.perf_counter()
    receipt = extract_shard(task, shard, report)
    return time.perf_counter() - start, receipt.rows, psutil.Process().memory_info().rss


def prepare_pinned(task: ExtractTask) -> None:
    os.sched_setaffinity(0, {int(os.environ[WORKER_VARIABLE])})
    prepare_worker(task)


def run(executor: DaskExecutor, task: ExtractTask, shards: list[int]) -> dict[str, float]:
    """Make shards, and say how long that took and how much of it was spent in the tasks."""
    start = time.perf_counter()
    results = list(executor.run(partial(timed, task), shards, lambda frames: None, partial(prepare_pinned, task)))
    wall = time.perf_counter() - start
    shutil.rmtree(task.prepared / "receipts" / STAGE)
    frames = sum(rows for _, rows, _ in results)
    return {"wall": wall, "busy": sum(spent for spent, _, _ in results), "frames": frames}


def scaling(task: ExtractTask, num_shards: int, turns: int) -> dict[str, float]:
    shards = list(range(num_shards - num_shards % 2))
    with DaskExecutor(workers=1) as one, DaskExecutor(workers=2) as two:
        for executor in (one, two):
            run(executor, task, shards[:2])  # loads the network
        efficiencies, shares = [], []
        for _ in tqdm(range(turns), unit=" turns"):
            single, double = run(one, task, shards), run(two, task, shards)
            efficiencies.append(single["wall"] / double["wall"] / 2)
            shares.append(1 - single["busy"] / single["wall"])
    return {
        "frames_a_task": round(single["frames"] / len(shards)),
        "tasks": len(shards),
        "dasks_share_percent": round(100 * statistics.median(shares), 2),
        "dasks_share_percent_largest": round(100 * max(shares), 2),
        "efficiency_of_two_workers": round(statistics.median(efficiencies), 3),
        "efficiency_least_and_most": [round(min(efficiencies), 3), round(max(efficiencies), 3)],  # type: ignore[dict-item]
        "frames_per_second_of_one_worker": round(single["frames"] / single["wall"], 1),
    }


def memory(task: ExtractTask, num_shards: int, frames: int) -> dict[str, float]:
    """Resident memory of one worker over that many frames."""
    held, done = [], 0
    with DaskExecutor(workers=1) as executor, tqdm(total=frames, unit=" frames") as bar:
        while done < frames:
            shards = list(range(num_shards))
            for _, rows, size in executor.run(partial(timed, task), shards, bar.update, partial(prepare_worker, task)):
                held.append(size)
                done += rows
    quarter = max(1, len(held) // 4)
    first, last = statistics.median(held[1 : 1 + quarter]), statistics.median(held[-quarter:])
    return {
        "frames": done,
        "peak_megabytes": round(max(held) / 1e6),
        "megabytes_in_the_first_quarter": round(first / 1e6),
        "megabytes_in_the_last_quarter": round(last / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames-per-shard", type=int, default=2000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--memory-frames", type=int, default=20_000)
    options = parser.parse_args()
    with prepared_dataset(options.frames_per_shard, options.shards) as (task, num_shards):
        result = {
            "scaling": scaling(task, num_shards, options.turns),
            "memory": memory(task, num_shards, options.memory_frames),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
