"""Training loaders over a store, as the tests of several modules want them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prepared_dataset import commit_tracklets, encode

from keyreid.model.data.batch import ClipBatch
from keyreid.model.data.clips import training_clip
from keyreid.model.data.decode import decode_clip
from keyreid.model.data.labels import LabelTables
from keyreid.model.data.loader import TrainingLoader, training_loader
from keyreid.model.data.sampler import IdentitySampler
from keyreid.model.data.seeds import numpy_generator
from keyreid.pipeline.heatmaps import stored_heatmaps
from keyreid.pipeline.manifest import SourceTracklet, build_manifest, write_manifest
from keyreid.pipeline.shards import TrackletFrames
from keyreid.pipeline.store import TrackletStore


def make_loader(store: TrackletStore, **options: Any) -> TrainingLoader:
    settings = {
        "labels": LabelTables.of(store.tracklets("train")), "clip_length": 4, "frame_size": (32, 16),
        "identities_per_batch": 2, "clips_per_identity": 2, "seed": 0,
    }  # fmt: skip
    return training_loader(store, **{**settings, **options})


def load(store: TrackletStore, epoch: int = 0, **options: Any) -> list[ClipBatch]:
    return list(make_loader(store, **options).epoch(epoch))


def same(first: Iterable[ClipBatch], second: Iterable[ClipBatch]) -> bool:
    """Whether two epochs have the same batches, bit for bit."""
    pairs = list(zip(first, second, strict=True))
    assert pairs
    names = ("frames", "heatmaps", "identities", "cameras", "tracklet_ids")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for a, b in pairs for name in names)


def plain_batches(store: TrackletStore, epoch: int, *, seed: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Frames and heatmaps of the same batches, the slow way: a frame at a time, decoded and resized alone."""
    sampler = IdentitySampler(store.tracklets("train"), num_identities=2, clips_per_identity=2, seed=seed)
    for step, tracklets in enumerate(sampler.batches(epoch)):
        generator = numpy_generator("clips", seed, epoch, step)
        read = [store.read(t, training_clip(store.num_frames(t), 4, generator)) for t in tracklets]
        yield (
            torch.stack([decode_clip(encoded, (32, 16)) for encoded, _ in read]),
            torch.stack([torch.from_numpy(heatmaps) for _, heatmaps in read]),
        )


def make_mixed(prepared: Path) -> TrackletStore:
    """A prepared dataset of JPEG and PNG files of four sizes, with keypoints and the heatmaps that belong to them."""
    sources = [
        SourceTracklet("train", identity, camera, tuple(f"{identity}/{camera}/{frame}" for frame in range(count)))
        for identity in range(1, 5)
        for camera, count in [(1, 5), (2, 2 + identity)]
    ]
    manifest = build_manifest("mixed", prepared, sources, frames_per_shard=10)
    fingerprint = write_manifest(prepared, manifest)
    for shard in range(manifest.num_shards):
        tracklets = [_mixed_tracklet(t.tracklet_id, t.num_frames) for t in manifest.shard(shard)]
        commit_tracklets(prepared, shard, tracklets, fingerprint)
    return TrackletStore(prepared)


def _mixed_tracklet(tracklet_id: int, count: int) -> TrackletFrames:
    generator = np.random.default_rng(tracklet_id)
    sizes = np.array([[(16, 32), (24, 40), (8, 16), (16, 40)][frame % 4] for frame in range(count)])
    pictures = [generator.integers(0, 256, (height, width, 3), np.uint8) for width, height in sizes]
    kinds = [("JPEG", "PNG", "JPEG")[(frame + tracklet_id) % 3] for frame in range(count)]
    encoded = tuple(encode(picture, kind) for picture, kind in zip(pictures, kinds, strict=True))
    keypoints = generator.random((count, 17, 3), np.float32) * np.array([16, 32, 1], np.float32)
    heatmaps = stored_heatmaps(keypoints, sizes)
    return TrackletFrames(tracklet_id, np.arange(count), encoded, sizes, keypoints, heatmaps)
