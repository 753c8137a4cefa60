"""A prepared dataset for the evaluation tests: striped people that cameras see in another light."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from prepared_dataset import Row, as_frames, prepare

from keyreid.model.network.build import build_model
from keyreid.model.network.config import ModelConfig
from keyreid.model.network.keyreid import KeyReID
from keyreid.model.network.weights import save_model
from keyreid.pipeline.manifest import IdentitySplit
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.shards import TrackletFrames
from keyreid.pipeline.skeleton import NUM_PARTS

WIDTH, HEIGHT = 16, 32

# split, identity, camera, frames: lengths around the clip length of 4, a distractor (0), a query without a match (9).
ROWS = (
    ("train", 1, 1, 2), ("train", 1, 2, 2), ("train", 1, 3, 2), ("train", 2, 1, 2),
    ("query", 5, 1, 5), ("query", 6, 1, 4), ("query", 6, 2, 1), ("query", 9, 1, 3),
    ("gallery", 5, 1, 4), ("gallery", 5, 2, 9), ("gallery", 6, 3, 7), ("gallery", 0, 2, 3), ("gallery", 9, 1, 4),
)  # fmt: skip


def make_prepared(
    prepared: Path,
    rows: tuple[Row, ...] = ROWS,
    *,
    name: str = "striped",
    identity_splits: tuple[IdentitySplit, ...] = (),
    shards: bool = True,
    frames_per_shard: int = 6,
) -> Path:
    """Six frames per shard, so that there are several."""
    return prepare(
        prepared,
        rows,
        _striped,
        name=name,
        frames_per_shard=frames_per_shard,
        identity_splits=identity_splits,
        shards=shards,
    )


def tiny_config(**changes: object) -> ModelConfig:
    """A network of one thin block and the last one; cameras 1 to 3, as in ROWS."""
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


def _striped(tracklet: Tracklet) -> TrackletFrames:
    generator = np.random.default_rng(tracklet.tracklet_id)
    stripes = np.random.default_rng(1000 + tracklet.identity).integers(30, 180, (4, 1, 1, 3)).repeat(HEIGHT // 4, 1)
    person = np.broadcast_to(stripes.reshape(HEIGHT, 1, 3), (HEIGHT, WIDTH, 3)) + 15 * tracklet.camera
    pictures = [person + generator.integers(-10, 11, person.shape) for _ in range(tracklet.num_frames)]
    heatmaps = generator.integers(0, 256, (tracklet.num_frames, NUM_PARTS, 64, 32)).astype(np.uint8)
    return as_frames(tracklet, pictures, heatmaps)
