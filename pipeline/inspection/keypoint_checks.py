"""Checks of the rows of a keypoints file; verify.py has made sure that it is the one of its receipt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import FormatError
from ..records import FRAME_STATUSES, ShardReceipt, Tracklet
from .findings import Findings, frame_name
from .keypoint_columns import KeypointColumns, read_keypoint_columns

ROUNDING = 1e-5  # confidences are float32


def check_keypoints(
    path: Path, tracklets: Sequence[Tracklet], receipt: ShardReceipt, findings: Findings
) -> KeypointColumns | None:
    """One row for every frame of the manifest, in order, with values in range.

    Returns:
        The rows, or None where they are not those of the manifest.
    """
    try:
        rows = read_keypoint_columns(path)
    except FormatError as error:
        findings.add("content", error.found)
        return None
    name = f"keypoints/{path.name}"
    if len(rows) != receipt.rows:
        findings.add("rows", f"{name} has {len(rows)} rows; expected {receipt.rows}, as its receipt says")
    expected = [(tracklet.tracklet_id, frame) for tracklet in tracklets for frame in range(tracklet.num_frames)]
    found = frames_of(rows)
    if found != expected:
        findings.add("frames", f"{name}: {difference(found, expected)}")
        return None
    for what, wrong in _wrong_values(rows).items():
        findings.add_frames("values", f"{name}: %s with {what}", wrong, rows.tracklet_id, rows.frame_index)
    return rows


def frames_of(rows: KeypointColumns) -> list[tuple[int, int]]:
    """(tracklet_id, frame_index) of every row."""
    return list(zip(rows.tracklet_id.tolist(), rows.frame_index.tolist(), strict=True))


def difference(found: list[tuple[int, int]], expected: list[tuple[int, int]]) -> str:
    """How a list of (tracklet_id, frame_index) differs from the one expected, in words."""
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    parts = [
        f"{len(frames)} {'frames' if len(frames) > 1 else 'frame'} {what} (first: {frame_name(*frames[0])})"
        for what, frames in (("missing", missing), ("too many", extra))
        if frames
    ]
    repeated = len(found) - len(set(found))
    if repeated:
        parts.append(f"{repeated} repeated")
    return ", ".join(parts) or "the frames are in another order"


def _wrong_values(rows: KeypointColumns) -> dict[str, np.ndarray]:
    """What may be wrong with a row -> bool (F,), where it is."""
    points, confidence = rows.keypoints, rows.keypoints[..., 2]
    outside = (confidence < 0) | (confidence > 1 + ROUNDING)
    places, size = points[..., :2], rows.sizes[:, None, :]
    # Networks guess joints beyond the edge; further away than this is another unit or another frame's size.
    far = ((places < -size) | (places > 2 * size)).any(axis=2) & (confidence > 0)
    return {
        "a status other than " + ", ".join(FRAME_STATUSES): ~np.isin(rows.status, FRAME_STATUSES),
        "keypoints that are not finite": ~np.isfinite(points).all(axis=(1, 2)),
        "a confidence outside 0 to 1": outside.any(axis=1),
        "a joint more than a frame's size outside the frame": far.any(axis=1),
        "a score outside 0 to 1": ~((rows.score >= 0) & (rows.score <= 1 + ROUNDING)),
        "a width or height of 0 that could be read": rows.in_shards & (rows.sizes <= 0).any(axis=1),
        "a width or height that could not be read": ~rows.in_shards & (rows.sizes != 0).any(axis=1),
        "keypoints but without a person": ~rows.with_pose & (points != 0).any(axis=(1, 2)),
    }
