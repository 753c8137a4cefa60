"""Checks of what stands in an HDF5 shard; verify.py has made sure that it is the one of its receipt."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from ..errors import FormatError
from ..heatmaps import stored_heatmaps
from ..images import UNREADABLE
from ..records import ShardReceipt, Tracklet
from ..shards import HEATMAP_HEIGHT, HEATMAP_WIDTH, ShardReader
from ..skeleton import NUM_JOINTS, NUM_PARTS
from .findings import Findings
from .keypoint_checks import difference, frames_of
from .keypoint_columns import KeypointColumns

FRAMES_AT_ONCE = 256  # images and heatmaps in memory together
LARGEST_STEP = 1  # of 255: another processor's last bit of a Gaussian may round to the next step


def check_shard(
    path: Path,
    tracklets: Sequence[Tracklet],
    rows: KeypointColumns | None,
    receipt: ShardReceipt,
    findings: Findings,
    *,
    deep: bool,
) -> None:
    """Every readable frame of the shard's keypoints is in it; where `deep`, with its image, keypoints and heatmaps.

    Args:
        rows: of the shard's keypoints file, or None where that is damaged: then nothing is compared with it.
    """
    name = f"shards/{path.name}"
    try:
        ShardReader(path).tracklet_ids  # noqa: B018 - refuses an unknown format version
        with h5py.File(path, "r") as file:
            if not _fits_together(file, name, tracklets, receipt, findings):
                return  # rows cannot be told apart
            if rows is not None:
                readable = _readable(rows)
                if _has_frames(file, name, readable, findings) and deep:
                    _check_copies(file, name, readable, findings)
            if deep:
                _check_pictures(file, name, findings)
    except FormatError as error:
        findings.add("content", error.found)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:  # whatever h5py says to a broken file
        findings.add("content", f"{name} cannot be read ({type(error).__name__}: {error})")


def _readable(rows: KeypointColumns) -> KeypointColumns:
    return KeypointColumns(**{name: value[rows.in_shards] for name, value in vars(rows).items()})


def _fits_together(
    file: h5py.File, name: str, tracklets: Sequence[Tracklet], receipt: ShardReceipt, findings: Findings
) -> bool:
    """Whether shapes and row ranges fit, and tracklets, rows and settings are those of the manifest and receipt."""
    before = len(findings.problems)
    count, found_ids = len(file["frames/frame_index"]), file["tracklets/tracklet_id"][:].tolist()
    if count != receipt.rows:
        findings.add("rows", f"{name} has {count} frames; expected {receipt.rows}, as its receipt says")
    shapes = {
        "frames/sizes": (count, 2),
        "frames/keypoints": (count, NUM_JOINTS, 3),
        "frames/heatmaps": (count, NUM_PARTS, HEATMAP_HEIGHT, HEATMAP_WIDTH),
        "frames/offsets": (count + 1,),
        "tracklets/start": (len(found_ids) + 1,),
    }
    for dataset, shape in shapes.items():
        if file[dataset].shape != shape:
            findings.add("rows", f"{name}: {dataset} has the shape {file[dataset].shape}; expected {shape}")
    for dataset, end in (("frames/offsets", len(file["frames/blob"])), ("tracklets/start", count)):
        steps = file[dataset][:]
        if len(steps) == 0 or steps[0] != 0 or steps[-1] != end or (np.diff(steps) < 0).any():
            findings.add("rows", f"{name}: {dataset} does not rise from 0 to {end}")
    settings = file.attrs.get("settings")
    if settings != receipt.settings:
        findings.add("content", f"{name} was made with settings {settings}; expected {receipt.settings}, its receipt's")
    if found_ids != [tracklet.tracklet_id for tracklet in tracklets]:
        findings.add("frames", f"{name} has other tracklets than the manifest, or in another order")
    return len(findings.problems) == before


def _names(file: h5py.File) -> tuple[np.ndarray, np.ndarray]:
    """tracklet_id and frame_index of every row, int (F,) each."""
    ids = np.repeat(file["tracklets/tracklet_id"][:], np.diff(file["tracklets/start"][:]))
    return ids, file["frames/frame_index"][:]


def _has_frames(file: h5py.File, name: str, readable: KeypointColumns, findings: Findings) -> bool:
    """Whether the shard's rows are the readable frames of its keypoints, in order."""
    ids, frame_index = _names(file)
    found = list(zip(ids.tolist(), frame_index.tolist(), strict=True))
    expected = frames_of(readable)
    if found != expected:
        findings.add("frames", f"{name}, against the readable frames of its keypoints: {difference(found, expected)}")
    return found == expected


def _check_copies(file: h5py.File, name: str, readable: KeypointColumns, findings: Findings) -> None:
    """Sizes and keypoints of the shard are those of its keypoints file."""
    for what, other in (("sizes", readable.sizes), ("keypoints", readable.keypoints)):
        wrong = (file[f"frames/{what}"][:] != other).reshape(len(other), -1).any(axis=1)
        text = f"{name}: %s with other {what} than in the keypoints file"
        findings.add_frames("values", text, wrong, readable.tracklet_id, readable.frame_index)


def _check_pictures(file: h5py.File, name: str, findings: Findings) -> None:
    """Every image decodes to its size, and every heatmap is the one that its keypoints give."""
    ids, frame_index = _names(file)
    offsets, sizes, blob = file["frames/offsets"][:], file["frames/sizes"][:], file["frames/blob"]
    decoded, drawn = np.zeros(len(ids), bool), np.ones(len(ids), bool)
    for start in range(0, len(ids), FRAMES_AT_ONCE):
        rows = np.arange(start, min(start + FRAMES_AT_ONCE, len(ids)))
        for row in rows:
            decoded[row] = _decodes(blob[offsets[row] : offsets[row + 1]].tobytes(), sizes[row])
        rows = rows[decoded[rows]]  # a wrong size may be too large to draw at
        if len(rows):
            rendered = stored_heatmaps(file["frames/keypoints"][rows], sizes[rows])
            distance = np.abs(file["frames/heatmaps"][rows].astype(np.int16) - rendered)
            drawn[rows] = (distance <= LARGEST_STEP).all(axis=(1, 2, 3))
    findings.add_frames(
        "images", f"{name}: %s that do not decode to an image of their size", ~decoded, ids, frame_index
    )
    findings.add_frames(
        "heatmaps", f"{name}: %s with other heatmaps than their keypoints give", ~drawn, ids, frame_index
    )


def _decodes(data: bytes, size: np.ndarray) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image.size == tuple(size) and image.format in ("JPEG", "PNG") and image.mode in ("RGB", "L")
    except UNREADABLE:
        return False
