"""Tracklets/s: full batches that span tracklets, compared with one tracklet at a time.

    .venv/bin/python benchmarks/descriptors.py --threads 1
    .venv/bin/python benchmarks/descriptors.py --preset vit-base --device cuda --batch 64 --workers 8
    .venv/bin/python benchmarks/descriptors.py --identities 4 --frames 2 9 --rounds 1     # does it run?

One tracklet at a time is the way of public video re-identification code: a loader hands over the clips of one
tracklet, the network takes all of them in one pass, and their mean is the descriptor. Both ways have the same network
(random weights), the same frames and decoder, the same number of reading processes and the same precision, and must
give the same descriptors before anything is timed. They take turns; printed are medians. Frames are synthetic people,
256x128 JPEG; tracklets differ in length, evenly between the two numbers of --frames.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from keyreid.model import KeyReID, ModelConfig, build_model
from keyreid.model.data.reading import ClipPlan, read_clips
from keyreid.model.data.transform import normalise_frames, part_weights_from_heatmaps
from keyreid.model.device import autocast, compute_dtype
from keyreid.model.embedding.settings import PLAIN
from keyreid.model.embedding.tracklets import clips_of, embed_tracklets
from keyreid.model.network.keyreid import concatenate, pool_clips
from keyreid.model.presets import preset_summaries, read_preset
from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.exchange.import_keypoints import import_keypoints
from keyreid.pipeline.executor import SerialExecutor
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.store import TrackletStore
from keyreid.pipeline.synthetic.layouts import TRUTH_FILE, SyntheticSettings, synthesize

TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 1e-2}  # of the length of a descriptor
CAMERAS = tuple(range(1, 7))


def prepare(folder: Path, identities: int, frames: Sequence[int]) -> TrackletStore:
    """Synthetic people in MARS's layout with their true keypoints."""
    settings = SyntheticSettings(num_identities=identities, min_frames=frames[0], max_frames=frames[1], seed=3)
    synthesize(folder / "people", "mars", settings)
    write_manifest(folder / "prepared", read_source("mars", folder / "people"))
    import_keypoints(folder / "prepared", folder / "people" / TRUTH_FILE, SerialExecutor())
    build_shards(folder / "prepared", SerialExecutor())
    return TrackletStore(folder / "prepared")


def make_network(preset: str, device: str) -> KeyReID:
    settings = {**read_preset(preset)["model"], "pretrained": ""}
    torch.manual_seed(0)
    config = ModelConfig(**settings, num_identities=625, num_cameras=len(CAMERAS), camera_numbers=CAMERAS)
    return build_model(config, load_backbone=False).to(device).eval()


class OneTracklet(Dataset):
    """Place of a tracklet -> its frames uint8 (n, T, 3, H, W) and heatmaps uint8 (n, T, P, 64, 32)."""

    def __init__(self, model: KeyReID, store: TrackletStore, tracklets: Sequence[Tracklet]) -> None:
        self.config, self.store, self.tracklets = model.config, store, tracklets

    def __len__(self) -> int:
        return len(self.tracklets)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        tracklet = self.tracklets[place]
        clips = clips_of(self.store, tracklet, self.config, PLAIN)
        plan = ClipPlan([tracklet.tracklet_id] * len(clips), np.array([clip.frames for clip in clips]))
        read = read_clips(self.store, plan, self.config.frame_size)
        return read.frames, read.heatmaps


def plain(model: KeyReID, store: TrackletStore, tracklets: Sequence[Tracklet], workers: int) -> np.ndarray:
    """Descriptors, one tracklet at a time."""
    device = model.device
    loader: DataLoader = DataLoader(OneTracklet(model, store, tracklets), batch_size=None, num_workers=workers)
    described = []
    with torch.inference_mode():
        for tracklet, (frames, heatmaps) in zip(tracklets, loader, strict=True):
            frames, heatmaps = frames.to(device), heatmaps.to(device)
            weights = part_weights_from_heatmaps(heatmaps, model.patch_grid, model.config.variant)
            cameras = torch.full((len(frames),), CAMERAS.index(tracklet.camera), device=device)
            with autocast(device, compute_dtype(device, True)):
                clips = model.describe(normalise_frames(frames), weights, cameras)
            pooled = pool_clips(clips, torch.zeros(len(frames), dtype=torch.int64, device=device), 1)
            described.append(concatenate(pooled, model.config).float().cpu())
    return torch.cat(described).numpy()


def measure(ways: dict[str, Callable[[], np.ndarray]], rounds: int) -> dict[str, float]:
    """Median seconds of each way; they take turns, after one turn that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in tqdm(range(rounds + 1), leave=False):
        for name, way in ways.items():
            start = time.perf_counter()
            way()  # ends with descriptors on the host, so that a device has nothing left to do
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=tuple(preset_summaries()), default="demo")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=16, help="clips of a full batch")
    parser.add_argument("--workers", type=int, default=0, help="reading processes, of both ways")
    parser.add_argument("--identities", type=int, default=24)
    parser.add_argument("--frames", type=int, nargs=2, default=(2, 60), help="of the shortest and longest tracklet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 keeps torch's choice")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    model = make_network(options.preset, options.device)
    precision = str(compute_dtype(torch.device(options.device), True)).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as folder:
        store = prepare(Path(folder), options.identities, options.frames)
        tracklets = store.tracklets("train", "query", "gallery")
        ways: dict[str, Callable[[], np.ndarray]] = {
            "ours": lambda: (
                embed_tracklets(
                    model, store, tracklets, batch_size=options.batch, fingerprint="", num_workers=options.workers
                ).values
            ),
            "one_at_a_time": lambda: plain(model, store, tracklets, options.workers),
        }
        ours, theirs = ways["ours"](), ways["one_at_a_time"]()
        difference = float((np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)).max())
        if not difference <= TOLERANCE[precision]:
            raise SystemExit(f"Error: the ways differ by {difference:.1e}; expected {TOLERANCE[precision]:.0e} at most")
        seconds = measure(ways, options.rounds)
        clips = sum(len(clips_of(store, tracklet, model.config, PLAIN)) for tracklet in tracklets)
    print(
        json.dumps(
            {
                "where": torch.cuda.get_device_name() if options.device == "cuda" else platform.machine(),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                **vars(options),
                "precision": precision,
                "tracklets": len(tracklets),
                "clips": clips,
                "largest_difference": difference,
                "tracklets_a_second": {name: round(len(tracklets) / value, 2) for name, value in seconds.items()},
                "times_faster": round(seconds["one_at_a_time"] / seconds["ours"], 2),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
