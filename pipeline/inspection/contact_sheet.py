"""The contact sheet: frames of all cameras with skeletons and part heatmaps, to see whether the poses are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ..commit import commit_file, read_receipt, require_intact
from ..errors import FormatError, SettingsError
from ..extract_keypoints import read_source_frame
from ..heatmaps import MIN_CONFIDENCE, stored_heatmaps
from ..images import UnreadableImage, decode_rgb
from ..keypoints import KeypointColumns, read_keypoints
from ..manifest import Manifest, ShardFrames, read_manifest, read_shard_frames
from ..records import Tracklet
from ..skeleton import BONES, PART_JOINT_INDICES, PARTS
from ..stages import KEYPOINTS, check_roots, frame_roots
from ..store import TrackletStore

COLUMNS = 4  # frames in a row: legible where the sheet is reduced to the width of a page
MARGIN, GAP, HEADER, HEADING, CAPTION = 28, 24, 88, 48, 64  # pixels
FRAME_SIZE = (160, 320)  # width and height; all frames are shown 1:2, as the network gets them
TILE_SIZE, TILE_GAP = (52, 104), 4  # of a heatmap
CELL = (FRAME_SIZE[0] + 2 * (TILE_GAP + TILE_SIZE[0]), FRAME_SIZE[1] + CAPTION)
MAX_HEIGHT = 60_000  # pixels; matplotlib's renderer ends at 65,536
DIMMED = 0.45  # of the grey frame under a heatmap

INK, FAINT, RULE, EMPTY = "#212529", "#5c636a", "#ced4da", "#e9ecef"
PART_COLOURS = dict(zip(PARTS, ("#ffd140", "#5cdb6e", "#ff8a3d", "#42cafd", "#ff5e87", "#9d82ff"), strict=True))
COLOURS = {"ok": "#2b8a3e", "interpolated": "#a15c00", "": FAINT}  # of statuses; others are frames without a pose
NO_POSE = "#c92a2a"


@dataclass(frozen=True)
class SampledFrame:
    """One frame."""

    tracklet: Tracklet
    frame_index: int
    status: str = ""  # one of records.FRAME_STATUSES, or "" before keypoints are extracted
    score: float = 0.0  # of the person, 0 to 1
    image: np.ndarray | None = None  # uint8 (H, W, 3) RGB; None where the frame is left out
    keypoints: np.ndarray | None = None  # float32 (17, 3): x, y in pixels, confidence; None before they are extracted
    heatmaps: np.ndarray | None = None  # uint8 (6, 64, 32), 255 for 1.0; None where the frame has no place in a shard


def write_contact_sheet(
    path: Path, prepared: Path, count: int = 24, root: Path | Mapping[str, Path] | None = None
) -> int:
    """Draw a contact sheet as PNG and return the number of frames on it; equal datasets give equal sheets.

    Args:
        path: the file, ending in .png.
        prepared: the prepared dataset, at any stage. Frames and heatmaps come from its shards once all are built.
        count: frames in all; see choose_frames.
        root: the frames' folder, if it has moved since indexing; see stages.frame_roots.

    Raises:
        SettingsError: another suffix, or a count under 1.
        SurroundingsError: shards are missing and the frames' folder cannot be seen.
        FormatError: not a prepared dataset, or a damaged file.
    """
    if path.suffix.lower() != ".png":
        raise SettingsError(f"contact sheet {path}", "a name that ends in .png")
    manifest = read_manifest(prepared)
    samples = read_samples(prepared, choose_frames(manifest, count), frame_roots(manifest, root))
    with style.context("default"):  # not what the user's matplotlibrc says
        figure = draw_contact_sheet(manifest, samples)
        commit_file(path, lambda partial: figure.savefig(partial, format="png", metadata={"Software": None}))
    return len(samples)


def choose_frames(manifest: Manifest, count: int) -> list[tuple[Tracklet, int]]:
    """Tracklets and frame indices, by camera and in manifest order, spread evenly over the frames of every camera.

    Args:
        count: frames in all, divided evenly; every camera gets one at least, and a small one no more than it has.
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
    prepared: Path, chosen: Sequence[tuple[Tracklet, int]], roots: Mapping[int, Path]
) -> list[SampledFrame]:
    """Read frames, in the order of `chosen`, from the shards once all are built, else from their folders.

    Args:
        chosen: tracklets of the manifest and frame indices.
        roots: generation -> folder of its frames.
    """
    store = None
    with suppress(FormatError):  # not built yet, or outdated
        store = TrackletStore(prepared)
    samples: dict[tuple[int, int], SampledFrame] = {}
    for shard in sorted({tracklet.shard for tracklet, _ in chosen}):
        source, receipt = read_shard_frames(prepared, shard), read_receipt(prepared, KEYPOINTS, shard)
        rows = None
        if receipt is not None and receipt.inputs == source.sha256:
            rows = read_keypoints(require_intact(prepared, receipt, "keyreid-prep verify says what to do"))
        for tracklet, frame in chosen:
            if tracklet.shard == shard:
                sample = _read_frame(tracklet, frame, source, roots[source.generation], rows, store)
                samples[tracklet.tracklet_id, frame] = sample
    return [samples[tracklet.tracklet_id, frame] for tracklet, frame in chosen]


