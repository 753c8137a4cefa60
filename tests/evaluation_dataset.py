"""A prepared dataset for the evaluation tests: striped people that cameras see in another light."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from prepared_dataset import commit_tracklets

from keyreid.model.network.build import build_model
from keyreid.model.network.config import ModelConfig
from keyreid.model.network.keyreid import KeyReID
from keyreid.model.network.weights import save_model
from keyreid.pipeline.manifest import IdentitySplit, SourceTracklet, build_manifest, write_manifest
from keyreid.pipeline.shards import TrackletFrames
from keyreid.pipeline.skeleton import NUM_JOINTS, NUM_PARTS

WIDTH, HEIGHT = 16, 32

# split, identity, camera, frames: lengths around the clip length of 4, a distractor (0), a query without a match (9).
ROWS = (
    ("train", 1, 1, 2), ("train", 1, 2, 2), ("train", 1, 3, 2), ("train", 2, 1, 2),
    ("query", 5, 1, 5), ("query", 6, 1, 4), ("query", 6, 2, 1), ("query", 9, 1, 3),
    ("gallery", 5, 1, 4), ("gallery", 5, 2, 9), ("gallery", 6, 3, 7), ("gallery", 0, 2, 3), ("gallery", 9, 1, 4),
)  # fmt: skip


def make_prepared(
    prepared: Path,
    rows: tuple[tuple[str, int, int, int], ...] = ROWS,
    *,
    name: str = "striped",
    identity_splits: tuple[IdentitySplit, ...] = (),
    shards: bool = True,
    frames_per_shard: int = 6,
) -> Path:
    """Write manifest, shards and receipts for `rows`; six frames a shard, so that there are several."""
    sources = [
        SourceTracklet(split, identity, camera, tuple(f"{row}/{frame}.png" for frame in range(count)))
        for row, (split, identity, camera, count) in enumerate(rows)
    ]
    manifest = build_manifest(
        name, prepared, sources, identity_splits=identity_splits, frames_per_shard=frames_per_shard
    )
    fingerprint = write_manifest(prepared, manifest)
    for shard in range(manifest.num_shards if shards else 0):
        tracklets = [_frames(t.tracklet_id, t.identity, t.camera, t.num_frames) for t in manifest.shard(shard)]
        commit_tracklets(prepared, shard, tracklets, fingerprint)
    return prepared


def tiny_config(**changes: object) -> ModelConfig:
    """A network of one thin block beside the last one; cameras 1 to 3, as in ROWS."""
    settings = {
        "backbone": "vit_tiny_patch16_224", "frame_size": (32, 16), "patch_size": 4, "width": 24, "depth": 2,
        "num_heads": 2, "score_width": 8, "num_identities": 2, "num_cameras": 3, "camera_numbers": (1, 2, 3),
        "part_pooling": "attention", "global_weight": 1.0,
    }  # fmt: skip
    return ModelConfig(**{**settings, **changes})  # type: ignore[arg-type]


def tiny_model(seed: int = 0, **changes: object) -> KeyReID:
    """In eval mode; its necks have statistics, as after training."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(tiny_config(**changes))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                torch.nn.init.normal_(module.running_mean)
                torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def save_tiny_model(folder: Path, extra: dict[str, object] | None = None, **changes: object) -> Path:
    save_model(tiny_model(**changes), folder, extra)
    return folder


def _frames(tracklet_id: int, identity: int, camera: int, num_frames: int) -> TrackletFrames:
    generator = np.random.default_rng(tracklet_id)
    stripes = np.random.default_rng(1000 + identity).integers(30, 180, (4, 1, 1, 3)).repeat(HEIGHT // 4, 1)
    person = np.broadcast_to(stripes.reshape(HEIGHT, 1, 3), (HEIGHT, WIDTH, 3)) + 15 * camera
    images = [person + generator.integers(-10, 11, person.shape) for _ in range(num_frames)]
    return TrackletFrames(
        tracklet_id,
        np.arange(num_frames),
        tuple(_png(image.astype(np.uint8)) for image in images),
        np.tile(np.array([WIDTH, HEIGHT]), (num_frames, 1)),
        np.zeros((num_frames, NUM_JOINTS, 3), np.float32),
        generator.integers(0, 256, (num_frames, NUM_PARTS, 64, 32)).astype(np.uint8),
    )


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
