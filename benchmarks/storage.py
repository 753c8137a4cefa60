"""Bytes a frame of a prepared dataset, and what storing heatmaps small costs in accuracy.

    .venv/bin/python benchmarks/storage.py

Synthetic people are drawn in MARS's layout (256x128 JPEG), their keypoints extracted and shards built by the real
stages. Beside it: the authors' way, a float64 .npy of 6 x 256 x 128 for each frame. The error is that of a 16x16
patch's weight after random flip, crop and erasing, against the same done to each pixel of the full-size heatmaps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import h5py
import torch
from torch import Tensor
from torch.nn import functional

from keyreid.model.data.augment import AugmentSettings, draw_augmentation
from keyreid.model.data.transform import Draw, transform_heatmaps
from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.executor import SerialExecutor
from keyreid.pipeline.extract_keypoints import extract_keypoints
from keyreid.pipeline.heatmaps import FRAME_SIZE, render_part_heatmaps, stretch_heatmaps
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.keypoints import keypoints_path
from keyreid.pipeline.manifest import read_manifest
from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
from keyreid.pipeline.shards import shard_path
from keyreid.pipeline.skeleton import PART_FLIP
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.synthetic.layouts import SyntheticSettings, synthesize

PLAIN_BYTES = 6 * 256 * 128 * 8
GRID = (16, 8)
CASES = {
    "nothing": AugmentSettings(flip=0, pad=0, erase=0),
    "flip": AugmentSettings(flip=1, pad=0, erase=0),
    "crop": AugmentSettings(flip=0, pad=10, erase=0),
    "erase": AugmentSettings(flip=0, pad=0, erase=1),
    "all, as in training": AugmentSettings(),
}


def prepare(folder: Path, identities: int) -> Path:
    synthesize(folder / "people", "mars", SyntheticSettings(num_identities=identities, seed=3))
    write_manifest(folder / "prepared", read_source("mars", folder / "people"))
    extract_keypoints(folder / "prepared", resolve_checkpoint("synthetic"), SerialExecutor(), device="cpu")
    build_shards(folder / "prepared", SerialExecutor())
    return folder / "prepared"


def bytes_a_frame(prepared: Path) -> dict[str, float]:
    frames, sizes = 0, dict.fromkeys(("keypoints_parquet", "heatmaps", "images", "all_of_the_shard"), 0)
    for shard in range(read_manifest(prepared).num_shards):
        sizes["keypoints_parquet"] += keypoints_path(prepared, shard).stat().st_size
        sizes["all_of_the_shard"] += shard_path(prepared, shard).stat().st_size
        with h5py.File(shard_path(prepared, shard)) as file:
            frames += len(file["frames/sizes"])
            sizes["heatmaps"] += file["frames/heatmaps"].id.get_storage_size()
            sizes["images"] += file["frames/blob"].id.get_storage_size()
    return {"frames": frames, **{name: round(size / frames, 1) for name, size in sizes.items()}}


def patch_weight_errors(prepared: Path, frames: int) -> dict[str, dict[str, float]]:
    """Largest and mean absolute error of a weight, for each case."""
    with h5py.File(shard_path(prepared, 0)) as file:
        stored = torch.from_numpy(file["frames/heatmaps"][:frames])
        keypoints = torch.from_numpy(file["frames/keypoints"][:frames])
    exact = stretch_heatmaps(render_part_heatmaps(keypoints.double(), FRAME_SIZE)).double()
    errors = {}
    for name, settings in CASES.items():
        generator = torch.Generator().manual_seed(0)
        draw = draw_augmentation(len(stored), 1, settings, generator, FRAME_SIZE)
        ours = transform_heatmaps(stored, draw, FRAME_SIZE, GRID, "aligned")
        error = (ours - every_pixel(exact, draw)).abs()
        errors[name] = {"largest": round(float(error.max()), 5), "mean": round(float(error.mean()), 7)}
    return errors


def every_pixel(heatmaps: Tensor, draw: Draw) -> Tensor:
    """float64 (n, P, 256, 128) -> (n, N, P): flip, shift and erase each pixel, then average the patches."""
    weights = []
    for heatmap, flipped, down, right, box in zip(heatmaps, *draw, strict=True):
        moved = heatmap[list(PART_FLIP)].flip(-1) if flipped else heatmap
        padded = functional.pad(moved, (16, 16, 16, 16))
        top, left = 16 + int(down), 16 + int(right)
        shown = padded[:, top : top + FRAME_SIZE[0], left : left + FRAME_SIZE[1]].clone()
        shown[:, box[0] : box[1], box[2] : box[3]] = 0
        weights.append(functional.avg_pool2d(shown, FRAME_SIZE[0] // GRID[0]).flatten(1).T)
    return torch.stack(weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=int, default=24)
    parser.add_argument("--frames", type=int, default=1000, help="whose patch weights are compared")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(Path(folder), options.identities)
        sizes = bytes_a_frame(prepared)
        errors = patch_weight_errors(prepared, options.frames)
    plain = {"float64_npy": PLAIN_BYTES, "times_less_for_heatmaps": round(PLAIN_BYTES / sizes["heatmaps"])}
    print(json.dumps({"bytes_a_frame": {**sizes, **plain}, "patch_weight_error": errors}, indent=2))


if __name__ == "__main__":
    main()
