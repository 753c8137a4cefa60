"""Frames a second of keypoint extraction: ours beside openpifpaf's Predictor, called frame by frame.

    .venv/bin/python benchmarks/extraction.py --network synthetic
    .venv/bin/python benchmarks/extraction.py --network shufflenetv2k16

The same network (random weights where it is not "synthetic"), the same pictures at the same size, one torch thread, in
one process. The two ways and the network's plain forward pass alone take turns; printed are medians over the turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from keyreid.pipeline.pose import pifpaf
from keyreid.pipeline.pose.checkpoints import load_checkpoint, resolve_checkpoint
from keyreid.pipeline.pose.forward import FastForward
from keyreid.pipeline.pose.frames import prepare_frame
from keyreid.pipeline.synthetic.appearance import sample_appearance
from keyreid.pipeline.synthetic.scene import sample_camera
from keyreid.pipeline.synthetic.tracklets import render_tracklet

BATCH_SIZE = 32


def draw_tracklets(num_tracklets: int, num_frames: int, height: int) -> list[list[np.ndarray]]:
    """Drawn people, uint8 (height, height / 2, 3) each."""
    tracklets = []
    for number in range(num_tracklets):
        rng = np.random.default_rng([99, number])
        camera = sample_camera(rng, 0.6, 256, 128)
        frames = render_tracklet(sample_appearance(rng, 0.6, rng), camera, num_frames, 0.6, rng)
        tracklets.append(
            [np.asarray(frame.image.resize((height // 2, height), Image.Resampling.BOX)) for frame in frames]
        )
    return tracklets


def load(name: str) -> tuple[Any, int]:
    """The network and the height of its pictures."""
    if name == "synthetic":
        resolved = resolve_checkpoint(name)
        return load_checkpoint(resolved), resolved.input_height
    torch.manual_seed(0)
    return pifpaf.build_network(name, 1).eval(), 256


def predictor_of(model: Any) -> Any:
    """openpifpaf's Predictor around a network that is already in memory."""
    pifpaf.network.Factory.factory = lambda self, head_metas=None: (model, 0)
    return pifpaf.openpifpaf.Predictor()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(name: str, num_tracklets: int, num_frames: int, turns: int) -> dict[str, float]:
    model, height = load(name)
    tracklets = draw_tracklets(num_tracklets, num_frames, height)
    frames = [frame for tracklet in tracklets for frame in tracklet]
    estimator = pifpaf.PifPafEstimator(model, height, batch_size=BATCH_SIZE)
    predictor = predictor_of(model)
    pictures = torch.stack([prepare_frame(frame, height) for frame in frames])
    fast = FastForward(model, "cpu")

    def plain_forward() -> None:
        with torch.inference_mode():
            for batch in pictures.split(BATCH_SIZE):
                model(batch)

    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: estimator.estimate(tracklets),
        "predictor": lambda: [predictor.numpy_image(frame) for frame in frames],
        "plain_forward_alone": plain_forward,
        "fast_forward_alone": lambda: [fast(batch) for batch in pictures.split(BATCH_SIZE)],
    }
    for work in ways.values():
        work()
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(turns):
        for way, work in ways.items():
            times[way].append(seconds(work))
    rates = {way: len(frames) / statistics.median(values) for way, values in times.items()}
    return {
        **{f"{way}_frames_per_second": round(rate, 1) for way, rate in rates.items()},
        "ours_over_predictor": round(rates["ours"] / rates["predictor"], 2),
        "ours_over_plain_forward_alone": round(rates["ours"] / rates["plain_forward_alone"], 2),
        "ours_over_fast_forward_alone": round(rates["ours"] / rates["fast_forward_alone"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="synthetic", help="'synthetic', or a base network of openpifpaf")
    parser.add_argument("--tracklets", type=int, default=8)
    parser.add_argument("--frames", type=int, default=16, help="of each tracklet")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(options.network, options.tracklets, options.frames, options.turns)
    setting = {"network": options.network, "torch": torch.__version__, "machine": platform.machine(), "threads": 1}
    print(json.dumps({**setting, **result}, indent=2))


if __name__ == "__main__":
    main()