def _read_frame(
    tracklet: Tracklet,
    frame: int,
    source: ShardFrames,
    root: Path,
    rows: KeypointColumns | None,
    store: TrackletStore | None,
) -> SampledFrame:
    sample, row = SampledFrame(tracklet, frame), None
    if rows is not None:
        mine = rows[rows.tracklet_id == tracklet.tracklet_id]
        row = mine[frame : frame + 1]
        sample = replace(sample, status=str(row.status[0]), score=float(row.score[0]), keypoints=row.keypoints[0])
        if not row.in_shards[0]:
            return sample
        if store is not None:
            (encoded,), (heatmaps,) = store.read(tracklet.tracklet_id, [int(mine.in_shards[:frame].sum())])
            return replace(sample, image=decode_rgb(encoded), heatmaps=heatmaps)
    check_roots([root])
    paths = source.tracklets[tracklet.tracklet_id - source.tracklets[0].tracklet_id].paths
    with suppress(UnreadableImage):
        sample = replace(sample, image=read_source_frame(root, paths[frame]))
    return sample if row is None else replace(sample, heatmaps=stored_heatmaps(row.keypoints, row.sizes)[0])


def draw_contact_sheet(manifest: Manifest, samples: Sequence[SampledFrame]) -> Figure:
    """One block per camera: each frame with its skeleton, its six part heatmaps, and a caption."""
    cameras = [list(frames) for _, frames in groupby(samples, key=lambda sample: sample.tracklet.camera)]
    columns = max(2, min(COLUMNS, max(map(len, cameras))))
    rows = [-(-len(frames) // columns) for frames in cameras]
    width = 2 * MARGIN + columns * (CELL[0] + GAP) - GAP
    height = HEADER + len(cameras) * HEADING + sum(rows) * (CELL[1] + GAP)
    figure = Figure((width / 100, height / 100), dpi=100 * min(1, MAX_HEIGHT / height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)  # data are pixels
    axes.axis("off")
    _write(axes, MARGIN, MARGIN - 4, manifest.name, 26, weight="bold")
    _write(axes, MARGIN, MARGIN + 31, f"{len(samples):,} of {manifest.num_frames:,} frames", 13, FAINT)
    top = HEADER
    for frames, count in zip(cameras, rows, strict=True):
        axes.plot((MARGIN, width - MARGIN), (top, top), color=RULE, linewidth=0.8)
        _write(axes, MARGIN, top + 10, f"camera {frames[0].tracklet.camera_name}", 17)
        top += HEADING
        for place, sample in enumerate(frames):
            row, column = divmod(place, columns)
            _draw_frame(axes, sample, MARGIN + column * (CELL[0] + GAP), top + row * (CELL[1] + GAP))
        top += count * (CELL[1] + GAP)
    return figure


def _draw_frame(axes: Axes, sample: SampledFrame, x: float, y: float) -> None:
    """The frame with its skeleton, its heatmaps to the right, its caption below."""
    if sample.image is None:
        axes.add_patch(Rectangle((x, y), *FRAME_SIZE, color=EMPTY, linewidth=0, zorder=-1))
        _write(axes, x + FRAME_SIZE[0] / 2, y + FRAME_SIZE[1] / 2, "no image", 14, FAINT, ha="center")
    else:
        _show(axes, sample.image, x, y, FRAME_SIZE)
        if sample.keypoints is not None:
            _draw_skeleton(axes, sample.keypoints, FRAME_SIZE / np.array(sample.image.shape[1::-1]), x, y)
    for place, (part, colour) in enumerate(PART_COLOURS.items()):
        left = x + FRAME_SIZE[0] + TILE_GAP + place % 2 * (TILE_SIZE[0] + TILE_GAP)
        top = y + place // 2 * (TILE_SIZE[1] + TILE_GAP)
        axes.add_patch(Rectangle((left, top), *TILE_SIZE, color=EMPTY, linewidth=0, zorder=-1))
        if sample.image is not None and sample.heatmaps is not None:
            grey = sample.image.mean(axis=2, keepdims=True).repeat(3, axis=2) * DIMMED / 255
            tint = np.empty((*sample.heatmaps[place].shape, 4))
            tint[..., :3], tint[..., 3] = to_rgb(colour), sample.heatmaps[place] / 255
            _show(axes, grey, left, top, TILE_SIZE)
            _show(axes, tint, left, top, TILE_SIZE)
            _write(axes, left + 4, top + 3, part.replace("_", " "), 9.5, "white")
    tracklet, bottom = sample.tracklet, y + FRAME_SIZE[1]
    status = sample.status.replace("_", " ") or "not extracted yet"
    status += f", score {sample.score:.2f}" if sample.score > 0 else ""
    where = f"{tracklet.split}, identity {_shorten(tracklet.identity_name, 12)}, frame {sample.frame_index}"
    _write(axes, x, bottom + 7, _shorten(tracklet.name or f"tracklet {tracklet.tracklet_id}", 30), 14, weight="bold")
    _write(axes, x, bottom + 26, where, 13, FAINT)
    _write(axes, x, bottom + 44, status, 13, COLOURS.get(sample.status, NO_POSE))


def _draw_skeleton(axes: Axes, keypoints: np.ndarray, scale: np.ndarray, x: float, y: float) -> None:
    """Joints over the heatmaps' threshold, and lines between two such, in the colour of their far end's part."""
    places, seen = keypoints[:, :2] * scale + (x, y), keypoints[:, 2] > MIN_CONFIDENCE
    colours = {
        joint: PART_COLOURS[part] for part, some in zip(PARTS, PART_JOINT_INDICES, strict=True) for joint in some
    }
    frame = axes.add_patch(Rectangle((x, y), *FRAME_SIZE, color="none"))
    rim = [withStroke(linewidth=3.6, foreground=INK)]  # keeps lines apart from bright clothes
    for one, other in BONES:
        if seen[one] and seen[other]:
            line = places[[one, other]].T
            axes.plot(*line, color=colours[other], linewidth=2, path_effects=rim, clip_path=frame)
    for joint in np.flatnonzero(seen):
        axes.plot(*places[joint], "o", color=colours[joint], markersize=4.5, markeredgecolor=INK, clip_path=frame)


def _show(axes: Axes, image: np.ndarray, x: float, y: float, size: tuple[int, int]) -> None:
    axes.imshow(image, extent=(x, x + size[0], y + size[1], y), aspect="auto", interpolation="bilinear")


def _write(axes: Axes, x: float, y: float, text: str, pixels: float, colour: str = INK, **options: Any) -> None:
    axes.text(x, y, text, size=0.72 * pixels, color=colour, va="top", parse_math=False, **options)


def _shorten(text: str, length: int) -> str:
    """Its end, which tells names apart, where it is too long."""
    return text if len(text) <= length else "…" + text[1 - length :]
