"""Small prepared datasets, written by the product's own writers: manifest, keypoints, shards and their receipts."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from keyreid.pipeline.commit import commit_shard, fingerprint, read_json, write_json
from keyreid.pipeline.heatmaps import stored_heatmaps
from keyreid.pipeline.index import Reading, SourceTracklet, write_manifest
from keyreid.pipeline.keypoints import KeypointColumns, keypoints_path, write_keypoints
from keyreid.pipeline.manifest import IdentitySplit, dataset_path, read_manifest, read_shard_frames
from keyreid.pipeline.records import FRAME_NO_POSE, FRAME_OK, ShardReceipt, Tracklet
from keyreid.pipeline.shards import TrackletFrames, shard_path, write_shard
from keyreid.pipeline.skeleton import NUM_JOINTS, NUM_PARTS
from keyreid.pipeline.stages import KEYPOINTS, SHARDS, keypoint_fingerprint

Row = tuple[str, int, int | str, int]  # split, identity, camera, frames


def prepare(
    prepared: Path,
    rows: Iterable[Row],
    draw: Callable[[Tracklet], TrackletFrames],
    *,
    name: str,
    frames_per_shard: int,
    identity_splits: tuple[IdentitySplit, ...] = (),
    shards: bool = True,
) -> Path:
    """Index `rows`, and write what `draw` makes of each tracklet; `shards` False leaves it at the index."""
    sources = [
        SourceTracklet(split, identity, camera, tuple(f"{row}/{frame}.png" for frame in range(count)))
        for row, (split, identity, camera, count) in enumerate(rows)
    ]
    reading = Reading(name, prepared, sources, identity_splits=identity_splits)
    manifest = write_manifest(prepared, reading, frames_per_shard=frames_per_shard)
    if shards:
        info = read_json(dataset_path(prepared))
        write_json(dataset_path(prepared), info | {"stages": {KEYPOINTS: {"by": "hand"}, SHARDS: {"by": "hand"}}})
        for shard in range(manifest.num_shards):
            build_shard(prepared, shard, [draw(tracklet) for tracklet in manifest.shard(shard)])
    return prepared


def build_shard(prepared: Path, shard: int, tracklets: list[TrackletFrames]) -> None:
    """Keypoints and shard of some tracklets, none of whose frames is left out."""
    settings = read_json(dataset_path(prepared))["stages"]
    sizes, keypoints = (np.concatenate([getattr(t, name) for t in tracklets]) for name in ("sizes", "keypoints"))
    columns = KeypointColumns(
        tracklet_id=np.concatenate([np.full(t.num_frames, t.tracklet_id) for t in tracklets]),
        frame_index=np.concatenate([t.frame_index for t in tracklets]).astype(np.int32),
        sizes=sizes.astype(np.int32),
        status=np.where(keypoints.any(axis=(1, 2)), FRAME_OK, FRAME_NO_POSE),
        score=np.ones(len(sizes), np.float32),
        keypoints=keypoints,
    )
    frames = read_shard_frames(prepared, shard)

    def commit(stage: str, path: Path, write: Callable[[Path], None], inputs: str) -> ShardReceipt:
        return commit_shard(
            prepared, stage, shard, path, write, generation=frames.generation, rows=len(sizes), inputs=inputs,
            settings=fingerprint(settings[stage]), notes={"left_out": {}}, made_with={},
        )  # fmt: skip

    made = commit(
        KEYPOINTS, keypoints_path(prepared, shard), lambda path: write_keypoints(path, columns), frames.sha256
    )
    inputs = keypoint_fingerprint(made)
    attributes: dict[str, str | int] = {"settings": fingerprint(settings[SHARDS]), "inputs": inputs}
    commit(SHARDS, shard_path(prepared, shard), lambda path: write_shard(path, tracklets, attributes), inputs)


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
    """Flat-coloured frames; one tracklet for each split, identity (a colour) and camera (a brightness).

    Args:
        prepared: folder to make.
        num_frames: frames of a tracklet; every third identity has two fewer.
        size: width and height of the frames.
        shards: whether to build the shards.
    """
    rows = [
        (split, identity, camera, max(1, num_frames - 2 * (identity % 3 == 0)))
        for split in splits
        for identity in range(1, identities + 1)
        for camera in range(1, cameras + 1)
    ]
    return prepare(
        prepared, rows, lambda one: flat_frames(one, size), name="tiny", frames_per_shard=4 * num_frames, shards=shards
    )


def rebuild_with_other_keypoints(prepared: Path) -> None:
    """All keypoints and shards of make_prepared once more, one joint of each frame moved."""
    manifest = read_manifest(prepared)
    for shard in range(manifest.num_shards):
        tracklets = [flat_frames(tracklet) for tracklet in manifest.shard(shard)]
        for tracklet in tracklets:
            tracklet.keypoints[:, 0] = 1
        build_shard(prepared, shard, tracklets)


def make_mixed(prepared: Path) -> Path:
    """JPEG and PNG files of four sizes, with keypoints and the heatmaps that belong to them."""
    rows = [
        ("train", identity, camera, count) for identity in range(1, 5) for camera, count in [(1, 5), (2, 2 + identity)]
    ]
    return prepare(prepared, rows, _mixed, name="mixed", frames_per_shard=10)


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


def as_frames(tracklet: Tracklet, pictures: Iterable[np.ndarray], heatmaps: np.ndarray) -> TrackletFrames:
    """PNG files without keypoints, of one size."""
    arrays = [picture.clip(0, 255).astype(np.uint8) for picture in pictures]
    count, (height, width) = len(arrays), arrays[0].shape[:2]
    return TrackletFrames(
        tracklet.tracklet_id,
        np.arange(count),
        tuple(map(encode, arrays)),
        np.tile(np.array([width, height]), (count, 1)),
        np.zeros((count, NUM_JOINTS, 3), np.float32),
        heatmaps,
    )


def flat_frames(tracklet: Tracklet, size: tuple[int, int] = (32, 64)) -> TrackletFrames:
    generator = np.random.default_rng(tracklet.tracklet_id)
    colour = np.random.default_rng(1000 + tracklet.identity).integers(40, 220, 3) + 20 * tracklet.camera
    shape = (size[1], size[0], 3)
    pictures = [colour + generator.integers(-15, 16, shape) for _ in range(tracklet.num_frames)]
    heatmaps = np.zeros((tracklet.num_frames, NUM_PARTS, 64, 32), np.uint8)
    for part in range(NUM_PARTS):
        heatmaps[:, part, 10 * part : 10 * part + 12, 6:26] = 255
    return as_frames(tracklet, pictures, heatmaps)


def _mixed(tracklet: Tracklet) -> TrackletFrames:
    generator, count = np.random.default_rng(tracklet.tracklet_id), tracklet.num_frames
    sizes = np.array([[(16, 32), (24, 40), (8, 16), (16, 40)][frame % 4] for frame in range(count)])
    pictures = [generator.integers(0, 256, (height, width, 3), np.uint8) for width, height in sizes]
    kinds = [("JPEG", "PNG", "JPEG")[(frame + tracklet.tracklet_id) % 3] for frame in range(count)]
    encoded = tuple(encode(picture, kind) for picture, kind in zip(pictures, kinds, strict=True))
    keypoints = generator.random((count, NUM_JOINTS, 3), np.float32) * np.array([16, 32, 1], np.float32)
    heatmaps = stored_heatmaps(keypoints, sizes)
    return TrackletFrames(tracklet.tracklet_id, np.arange(count), encoded, sizes, keypoints, heatmaps)
