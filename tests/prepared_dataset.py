"""A prepared dataset made in the test: tiny flat-coloured frames with a square where each part is."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from keyreid.pipeline.commit import commit_shard
from keyreid.pipeline.manifest import SourceTracklet, build_manifest, write_manifest
from keyreid.pipeline.shards import TrackletFrames, shard_path, write_shard
from keyreid.pipeline.skeleton import NUM_JOINTS, NUM_PARTS


def make_prepared(
    prepared: Path,
    *,
    identities: int = 4,
    cameras: int = 2,
    num_frames: int = 5,
    size: tuple[int, int] = (32, 64),
    shards: bool = True,
    splits: tuple[str, ...] = ("train",),
) -> Path:
    """One tracklet for each split, identity and camera; an identity is a colour, a camera a brightness.

    Args:
        prepared: folder to make.
        num_frames: frames of a tracklet; every third tracklet has two fewer.
        size: width and height of the frames.
        shards: whether to build the shards.
    """
    sources = [
        SourceTracklet(split, identity, camera, tuple(f"{split}/{identity}/{camera}/{f}.jpg" for f in range(count)))
        for split in splits
        for identity in range(1, identities + 1)
        for camera in range(1, cameras + 1)
        for count in [max(1, num_frames - 2 * (identity % 3 == 0))]
    ]
    manifest = build_manifest("tiny", prepared, sources, frames_per_shard=4 * num_frames)
    fingerprint = write_manifest(prepared, manifest)
    for shard in range(manifest.num_shards if shards else 0):
        tracklets = [_tracklet(t.tracklet_id, t.identity, t.camera, t.num_frames, size) for t in manifest.shard(shard)]
        commit_tracklets(prepared, shard, tracklets, fingerprint)
    return prepared


def commit_tracklets(prepared: Path, shard: int, tracklets: list[TrackletFrames], inputs: str) -> None:
    """A shard and its receipt, which agree."""
    commit_shard(
        prepared,
        "shards",
        shard,
        shard_path(prepared, shard),
        lambda path: write_shard(path, tracklets, {"settings": "test", "inputs": inputs}),
        rows=sum(tracklet.num_frames for tracklet in tracklets),
        settings="test",
        inputs=inputs,
        notes={},
        made_with={},
    )


def change_a_bit(path: Path) -> None:
    """Of a shard, where no decoder notices it."""
    with h5py.File(path) as file:
        place = file["frames/keypoints"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def encode(image: np.ndarray, kind: str = "PNG") -> bytes:
    """An image file's bytes of a uint8 (H, W) or (H, W, channels) array."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def _tracklet(tracklet_id: int, identity: int, camera: int, num_frames: int, size: tuple[int, int]) -> TrackletFrames:
    generator = np.random.default_rng(tracklet_id)
    colour = np.random.default_rng(1000 + identity).integers(40, 220, 3)
    encoded = []
    for _ in range(num_frames):
        noise = generator.integers(-15, 16, (size[1], size[0], 3))
        encoded.append(encode((colour + 20 * camera + noise).clip(0, 255).astype(np.uint8)))
    heatmaps = np.zeros((num_frames, NUM_PARTS, 64, 32), np.uint8)
    for part in range(NUM_PARTS):
        heatmaps[:, part, 10 * part : 10 * part + 12, 6:26] = 255
    return TrackletFrames(
        tracklet_id,
        np.arange(num_frames),
        tuple(encoded),
        np.tile(np.array(size), (num_frames, 1)),
        np.zeros((num_frames, NUM_JOINTS, 3), np.float32),
        heatmaps,
    )
