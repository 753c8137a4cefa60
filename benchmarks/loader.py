"""Clips/s of the training loader compared with the plain way: PIL, transforms frame by frame, float64 heatmaps.

    .venv/bin/python benchmarks/loader.py
    .venv/bin/python benchmarks/loader.py --identities 8 --rounds 2

Synthetic people, 256x128 JPEG, 16 clips of 4 frames per batch; one process and one thread; ours includes what training
does on the device (augmentation, part weights), here on the CPU. Both ways make the same clips with the same draws, and
must agree before anything is timed. They take turns, each in a process of its own; printed are medians over the rounds,
once with all files in the page cache and once after the system was asked to drop them before each turn; "still_cached"
is the largest share of the pages looked at that it kept all the same. Below a virtual machine may be another cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from loader_ours import K, OurLoader, P
from loader_plain import PlainLoader, write_heatmaps
from page_cache import drop_from_page_cache
from tqdm import tqdm

from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.exchange.import_keypoints import import_keypoints
from keyreid.pipeline.executor import SerialExecutor
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.store import TrackletStore
from keyreid.pipeline.synthetic.layouts import TRUTH_FILE, SyntheticSettings, synthesize

Loader = OurLoader | PlainLoader


def prepare(folder: Path, identities: int) -> TrackletStore:
    synthesize(folder / "people", "mars", SyntheticSettings(num_identities=identities, seed=3))
    prepared = folder / "prepared"
    write_manifest(prepared, read_source("mars", folder / "people"))
    import_keypoints(prepared, folder / "people" / TRUTH_FILE, SerialExecutor())
    build_shards(prepared, SerialExecutor())
    return TrackletStore(prepared)


class Way:
    """One way of loading, in a process of its own: what one does with memory must not slow the other."""

    def __init__(self, make: Callable[..., Loader], *arguments: Any) -> None:
        self._process = ProcessPoolExecutor(1, get_context("spawn"), _open, (make, *arguments))

    def turn(self, epochs: range) -> dict[str, float]:
        """Clips/s by the clock and by the processor's time, in which other programs count for less."""
        return self._process.submit(_turn, epochs).result()

    def milliseconds(self, epochs: range) -> dict[str, float]:
        """Processor time of each part of the work per clip."""
        return self._process.submit(_milliseconds, epochs).result()

    def close(self) -> None:
        self._process.shutdown()


_loader: Loader  # of a Way's process


def _open(make: Callable[..., Loader], *arguments: Any) -> None:
    global _loader
    torch.set_num_threads(1)
    _loader = make(*arguments)


def _turn(epochs: range) -> dict[str, float]:
    clock, processor = time.perf_counter(), time.process_time()
    clips = sum(P * K for _ in _loader.batches(epochs))
    return {"clock": clips / (time.perf_counter() - clock), "processor": clips / (time.process_time() - processor)}


def _milliseconds(epochs: range) -> dict[str, float]:
    return _loader.milliseconds(epochs)


def bytes_of(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def differences(ours: OurLoader, plain: PlainLoader) -> dict[str, float]:
    """How far the two ways are from each other: frames in [-1, 1], weights in [-1, 1].

    Raises:
        SystemExit: further than two JPEG decoders and heatmaps of a quarter of the size explain.
    """
    frames, weights = [], []
    pairs = zip(ours.batches(range(1)), plain.batches(range(1)), strict=True)
    for (our_frames, our_weights), (plain_frames, plain_weights) in pairs:
        frames.append((our_frames.flatten(0, 1) - plain_frames).abs())
        weights.append((our_weights.flatten(0, 1) - plain_weights).abs())
    found = {
        "frames_largest": float(torch.stack(frames).max()), "frames_mean": float(torch.stack(frames).mean()),
        "weights_largest": float(torch.stack(weights).max()), "weights_mean": float(torch.stack(weights).mean()),
    }  # fmt: skip
    if found["frames_mean"] > 0.005 or found["weights_largest"] > 0.1 or found["weights_mean"] > 0.002:
        raise SystemExit(f"Error: the two ways differ by {found}; expected the same clips")
    return {name: round(value, 5) for name, value in found.items()}


def compare(ways: dict[str, Way], files: dict[str, list[Path]], rounds: int, epochs: int, cold: bool) -> dict[str, Any]:
    """Medians over the turns."""
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    still_cached = dict.fromkeys(ways, 0.0)
    for number in tqdm(range(rounds + 1), desc="outside the page cache" if cold else "inside", disable=None):
        for name, way in ways.items():
            if cold:
                still_cached[name] = max(still_cached[name], drop_from_page_cache(files[name]))
            measured[name].append(way.turn(range(number * epochs, (number + 1) * epochs)))
    found: dict[str, Any] = {}
    for kind in ("clock", "processor"):
        rates = {name: [turn[kind] for turn in measured[name][1:]] for name in ways}  # the first turn warms up
        times = [ours / plain for ours, plain in zip(rates["ours"], rates["plain"], strict=True)]
        found[kind] = {
            **{f"{name}_clips_a_second": round(statistics.median(rates[name]), 1) for name in ways},
            "times_as_fast": round(statistics.median(times), 2),
            "least_and_most": [round(min(times), 2), round(max(times), 2)],
        }
    return {**found, "still_cached": still_cached} if cold else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=int, default=24, help="drawn; half of them are trained on")
    parser.add_argument("--epochs", type=int, default=3, help="of a turn; 24 identities give 6 batches an epoch")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each way, after one that warms up")
    parser.add_argument("--folder", type=Path, help="where to draw: on a disk, not in memory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        store = prepare(folder, options.identities)
        (folder / "heatmaps").mkdir()
        files = write_heatmaps(store, folder / "heatmaps")
        os.sync()  # pages that are not written yet cannot be dropped
        agreement = differences(OurLoader(store), PlainLoader(store, files))
        on_disk = {
            "ours": list((folder / "prepared").glob("shards/*.h5")),
            "plain": [path for frames in files.values() for pair in frames for path in pair],
        }
        ways = {"ours": Way(OurLoader, store), "plain": Way(PlainLoader, store, files)}
        turns, epochs = (options.rounds, options.epochs), range(options.epochs)
        report: dict[str, Any] = {
            "machine": f"{platform.machine()}, torch {torch.__version__}, one thread",
            "bytes_a_frame": {
                "ours": bytes_of(on_disk["ours"]) // sum(map(store.num_frames, range(len(store.manifest.tracklets)))),
                "plain": bytes_of(on_disk["plain"]) // sum(map(len, files.values())),
            },
            "differences": agreement,
            "inside_the_page_cache": compare(ways, on_disk, *turns, cold=False),
            "processor_ms_a_clip": {name: way.milliseconds(epochs) for name, way in ways.items()},
            "outside_the_page_cache": compare(ways, on_disk, *turns, cold=True),
        }
        for way in ways.values():
            way.close()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
