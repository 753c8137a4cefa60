"""The contact sheet: frames of all cameras with skeletons and part heatmaps, to see whether the poses are right."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..commit import commit_file
from ..errors import SettingsError
from ..manifest import read_manifest
from .frame_picture import FAINT, INK, PAPER, PART_COLOURS, PICTURE_SIZE, draw_frame
from .samples import SampledFrame, choose_frames, read_samples

MARGIN, GAP, HEADER, HEADING = 24, 20, 66, 40  # pixels
LEAST_COLUMNS, MOST_COLUMNS = 2, 6  # the legend needs two
RULE = (206, 212, 218)


def write_contact_sheet(path: Path, prepared: Path, count: int = 24, root: Path | None = None) -> int:
    """Draw a contact sheet as PNG; equal datasets give equal sheets.

    Args:
        path: the file, ending in .png.
        prepared: the prepared dataset, at any stage. Frames and heatmaps come from its shards where they are built.
        count: frames in all; see samples.choose_frames.
        root: the source's folder, where it has moved since it was indexed.

    Returns:
        The number of frames on it.

    Raises:
        SettingsError: another suffix, or a count under 1.
        SourceError: shards are missing and the source's folder is not there.
        FormatError: not a prepared dataset, or a damaged file.
    """
    if path.suffix.lower() != ".png":
        raise SettingsError(f"contact sheet {path}", "a name that ends in .png")
    manifest = read_manifest(prepared)
    samples = read_samples(prepared, manifest, choose_frames(manifest, count), root)
    sheet = draw_contact_sheet(manifest.name, samples)
    commit_file(path, lambda partial: sheet.save(partial, "PNG", optimize=True))
    return len(samples)


def draw_contact_sheet(name: str, samples: Sequence[SampledFrame]) -> Image.Image:
    """One block a camera, under a legend of the parts' colours.

    Args:
        name: of the dataset.
        samples: by camera.
    """
    cameras = {camera: list(frames) for camera, frames in groupby(samples, key=lambda sample: sample.tracklet.camera)}
    columns = min(MOST_COLUMNS, max(LEAST_COLUMNS, *(len(frames) for frames in cameras.values())))
    column, row = PICTURE_SIZE[0] + GAP, PICTURE_SIZE[1] + GAP
    rows = sum(-(-len(frames) // columns) for frames in cameras.values())
    size = (2 * MARGIN + columns * column - GAP, MARGIN + HEADER + len(cameras) * HEADING + rows * row)
    sheet = Image.new("RGB", size, PAPER)
    _draw_header(sheet, name)
    top = MARGIN + HEADER
    for camera, frames in cameras.items():
        _draw_heading(sheet, top, f"camera {camera}")
        top += HEADING
        for place, sample in enumerate(frames):
            sheet.paste(draw_frame(sample), (MARGIN + place % columns * column, top + place // columns * row))
        top += -(-len(frames) // columns) * row
    return sheet


def _draw_header(sheet: Image.Image, name: str) -> None:
    draw, small = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    draw.text((MARGIN, MARGIN - 4), name, INK, ImageFont.load_default(size=26))
    left = MARGIN
    for part, colour in PART_COLOURS.items():
        draw.rounded_rectangle((left, MARGIN + 39, left + 14, MARGIN + 51), 3, colour)
        label = part.replace("_", " ")
        draw.text((left + 20, MARGIN + 36), label, INK, small)
        left += round(20 + draw.textlength(label, small) + 22)


def _draw_heading(sheet: Image.Image, top: int, text: str) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.line((MARGIN, top, sheet.width - MARGIN, top), RULE)
    draw.text((MARGIN, top + 9), text, FAINT, ImageFont.load_default(size=16))
