"""What Dask costs, what two workers gain, and whether a worker's memory grows.

    .venv/bin/python benchmarks/scaling.py

Shards of drawn people go through extract-keypoints' own task on the real executor, and through as many plain processes
without Dask, as the yardstick: two CPUs of a virtual machine may be two threads of one core. Each worker is pinned to a
CPU; one and two workers, with Dask and without, take turns. Dask's share is the part of the workers' time that is not
spent in the task, from first submission to last result, workers being ready. Memory is the resident set of a worker
that makes shard after shard.
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
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from keyreid.pipeline.executor import WORKER_VARIABLE, DaskExecutor, Outcome, Report
from keyreid.pipeline.extract_keypoints import (
    ExtractTask,
    KeypointSettings,
    extract_shard,
    prepare_worker,
)
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.manifest import read_manifest
from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
from keyreid.pipeline.pose.forward import PoseSettings
from keyreid.pipeline.pose.selection import GapSettings, SelectionSettings
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.stages import KEYPOINTS
from keyreid.pipeline.synthetic.layouts import SyntheticSettings, synthesize


@contextmanager
def prepared_dataset(frames_per_shard: int, shards: int) -> Iterator[tuple[ExtractTask, int]]:
    """Shards of about as many drawn frames; yields the task, and how many shards there are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        identities = 4 + 2 * (frames_per_shard * shards // 140)
        synthesize(folder / "people", "mars", SyntheticSettings(num_identities=identities, seed=4))
        write_manifest(folder / "prepared", read_source("mars", folder / "people"), frames_per_shard=frames_per_shard)
        checkpoint = resolve_checkpoint("synthetic")
        settings = KeypointSettings(
            checkpoint.sha256, PoseSettings(checkpoint.input_height), "tracklet", SelectionSettings(), GapSettings()
        )
        manifest = read_manifest(folder / "prepared")
        whole = sum(
            sum(tracklet.num_frames for tracklet in manifest.shard(shard)) > 0.9 * frames_per_shard
            for shard in range(manifest.num_shards)
        )
        yield ExtractTask(folder / "prepared", {0: folder / "people"}, checkpoint, settings, "cpu"), min(whole, shards)


def timed(task: ExtractTask, shard: int, report: Report) -> tuple[float, int, int]:
    """Seconds that the task took, frames, and bytes of memory that this worker holds after it."""
    start = time.perf_counter()
    receipt = extract_shard(task, shard, report)
    return time.perf_counter() - start, receipt.rows, psutil.Process().memory_info().rss


def prepare_pinned(task: ExtractTask) -> None:
    os.sched_setaffinity(0, {int(os.environ[WORKER_VARIABLE])})
    prepare_worker(task)


def prepare_plain(task: ExtractTask, numbers: Any) -> None:
    """As the workers of Dask are prepared, in a process of multiprocessing."""
    os.environ[WORKER_VARIABLE] = str(numbers.get())
    prepare_pinned(task)


def timed_plain(task: ExtractTask, shard: int) -> tuple[float, int, int]:
    return timed(task, shard, lambda frames: None)


@contextmanager
def plain_processes(task: ExtractTask, count: int) -> Iterator[ProcessPoolExecutor]:
    context = get_context("spawn")
    numbers = context.Manager().Queue()
    for number in range(count):
        numbers.put(number)
    with ProcessPoolExecutor(count, context, prepare_plain, (task, numbers)) as pool:
        yield pool


def run_plain(pool: ProcessPoolExecutor, task: ExtractTask, shards: list[int]) -> dict[str, float]:
    """See run."""
    start = time.perf_counter()
    results = list(pool.map(partial(timed_plain, task), shards))
    wall = time.perf_counter() - start
    shutil.rmtree(task.prepared / "receipts" / KEYPOINTS)
    return {"wall": wall, "busy": sum(spent for spent, _, _ in results), "frames": sum(rows for _, rows, _ in results)}


def result_of(outcome: Outcome[tuple[float, int, int]]) -> tuple[float, int, int]:
    if outcome.error is not None:
        raise outcome.error
    assert outcome.result is not None
    return outcome.result


def run(executor: DaskExecutor, task: ExtractTask, shards: list[int]) -> dict[str, float]:
    """Make shards, and say how long that took and how much of it was spent in the tasks."""
    start = time.perf_counter()
    outcomes = executor.run(partial(timed, task), shards, lambda frames: None, partial(prepare_pinned, task))
    results = [result_of(outcome) for outcome in outcomes]
    wall = time.perf_counter() - start
    shutil.rmtree(task.prepared / "receipts" / KEYPOINTS)
    frames = sum(rows for _, rows, _ in results)
    return {"wall": wall, "busy": sum(spent for spent, _, _ in results), "frames": frames}


def scaling(task: ExtractTask, num_shards: int, turns: int) -> dict[str, Any]:
    shards = list(range(num_shards - num_shards % 2))
    ratios: dict[str, list[float]] = {}
    with (
        DaskExecutor(workers=1) as one,
        DaskExecutor(workers=2) as two,
        plain_processes(task, 1) as plain_one,
        plain_processes(task, 2) as plain_two,
    ):
        ways = {
            "dask_1": partial(run, one),
            "plain_1": partial(run_plain, plain_one),
            "dask_2": partial(run, two),
            "plain_2": partial(run_plain, plain_two),
        }
        for way in ways.values():
            way(task, shards[:2])  # loads the network
        for _ in tqdm(range(turns), unit=" turns"):
            done = {name: way(task, shards) for name, way in ways.items()}
            wall = {name: result["wall"] for name, result in done.items()}
            for name, ratio in {
                "dasks_share": 1 - done["dask_1"]["busy"] / wall["dask_1"],
                "one_worker_over_one_plain_process": wall["plain_1"] / wall["dask_1"],
                "two_workers_over_two_plain_processes": wall["plain_2"] / wall["dask_2"],
                "efficiency_of_two_workers": wall["dask_1"] / wall["dask_2"] / 2,
                "efficiency_of_two_plain_processes": wall["plain_1"] / wall["plain_2"] / 2,
                "frames_per_second_of_two_workers": done["dask_2"]["frames"] / wall["dask_2"],
            }.items():
                ratios.setdefault(name, []).append(ratio)
    summary = {
        name: {
            "median": round(statistics.median(values), 4),
            "least": round(min(values), 4),
            "most": round(max(values), 4),
        }
        for name, values in ratios.items()
    }
    return {"frames_a_task": round(done["dask_1"]["frames"] / len(shards)), "tasks": len(shards), **summary}


def memory(task: ExtractTask, num_shards: int, frames: int) -> dict[str, Any]:
    """Resident memory of one worker over that many frames."""
    held, done = [], 0
    with DaskExecutor(workers=1) as executor, tqdm(total=frames, unit=" frames") as bar:
        while done < frames:
            shards = list(range(num_shards))
            for outcome in executor.run(partial(timed, task), shards, bar.update, partial(prepare_worker, task)):
                _, rows, size = result_of(outcome)
                held.append(size)
                done += rows
    quarter = max(1, len(held) // 4)
    first, last = statistics.median(held[1 : 1 + quarter]), statistics.median(held[-quarter:])
    return {
        "frames": done,
        "peak_megabytes": round(max(held) / 1e6),
        "megabytes_in_the_first_quarter": round(first / 1e6),
        "megabytes_in_the_last_quarter": round(last / 1e6),
        "megabytes_after_each_task": [round(size / 1e6) for size in held],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames-per-shard", type=int, default=2000)
    parser.add_argument("--shards", type=int, default=2)
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
