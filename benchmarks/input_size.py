"""How large crops should be made for PifPaf: joints found right, and time, for crops of several sizes and scales.

    .venv/bin/python benchmarks/input_size.py

Synthetic people with the demo's network, which was trained on pictures 128 high. Crops are 256, 128 and 64 high, as
MARS's, iLIDS-VID's and smaller ones; each is resized to several heights before the network. Joints right: of the
visible joints, those that the best-scoring person has within 5 % of the crop's height.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from keyreid.pipeline.pose.checkpoints import load_checkpoint, resolve_checkpoint
from keyreid.pipeline.pose.forward import PoseSettings, make_picture
from keyreid.pipeline.pose.pifpaf import PifPafEstimator
from keyreid.pipeline.synthetic.person import sample_appearance
from keyreid.pipeline.synthetic.scene import SyntheticFrame, render_tracklet, sample_camera

CROP_HEIGHTS = (256, 128, 64)
INPUT_HEIGHTS = (64, 96, 128, 160, 192, 256)
CLOSE = 0.05
NUM_FRAMES = 8


def draw(number: int, difficulty: float) -> list[SyntheticFrame]:
    rng = np.random.default_rng([77, number])
    camera = sample_camera(rng, difficulty)
    return list(render_tracklet(sample_appearance(rng, difficulty, rng), camera, NUM_FRAMES, difficulty, rng))


def measure(
    estimator: PifPafEstimator, tracklets: list[list[SyntheticFrame]], crop_height: int, input_height: int
) -> dict[str, float]:
    settings = PoseSettings(input_height)
    frames = [(number, frame) for number, tracklet in enumerate(tracklets) for frame in tracklet]
    size = (crop_height // 2, crop_height)
    crops = [np.asarray(frame.image.resize(size, Image.Resampling.BOX)) for _, frame in frames]
    start = time.perf_counter()
    pictures = [(number, make_picture(crop, settings)) for (number, _), crop in zip(frames, crops, strict=True)]
    found = list(estimator.estimate(pictures))
    seconds = time.perf_counter() - start
    detected = close = visible = 0
    for (_, frame), people in zip(frames, found, strict=True):
        seen = frame.keypoints[:, 2] > 0
        visible += int(seen.sum())
        if people:
            detected += 1
            keypoints = people[0].keypoints
            distance = np.hypot(*(keypoints[:, :2] / crop_height - frame.keypoints[:, :2] / 256).T)
            close += int((seen & (keypoints[:, 2] > 0) & (distance < CLOSE)).sum())
    return {
        "crop_height": crop_height,
        "input_height": input_height,
        "scale": input_height / crop_height,
        "detected_percent": round(100 * detected / len(frames), 1),
        "joints_right_percent": round(100 * close / visible, 1),
        "milliseconds_a_frame": round(1e3 * seconds / len(frames), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracklets", type=int, default=60)
    parser.add_argument("--difficulty", type=float, default=0.6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    estimator = PifPafEstimator(load_checkpoint(resolve_checkpoint("synthetic")))
    tracklets = [draw(number, options.difficulty) for number in tqdm(range(options.tracklets), unit=" tracklets")]
    for crop_height in CROP_HEIGHTS:
        for input_height in INPUT_HEIGHTS:
            measure(estimator, tracklets[:2], crop_height, input_height)  # makes the graph of this size
            print(json.dumps(measure(estimator, tracklets, crop_height, input_height)))


if __name__ == "__main__":
    main()
