"""A prepared dataset of six blank frames, and poses for them as other programs would find them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from keyreid.pipeline.keypoints import keypoints_path, read_keypoints
from keyreid.pipeline.manifest import SourceTracklet, build_manifest, read_manifest, write_manifest
from keyreid.pipeline.records import FramePose

WIDTH, HEIGHT = 64, 128
NAMES = tuple(f"train/{person:04d}/{person:04d}C1F{frame}.jpg" for person in (1, 2) for frame in (1, 2, 3))


def index_blank_frames(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """An indexed dataset without keypoints: one tracklet a folder, one shard a tracklet."""
    tracklets = []
    for parent in dict.fromkeys(str(Path(name).parent) for name in names):
        (folder / "frames" / parent).mkdir(parents=True)
        frames = tuple(name for name in names if str(Path(name).parent) == parent)
        for name in frames:
            Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "frames" / name)
        tracklets.append(SourceTracklet("train", len(tracklets), 1, frames))
    write_manifest(
        folder / "prepared", build_manifest("blank", folder / "frames", tracklets, frames_per_shard=len(names) // 2)
    )
    return folder / "prepared"


def person(seed: int) -> np.ndarray:
    """float32 (17, 3): joints within the frame, confidences 0.3 to 1, a few decimals; one joint is not found."""
    generator = np.random.default_rng(seed)
    low, high = (1, 1, 0.3), (WIDTH - 1, HEIGHT - 1, 1)
    keypoints = generator.uniform(low, high, (17, 3)).round(2).astype(np.float32)
    keypoints[4] = 0
    return keypoints


def numbers(keypoints: np.ndarray) -> list[float]:
    """51 Python floats as short as the array's, which is what JSON of other programs holds."""
    return keypoints.astype(np.float64).round(2).ravel().tolist()


def stored(prepared: Path) -> dict[str, FramePose]:
    """Frame path -> pose, of all shards."""
    manifest = read_manifest(prepared)
    poses = [pose for shard in range(manifest.num_shards) for pose in read_keypoints(keypoints_path(prepared, shard))]
    return {manifest.tracklets[pose.tracklet_id].frame_paths[pose.frame_index]: pose for pose in poses}
