"""Some frames of every camera, with what the prepared dataset knows of each: the material of the contact sheet."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .. import build_shards, extract_keypoints
from ..commit import read_receipt
from ..errors import FormatError, SettingsError, SourceError
from ..heatmaps import stored_heatmaps
from ..images import UNREADABLE, read_frame
from ..manifest import Manifest
from ..records import Tracklet
from ..shards import ShardReader
from .keypoint_columns import KeypointColumns, read_keypoint_columns


@dataclass(frozen=True)
class SampledFrame:
    """One frame.

    Attributes:
        tracklet, frame_index: which one; the position in tracklet.frame_paths.
        status: one of records.FRAME_STATUSES, or None before keypoints are extracted.
        score: of the person, 0 to 1.
        image: RGB, or None where it cannot be read.
        keypoints: float32 (17, 3): x, y in pixels of the image, confidence; None before they are extracted.
        heatmaps: uint8 (6, 64, 32), 255 for 1.0: those of the shard where it is built, else those that it will hold;
            None where the frame has no place in it.
    """

    tracklet: Tracklet
    frame_index: int
    status: str | None
    score: float
    image: Image.Image | None
    keypoints: np.ndarray | None
    heatmaps: np.ndarray | None


def choose_frames(manifest: Manifest, count: int) -> list[tuple[Tracklet, int]]:
    """Frames spread evenly over the frames of every camera; no chance in it.

    Args:
        count: frames in all, divided evenly; every camera gets one at least, and a small one no more than it has.

    Returns:
        Tracklets and frame indices, by camera and in manifest order.
    """
    if count < 1:
        raise SettingsError(f"{count} frames on the contact sheet", "at least 1")
    cameras: dict[int, list[Tracklet]] = {}
    for tracklet in manifest.tracklets:
        cameras.setdefault(tracklet.camera, []).append(tracklet)
    chosen = []
    for number, (_, tracklets) in enumerate(sorted(cameras.items())):
        starts = np.cumsum([0, *(tracklet.num_frames for tracklet in tracklets)])
        share = max(1, count // len(cameras) + (number < count % len(cameras)))
        wanted = min(share, int(starts[-1]))
        for frame in ((np.arange(wanted) + 0.5) * starts[-1] / wanted).astype(int):
            place = int(np.searchsorted(starts, frame, side="right")) - 1
            chosen.append((tracklets[place], int(frame - starts[place])))
    return chosen


def read_samples(
    prepared: Path, manifest: Manifest, chosen: Sequence[tuple[Tracklet, int]], root: Path | None = None
) -> list[SampledFrame]:
    """Read frames from the shards where these are built, else from the source.

    Args:
        chosen: tracklets of the manifest and frame indices.
        root: the source's folder, where it has moved since it was indexed.

    Returns:
        The frames in the order of `chosen`.

    Raises:
        SourceError: shards are missing and the source's folder is not there.
        FormatError: a damaged file.
    """
    root = root or Path(manifest.root)
    samples: dict[tuple[int, int], SampledFrame] = {}
    for shard in sorted({tracklet.shard for tracklet, _ in chosen}):
        frames = [(tracklet, frame) for tracklet, frame in chosen if tracklet.shard == shard]
        for sample in _read_shard(prepared, shard, frames, root):
            samples[sample.tracklet.tracklet_id, sample.frame_index] = sample
    return [samples[tracklet.tracklet_id, frame] for tracklet, frame in chosen]


def _read_shard(
    prepared: Path, shard: int, frames: Sequence[tuple[Tracklet, int]], root: Path
) -> Iterator[SampledFrame]:
    extracted, built = (read_receipt(prepared, stage.STAGE, shard) for stage in (extract_keypoints, build_shards))
    if extracted is None or built is None:
        _require(root)
    rows = None if extracted is None else read_keypoint_columns(prepared / extracted.file)
    reader = None if built is None else ShardReader(prepared / built.file)
    for tracklet, frame in frames:
        if rows is None:
            yield SampledFrame(tracklet, frame, None, 0.0, _read_image(root / tracklet.frame_paths[frame]), None, None)
        else:
            yield _with_keypoints(tracklet, frame, rows, reader, root)
    if reader is not None:
        reader.close()


def _with_keypoints(
    tracklet: Tracklet, frame: int, rows: KeypointColumns, reader: ShardReader | None, root: Path
) -> SampledFrame:
    mine = np.flatnonzero(rows.tracklet_id == tracklet.tracklet_id)
    place = np.flatnonzero(rows.frame_index[mine] == frame)
    if len(place) != 1:
        raise FormatError(
            f"tracklet {tracklet.tracklet_id}, frame {frame} has {len(place)} rows of keypoints",
            "one",
            "keyreid-prep verify says what else is wrong and what to do",
        )
    row = mine[place[0]]
    image, heatmaps = None, None
    if rows.in_shards[row] and reader is not None:
        position = int(np.flatnonzero(reader.tracklet_ids == tracklet.tracklet_id)[0])
        (encoded,), stored = reader.read(position, [int(rows.in_shards[mine[: place[0]]].sum())])
        image, heatmaps = Image.open(io.BytesIO(encoded)).convert("RGB"), stored[0]
    elif rows.in_shards[row]:
        image = _read_image(root / tracklet.frame_paths[frame])
        heatmaps = stored_heatmaps(rows.keypoints[[row]], rows.sizes[[row]])[0]
    return SampledFrame(
        tracklet, frame, str(rows.status[row]), float(rows.score[row]), image, rows.keypoints[row], heatmaps
    )


def _require(root: Path) -> None:
    if not root.is_dir():
        raise SourceError(
            f"the frames' folder {root} is not there, and not all shards are built",
            "",
            "mount it, name its new place with --root, or build the shards first",
        )


def _read_image(path: Path) -> Image.Image | None:
    try:
        return Image.fromarray(read_frame(path))
    except UNREADABLE:
        return None
