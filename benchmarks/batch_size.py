"""Milliseconds a frame of the fast forward pass, by batch size.

.venv/bin/python benchmarks/batch_size.py --network shufflenetv2k16
.venv/bin/python benchmarks/batch_size.py --network synthetic
"""

from __future__ import annotations

import argparse
import json
import statistics

import torch
from extraction import load, seconds

from keyreid.pipeline.pose.forward import FastForward

SIZES = (1, 2, 4, 8, 16, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="synthetic", help="'synthetic', or a base network of openpifpaf")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, height = load(options.network)
    fast = FastForward(model, options.device)
    pictures = torch.randint(0, 256, (max(SIZES), height + 1, height // 2 + 1, 3), dtype=torch.uint8)
    times: dict[int, list[float]] = {size: [] for size in SIZES}
    for turn in range(options.turns + 1):
        for size, spent in times.items():
            taken = seconds(lambda size=size: [fast(batch) for batch in pictures.split(size)])
            if turn:  # the first one warms up
                spent.append(1e3 * taken / len(pictures))
    medians = {size: round(statistics.median(spent), 2) for size, spent in times.items()}
    suitable = fast.suitable_batch(pictures.shape[1:])
    print(json.dumps({"network": options.network, "milliseconds_a_frame": medians, "chosen": suitable}, indent=2))


if __name__ == "__main__":
    main()
