"""Frames a second of keypoint extraction: ours beside openpifpaf's Predictor, called frame by frame.

    .venv/bin/python benchmarks/extraction.py --network synthetic
    .venv/bin/python benchmarks/extraction.py --network shufflenetv2k16

The same network (random weights where it is not "synthetic"), the same JPEG files, one process. The ways take turns;
printed are medians over the turns. "ours" and "predictor" begin with the JPEG bytes; the other lines show what the
parts take alone: the plain forward pass in batches and FastForward's, JPEG decoding, the decoder.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from keyreid.pipeline.pose import pifpaf
from keyreid.pipeline.pose.checkpoints import load_checkpoint, resolve_checkpoint
from keyreid.pipeline.pose.forward import FastForward, Picture, PoseSettings, make_picture, normalise
from keyreid.pipeline.synthetic.person import sample_appearance
from keyreid.pipeline.synthetic.scene import render_tracklet, sample_camera


def draw_tracklets(num_tracklets: int, num_frames: int, height: int) -> list[list[bytes]]:
    """Drawn people as JPEG files, `height` high and half as wide: what the network wants, so that nobody resizes."""
    tracklets = []
    for number in range(num_tracklets):
        rng = np.random.default_rng([99, number])
        camera = sample_camera(rng, 0.6)
        frames = render_tracklet(sample_appearance(rng, 0.6, rng), camera, num_frames, 0.6, rng)
        tracklets.append([_jpeg(frame.image.resize((height // 2, height), Image.Resampling.BOX)) for frame in frames])
    return tracklets


def load(name: str) -> tuple[Any, int]:
    """The network and the height of its pictures."""
    if name == "synthetic":
        resolved = resolve_checkpoint(name)
        return load_checkpoint(resolved), resolved.input_height
    torch.manual_seed(0)
    return pifpaf.build_network(name, 1).eval(), 256


def predictor_of(model: Any, device: str) -> Any:
    """openpifpaf's Predictor around a network that is already in memory."""
    pifpaf.network.Factory.factory = lambda self, head_metas=None: (model, 0)
    pifpaf.openpifpaf.Predictor.device_ = torch.device(device)
    return pifpaf.openpifpaf.Predictor()


def read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(
    name: str, tracklets: list[list[bytes]], height: int, model: Any, turns: int, device: str
) -> dict[str, Any]:
    frames = [frame for tracklet in tracklets for frame in tracklet]
    settings = PoseSettings(height)
    estimator = pifpaf.PifPafEstimator(model, device)
    predictor = predictor_of(model, device)
    fast = FastForward(model, device)

    def pictures() -> list[tuple[int, Picture | None]]:
        return [
            (number, make_picture(read(frame), settings))
            for number, tracklet in enumerate(tracklets)
            for frame in tracklet
        ]

    prepared = pictures()
    stacked = torch.stack([picture.pixels for _, picture in prepared if picture is not None])
    batches = stacked.split(fast.suitable_batch(stacked.shape[1:]))
    fields = [fast(batch) for batch in batches]
    decoder = pifpaf.decoder.CifCaf([model.head_metas[0]], [model.head_metas[1]])
    moved = model.to(device)

    def plain_forward() -> None:
        with torch.inference_mode():
            for batch in batches:
                moved(normalise(batch.to(device)))

    def decode() -> None:
        for heads in fields:
            for position in range(len(heads[0])):
                decoder([head[position].contiguous() for head in heads[:2]])

    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: list(estimator.estimate(pictures())),
        "predictor": lambda: [predictor.numpy_image(read(frame)) for frame in frames],
        "plain_forward": plain_forward,
        "fast_forward": lambda: [fast(batch) for batch in batches],
        "jpeg": pictures,
        "decoder": decode,
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in tqdm(range(turns + 1), unit=" turns"):
        for way, work in ways.items():
            spent = seconds(work)
            if turn:  # the first one warms up
                times[way].append(spent)
    medians = {way: statistics.median(values) / len(frames) for way, values in times.items()}
    ratios = [ours / theirs for ours, theirs in zip(times["predictor"], times["ours"], strict=True)]
    return {
        "ours_frames_per_second": round(1 / medians["ours"], 1),
        "predictor_frames_per_second": round(1 / medians["predictor"], 1),
        "ours_over_predictor": round(medians["predictor"] / medians["ours"], 2),
        "least_and_most_over_turns": [round(min(ratios), 2), round(max(ratios), 2)],
        "ours_over_plain_forward_alone": round(medians["plain_forward"] / medians["ours"], 2),
        "ours_over_fast_forward_alone": round(medians["fast_forward"] / medians["ours"], 2),
        "milliseconds_a_frame": {way: round(1e3 * value, 2) for way, value in medians.items()},
    }


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="synthetic", help="'synthetic', or a base network of openpifpaf")
    parser.add_argument("--tracklets", type=int, default=8)
    parser.add_argument("--frames", type=int, default=16, help="of each tracklet")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, height = load(options.network)
    tracklets = draw_tracklets(options.tracklets, options.frames, height)
    result = measure(options.network, tracklets, height, model, options.turns, options.device)
    setting = {"network": options.network, "device": options.device, "threads": options.threads}
    versions = {"torch": torch.__version__, "machine": platform.machine()}
    print(json.dumps({**setting, **versions, **result}, indent=2))


if __name__ == "__main__":
    main()
