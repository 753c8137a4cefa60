"""Training loaders over a store, as the tests of several modules want them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from keyreid.model.data.batch import ClipBatch
from keyreid.model.data.decode import decode_frame
from keyreid.model.data.labels import LabelTables
from keyreid.model.data.loader import TrainingLoader
from keyreid.model.data.sampler import IdentitySampler, numpy_generator, training_clip
from keyreid.pipeline.store import TrackletStore


def make_loader(store: TrackletStore, **options: Any) -> TrainingLoader:
    settings = {
        "labels": LabelTables.of(store.tracklets("train")), "clip_length": 4, "frame_size": (32, 16),
        "identities_per_batch": 2, "clips_per_identity": 2, "seed": 0,
    }  # fmt: skip
    return TrainingLoader(store, **{**settings, **options})


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
            torch.stack([torch.stack([decode_frame(image, (32, 16)) for image in encoded]) for encoded, _ in read]),
            torch.stack([torch.from_numpy(heatmaps) for _, heatmaps in read]),
        )
