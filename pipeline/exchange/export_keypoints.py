"""The keypoints of a prepared dataset as one COCO annotation file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..commit import commit_file, require_intact
from ..environment import progress_bar
from ..errors import SettingsError
from ..keypoints import keypoints_path, read_keypoints
from ..manifest import read_manifest, read_shard_frames
from ..receipts import KEYPOINTS, keypoint_receipts, stage_settings
from ..records import FRAMES_LEFT_OUT, FramePose
from .coco import CATEGORY, SCORES_FIELD, VISIBLE


@dataclass
class ExportSummary:
    """What was written: images, people in them, and frames that the dataset leaves out."""

    num_images: int = 0
    num_people: int = 0
    num_left_out: int = 0


def export_keypoints(prepared: Path, out: Path, *, overwrite: bool = False) -> ExportSummary:
    """Write images, annotations and the category; `out` appears only when it is complete.

    The id of an image is the frame's number in the dataset, from 1. Annotations have COCO's [x, y, v], v = 2 where
    the confidence is over 0, and the confidences themselves as `keypoint_scores`, which import_keypoints reads: what
    is exported and imported again is the same to the last bit of float32.

    Raises:
        FormatError: shards of keypoints are missing, outdated, or differ from their receipts.
        SettingsError: `out` exists and `overwrite` is not given.
    """
    if out.exists() and not overwrite:
        raise SettingsError(f"{out} exists", "a new file", "choose another name, or add --overwrite")
    receipts = keypoint_receipts(prepared)
    remedy = "delete the file, then run the command again that made the keypoints: it resumes"
    for receipt in receipts.values():
        require_intact(prepared, receipt, remedy)
    summary = ExportSummary()
    commit_file(out, lambda partial_path: _write(partial_path, prepared, sorted(receipts), summary))
    return summary


def _write(path: Path, prepared: Path, shards: Sequence[int], summary: ExportSummary) -> None:
    """Frames are read twice, once for the images and once for the annotations: memory holds one shard."""
    manifest = read_manifest(prepared)
    with (
        open(path, "w", encoding="utf-8") as file,
        progress_bar(2 * manifest.num_frames, "export", "rows") as bar,
    ):
        info = {"description": f"keypoints of {manifest.name}", "settings": stage_settings(prepared, KEYPOINTS)}
        file.write(f'{{"info": {json.dumps(info)},\n"categories": [{json.dumps(CATEGORY)}],\n"images": [')
        images = (_image(number, name, pose) for number, name, pose in _rows(prepared, shards, bar))
        summary.num_images = _write_elements(file, images)
        file.write('],\n"annotations": [')
        people = (_annotation(number, pose) for number, _, pose in _rows(prepared, shards, bar))
        summary.num_people = _write_elements(file, people)
        file.write("]}\n")
    summary.num_left_out = manifest.num_frames - summary.num_images


def _rows(prepared: Path, shards: Sequence[int], bar: Any) -> Iterator[tuple[int, str, FramePose]]:
    """Number from 1, path and pose of every frame."""
    number = 0
    for shard in shards:
        rows = read_keypoints(keypoints_path(prepared, shard))
        paths = [path for tracklet in read_shard_frames(prepared, shard).tracklets for path in tracklet.paths]
        for path, tracklet_id, index, size, status, score, keypoints in zip(
            paths, *(getattr(rows, name) for name in rows.__dataclass_fields__), strict=True
        ):
            number += 1
            bar.update()
            yield number, path, FramePose(tracklet_id, index, *size.tolist(), status, score, keypoints)


def _write_elements(file: TextIO, elements: Iterable[dict[str, Any] | None]) -> int:
    """One element a line, without those that are None; returns their number."""
    count = 0
    for element in elements:
        if element is not None:
            file.write(("," if count else "") + "\n" + json.dumps(element, separators=(",", ":")))
            count += 1
    return count


def _image(number: int, name: str, pose: FramePose) -> dict[str, Any] | None:
    if pose.status in FRAMES_LEFT_OUT:
        return None
    return {"id": number, "file_name": name, "width": pose.width, "height": pose.height}


def _annotation(number: int, pose: FramePose) -> dict[str, Any] | None:
    """The person of a frame, found or interpolated; None where there is nobody."""
    found = pose.keypoints[:, 2] > 0
    if not found.any():
        return None
    corner, opposite = pose.keypoints[found, :2].min(0), pose.keypoints[found, :2].max(0)
    box = _short(np.concatenate([corner, opposite - corner]))
    flags = np.where(found, VISIBLE, 0).tolist()
    return {
        "id": number,
        "image_id": number,
        "category_id": CATEGORY["id"],
        "iscrowd": 0,
        "area": box[2] * box[3],
        "bbox": box,
        "num_keypoints": int(found.sum()),
        "keypoints": [
            value for place, flag in zip(_short(pose.keypoints[:, :2]), flags, strict=True) for value in (*place, flag)
        ],
        SCORES_FIELD: _short(pose.keypoints[:, 2]),
        "score": _short(np.float32(pose.score)),
    }


def _short(values: np.ndarray | np.float32) -> Any:
    """Python floats with the fewest digits that are still these float32, in nested lists of the same shape."""
    return np.asarray(values, np.float32).astype(str).astype(np.float64).tolist()
