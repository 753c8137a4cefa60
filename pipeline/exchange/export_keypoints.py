"""The keypoints of a prepared dataset as one COCO annotation file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..commit import commit_file, require_intact
from ..environment import progress_bar
from ..errors import SettingsError
from ..keypoints import KeypointColumns, keypoints_path, read_keypoints
from ..manifest import read_manifest, read_shard_frames
from ..receipts import KEYPOINTS, keypoint_receipts, stage_settings
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
    for receipt in receipts.values():
        require_intact(prepared, receipt, "delete it, then run the command again that made the keypoints: it resumes")
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
        for number, name, rows in _frames(prepared, shards, bar):
            width, height = rows.sizes[0].tolist()
            image = {"id": number, "file_name": name, "width": width, "height": height}
            _write_element(file, image, summary.num_images)
            summary.num_images += 1
        file.write('],\n"annotations": [')
        for number, _, rows in _frames(prepared, shards, bar):
            if rows.keypoints[0, :, 2].any():
                _write_element(file, _annotation(number, rows.keypoints[0], rows.score), summary.num_people)
                summary.num_people += 1
        file.write("]}\n")
    summary.num_left_out = manifest.num_frames - summary.num_images


def _frames(prepared: Path, shards: Sequence[int], bar: Any) -> Iterator[tuple[int, str, KeypointColumns]]:
    """Number from 1, path and row of every frame that is not left out."""
    start = 1
    for shard in shards:
        columns = read_keypoints(keypoints_path(prepared, shard))
        paths = read_shard_frames(prepared, shard).paths
        for row in np.flatnonzero(columns.in_shards).tolist():
            yield start + row, paths[row], columns[row : row + 1]
        start += len(columns)
        bar.update(len(columns))


def _write_element(file: TextIO, element: dict[str, Any], before: int) -> None:
    """One element a line, after `before` others."""
    file.write(("," if before else "") + "\n" + json.dumps(element, separators=(",", ":")))


def _annotation(number: int, keypoints: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    """The person of a frame, found or interpolated."""
    found = keypoints[:, 2] > 0
    corner, opposite = keypoints[found, :2].min(0), keypoints[found, :2].max(0)
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
            value for place, flag in zip(_short(keypoints[:, :2]), flags, strict=True) for value in (*place, flag)
        ],
        SCORES_FIELD: _short(keypoints[:, 2]),
        "score": _short(score)[0],
    }


def _short(values: np.ndarray) -> Any:
    """Python floats with the fewest digits that are still these float32, in nested lists of the same shape."""
    return values.astype(np.float32).astype(str).astype(np.float64).tolist()
