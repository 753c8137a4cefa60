"""A prepared dataset of six blank frames, and poses for them in the files that other programs write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from keyreid.pipeline.exchange.formats import JOINT_COLUMNS
from keyreid.pipeline.exchange.import_keypoints import ImportSummary, import_keypoints
from keyreid.pipeline.executor import SerialExecutor
from keyreid.pipeline.index import Reading, SourceTracklet, write_manifest
from keyreid.pipeline.keypoints import KeypointColumns, keypoints_path, read_keypoints
from keyreid.pipeline.manifest import read_manifest, read_shard_frames
from keyreid.pipeline.skeleton import JOINTS

Poses = dict[str, np.ndarray]

WIDTH, HEIGHT = 64, 128
NAMES = tuple(f"train/{person:04d}/{person:04d}C1F{frame}.jpg" for person in (1, 2) for frame in (1, 2, 3))


def index_blank_frames(
    folder: Path, names: tuple[str, ...] = NAMES, numbers: dict[int, tuple[int, ...]] | None = None
) -> Path:
    """An indexed dataset without keypoints: one tracklet per folder, one shard per tracklet.

    Args:
        numbers: identity -> frame numbers of the recording.
    """
    tracklets = []
    for parent in dict.fromkeys(str(Path(name).parent) for name in names):
        (folder / "frames" / parent).mkdir(parents=True)
        frames = tuple(name for name in names if str(Path(name).parent) == parent)
        for name in frames:
            Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "frames" / name)
        identity = len(tracklets) + 1
        tracklets.append(SourceTracklet("train", identity, 1, frames, (numbers or {}).get(identity)))
    reading = Reading("blank", folder / "frames", tracklets)
    write_manifest(folder / "prepared", reading, frames_per_shard=len(names) // 2)
    return folder / "prepared"


def take(prepared: Path, source: Path, **options: Any) -> ImportSummary:
    """import_keypoints in this process; any number of frames may be left out."""
    return import_keypoints(prepared, source, SerialExecutor(), **{"max_left_out": 1.0} | options)


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


def stored(prepared: Path) -> dict[str, KeypointColumns]:
    """Frame path -> its row, of all shards."""
    found: dict[str, KeypointColumns] = {}
    for shard in range(read_manifest(prepared).num_shards):
        rows = read_keypoints(keypoints_path(prepared, shard))
        paths = read_shard_frames(prepared, shard).paths
        found |= {path: rows[row] for row, path in enumerate(paths)}
    return found


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def result(image_id: object, keypoints: np.ndarray, score: float = 0.5, **more: object) -> dict[str, Any]:
    """One entry of what pycocotools' loadRes reads, and of openpifpaf.eval's NAME.pred.json."""
    return {"image_id": image_id, "category_id": 1, "keypoints": numbers(keypoints), "score": score, **more}


def coco_results(folder: Path, poses: Poses) -> Path:
    return write_json(folder / "results.json", [result(name, keypoints) for name, keypoints in poses.items()])


def coco_annotations(folder: Path, poses: Poses) -> Path:
    """The form of person_keypoints_val2017.json, with confidences for flags; other boxes lie between the people."""
    images = [{"id": 7 + n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in enumerate(NAMES)]
    box = {"id": 900, "image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9]}
    people = [result(7 + NAMES.index(name), keypoints) for name, keypoints in poses.items()]
    categories = [{"id": 1, "name": "person", "keypoints": list(JOINTS)}, {"id": 3, "name": "car"}]
    document = {"images": images, "annotations": [box, *people], "categories": categories}
    return write_json(folder / "annotations.json", document)


def pifpaf_folder(folder: Path, poses: Poses) -> Path:
    """openpifpaf.predict --json-output: a list of people beside each image's name, empty where nobody is."""
    box = {"category_id": 3, "category": "car", "score": 0.3, "bbox": [0.0, 0.0, 9.0, 9.0]}
    for name in NAMES:
        found = [box, {"keypoints": numbers(poses[name]), "score": 0.5, "category_id": 1}] if name in poses else [box]
        write_json(folder / "predictions" / f"{name}.predictions.json", found)
    return folder / "predictions"


def pose_folder(folder: Path, poses: Poses) -> Path:
    """The authors' extract_keypoint.py: .pose in place of the image's suffix, indented JSON, zeros for nobody."""
    for name in NAMES:
        joints = np.reshape(numbers(poses.get(name, np.zeros((17, 3)))), (17, 3)).tolist()
        path = write_json((folder / "poses" / name).with_suffix(".pose"), joints)
        path.write_text(json.dumps(joints, indent=4))
    return folder / "poses"


def csv_of_columns(folder: Path, poses: Poses) -> Path:
    rows = [dict(zip(JOINT_COLUMNS, numbers(keypoints), strict=True)) for keypoints in poses.values()]
    frames = pd.DataFrame(rows).assign(frame_path=list(poses), score=0.5)
    frames.to_csv(folder / "columns.csv", index=False)
    return folder / "columns.csv"


def csv_of_lists(folder: Path, poses: Poses) -> Path:
    frames = pd.DataFrame({"frame_path": list(poses), "keypoints": [str(numbers(k)) for k in poses.values()]})
    frames.assign(score=0.5).to_csv(folder / "lists.csv", index=False, encoding="utf-8-sig")  # as Excel does
    return folder / "lists.csv"


def parquet_of_lists(folder: Path, poses: Poses) -> Path:
    frames = pd.DataFrame({"frame_path": list(poses), "keypoints": [numbers(k) for k in poses.values()]})
    frames.assign(score=0.5).to_parquet(folder / "lists.parquet")
    return folder / "lists.parquet"


WRITERS: tuple[Callable[[Path, Poses], Path], ...] = (
    coco_results, coco_annotations, pifpaf_folder, pose_folder, csv_of_columns, csv_of_lists, parquet_of_lists,
)  # fmt: skip
