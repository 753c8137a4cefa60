"""The plain way to load training clips, as the authors' pipeline does: a frame and a heatmap at a time.

Frames are opened with PIL and go one by one through torchvision's transforms. Heatmaps are float64 .npy files of the
frame's size: turned into float32, resized (also where they have the size already, as there), stretched to 0 to 1 part
by part, moved like the frame, stacked at full size, and averaged over the patches of the batch. The draw is given, so
that the result can be compared with ours. Not in it: a dictionary of every heatmap read, which there grows until
memory ends.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from loader_ours import PATCH, SIZE, K, P, T, make_plans
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, unfold
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from keyreid.model.data.augment import AugmentSettings, draw_augmentation
from keyreid.model.data.sampler import torch_generator
from keyreid.model.data.transform import Draw
from keyreid.pipeline.heatmaps import render_part_heatmaps
from keyreid.pipeline.keypoints import keypoints_path, read_keypoints
from keyreid.pipeline.manifest import read_shard_frames
from keyreid.pipeline.skeleton import NUM_PARTS
from keyreid.pipeline.store import TrackletStore

PAD = 10
FILL = torch.tensor([0.485, 0.456, 0.406])[:, None, None]

FrameFiles = tuple[Path, Path]


def write_heatmaps(store: TrackletStore, folder: Path) -> dict[int, list[FrameFiles]]:
    """A .npy file for each training frame; returns image and heatmap file of each tracklet's frames."""
    files: dict[int, list[FrameFiles]] = {}
    trained = {tracklet.tracklet_id for tracklet in store.tracklets("train")}
    for shard in range(store.manifest.num_shards):
        rows = read_keypoints(keypoints_path(store.path, shard))
        for source in read_shard_frames(store.path, shard).tracklets:
            if source.tracklet_id not in trained:
                continue
            mine = rows[rows.tracklet_id == source.tracklet_id]
            if not mine.in_shards.all():
                raise SystemExit(f"Error: tracklet {source.tracklet_id} has unreadable frames; expected none")
            files[source.tracklet_id] = []
            for frame, (path, keypoints, (width, height)) in enumerate(
                zip(source.paths, mine.keypoints, mine.sizes.tolist(), strict=True)
            ):
                heatmap = folder / f"{source.tracklet_id}-{frame}.npy"
                np.save(heatmap, render_part_heatmaps(keypoints.astype(np.float64), (height, width)).double())
                files[source.tracklet_id].append((Path(store.manifest.generations[0].root) / path, heatmap))
    return files


class PlainLoader:
    """The plain way, for the clips and draws of ours.

    Args:
        store: names the clips.
        files: of write_heatmaps.
    """

    def __init__(self, store: TrackletStore, files: dict[int, list[FrameFiles]]) -> None:
        self._plans, self._files, self._seconds = make_plans(store), files, Counter[str]()

    def batches(self, epochs: range) -> Iterator[tuple[Tensor, Tensor]]:
        """Frames float32 (B * T, 3, H, W) and part weights float32 (B * T, N, P)."""
        for self._plans.epoch in epochs:
            for plan in self._plans:
                generator = torch_generator("augment", 0, self._plans.epoch, plan.step)
                draw = draw_augmentation(plan.all_clips, T, AugmentSettings(), generator, SIZE)
                yield self._batch(plan.tracklet_ids, plan.frames, draw)

    def milliseconds(self, epochs: range) -> dict[str, float]:
        """Processor time of each part of the work per clip."""
        self._seconds.clear()
        clips = sum(P * K for _ in self.batches(epochs))
        return {part: round(1e3 * value / clips, 3) for part, value in self._seconds.items()}

    def _batch(self, tracklet_ids: list[int], frames: np.ndarray, draw: Draw) -> tuple[Tensor, Tensor]:
        places = zip(draw.flipped.tolist(), draw.down.tolist(), draw.right.tolist(), draw.boxes.tolist(), strict=True)
        clips = []
        for tracklet_id, clip in zip(tracklet_ids, frames.tolist(), strict=True):
            loaded = []
            for frame, place in zip(clip, places, strict=False):
                image, heatmap = self._files[tracklet_id][frame]
                loaded.append((self._frame(image, *place), self._heatmap(heatmap, *place)))
            began = time.process_time()
            clips.append([torch.stack(parts) for parts in zip(*loaded, strict=True)])
            self._count("stack", began)
        began = time.process_time()
        images, heatmaps = (torch.stack(parts).flatten(0, 1) for parts in zip(*clips, strict=True))
        began = self._count("stack", began)
        patches = unfold(heatmaps, kernel_size=PATCH, stride=PATCH)  # (n, P * 256, N)
        weights = patches.unflatten(1, (NUM_PARTS, -1)).mean(2).transpose(1, 2)
        self._count("average over patches", began)
        return images, weights

    def _frame(self, path: Path, flipped: bool, down: int, right: int, box: list[int]) -> Tensor:
        began = time.process_time()
        image = Image.open(path).convert("RGB")
        began = self._count("open and decode", began)
        image = transforms.resize(image, list(SIZE), InterpolationMode.BICUBIC)
        image = transforms.hflip(image) if flipped else image
        image = transforms.crop(transforms.pad(image, [PAD]), PAD + down, PAD + right, *SIZE)
        frame = transforms.normalize(transforms.to_tensor(image), [0.5] * 3, [0.5] * 3)
        top, bottom, left, end = box
        frame[:, top:bottom, left:end] = FILL
        self._count("transform frames", began)
        return frame

    def _heatmap(self, path: Path, flipped: bool, down: int, right: int, box: list[int]) -> Tensor:
        began = time.process_time()
        heatmap = torch.tensor(np.load(path), dtype=torch.float32)
        began = self._count("load heatmaps", began)
        heatmap = interpolate(heatmap[None], size=SIZE, mode="bilinear", align_corners=False)[0]
        low, high = heatmap.amin((1, 2), keepdim=True), heatmap.amax((1, 2), keepdim=True)
        heatmap = transforms.normalize((heatmap - low) / (high - low + 1e-6), [0.5] * NUM_PARTS, [0.5] * NUM_PARTS)
        heatmap = transforms.hflip(heatmap) if flipped else heatmap
        heatmap = transforms.crop(transforms.pad(heatmap, [PAD]), PAD + down, PAD + right, *SIZE)
        top, bottom, left, end = box
        heatmap[:, top:bottom, left:end] = 0
        self._count("transform heatmaps", began)
        return heatmap

    def _count(self, what: str, began: float) -> float:
        now = time.process_time()
        self._seconds[what] += now - began
        return now
