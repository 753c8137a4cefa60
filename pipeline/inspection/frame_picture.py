"""One frame as a picture: the skeleton drawn over it, its six part heatmaps beside it, and what it is below."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..heatmaps import MIN_CONFIDENCE
from ..records import FRAME_INTERPOLATED, FRAME_OK
from ..skeleton import BONES, NUM_JOINTS, PART_JOINT_INDICES, PARTS
from .samples import SampledFrame

Colour = tuple[int, int, int]

PAPER, INK, FAINT = (255, 255, 255), (33, 37, 41), (108, 117, 125)
EMPTY = (233, 236, 239)
PART_COLOURS: dict[str, Colour] = {
    "head": (255, 209, 64),
    "torso": (92, 219, 110),
    "left_arm": (255, 138, 61),
    "right_arm": (66, 202, 253),
    "left_leg": (255, 94, 135),
    "right_leg": (157, 130, 255),
}
STATUS_COLOURS: dict[str | None, Colour] = {FRAME_OK: (43, 138, 62), FRAME_INTERPOLATED: (180, 95, 6), None: FAINT}
TROUBLE = (201, 42, 42)  # every other status

FRAME_SIZE = (160, 320)  # width and height; all frames are shown 1:2, as the network gets them
TILE_SIZE = (52, 104)  # of a heatmap
GAP, CAPTION = 4, 58
PICTURE_SIZE = (FRAME_SIZE[0] + 2 * (GAP + TILE_SIZE[0]), FRAME_SIZE[1] + CAPTION)
SMOOTH = 3  # skeletons are drawn so many times larger, then reduced
DIMMED = 0.45  # of the grey frame under a heatmap


def draw_frame(sample: SampledFrame) -> Image.Image:
    """RGB picture of PICTURE_SIZE. Joints over the heatmaps' confidence threshold are drawn, lines between two such."""
    picture = Image.new("RGB", PICTURE_SIZE, PAPER)
    picture.paste(_with_skeleton(sample), (0, 0))
    for place, part in enumerate(PARTS):
        left = FRAME_SIZE[0] + GAP + (place % 2) * (TILE_SIZE[0] + GAP)
        top = (place // 2) * (TILE_SIZE[1] + GAP)
        heatmap = None if sample.heatmaps is None else sample.heatmaps[place]
        picture.paste(_heatmap_tile(sample.image, heatmap, PART_COLOURS[part]), (left, top))
    _write_caption(picture, sample)
    return picture


def _with_skeleton(sample: SampledFrame) -> Image.Image:
    if sample.image is None:
        blank = Image.new("RGB", FRAME_SIZE, EMPTY)
        middle = (FRAME_SIZE[0] // 2, FRAME_SIZE[1] // 2)
        ImageDraw.Draw(blank).text(middle, "no image", FAINT, ImageFont.load_default(size=14), anchor="mm")
        return blank
    width, height = (side * SMOOTH for side in FRAME_SIZE)
    large = sample.image.resize((width, height), Image.Resampling.BICUBIC)
    if sample.keypoints is not None:
        scale = np.array([width, height]) / sample.image.size
        _draw_skeleton(ImageDraw.Draw(large), sample.keypoints[:, :2] * scale, sample.keypoints[:, 2] > MIN_CONFIDENCE)
    return large.resize(FRAME_SIZE, Image.Resampling.LANCZOS)


def _draw_skeleton(draw: ImageDraw.ImageDraw, places: np.ndarray, seen: np.ndarray) -> None:
    """Lines take the colour of the part at their far end; a dark rim keeps them apart from bright clothes."""
    colours = _joint_colours()
    bones = [(tuple(places[a]), tuple(places[b]), colours[b]) for a, b in BONES if seen[a] and seen[b]]
    for width, rim in ((5 * SMOOTH, True), (3 * SMOOTH, False)):
        for start, end, colour in bones:
            draw.line((*start, *end), INK if rim else colour, width)
    for joint in np.flatnonzero(seen):
        for radius, colour in ((4 * SMOOTH, INK), (3 * SMOOTH, colours[joint])):
            x, y = places[joint]
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)


def _joint_colours() -> list[Colour]:
    colours = [INK] * NUM_JOINTS
    for part, joints in zip(PARTS, PART_JOINT_INDICES, strict=True):
        for joint in joints:
            colours[joint] = PART_COLOURS[part]
    return colours


def _heatmap_tile(image: Image.Image | None, heatmap: np.ndarray | None, colour: Colour) -> Image.Image:
    """The heatmap in its colour over the dimmed grey frame."""
    if image is None or heatmap is None:
        return Image.new("RGB", TILE_SIZE, EMPTY)
    grey = image.convert("L").resize(TILE_SIZE, Image.Resampling.BICUBIC).point(lambda value: value * DIMMED)
    mask = Image.fromarray(heatmap).resize(TILE_SIZE, Image.Resampling.BILINEAR)
    return Image.composite(Image.new("RGB", TILE_SIZE, colour), grey.convert("RGB"), mask)


def _write_caption(picture: Image.Image, sample: SampledFrame) -> None:
    draw, tracklet = ImageDraw.Draw(picture), sample.tracklet
    top = FRAME_SIZE[1] + 5
    title = f"identity {tracklet.identity}, camera {tracklet.camera}"
    place = f"tracklet {tracklet.tracklet_id}, frame {sample.frame_index}, {tracklet.split}"
    status = "not extracted yet" if sample.status is None else sample.status.replace("_", " ")
    if sample.score > 0:
        status += f", score {sample.score:.2f}"
    draw.text((0, top), title, INK, ImageFont.load_default(size=15))
    draw.text((0, top + 19), place, FAINT, ImageFont.load_default(size=12))
    colour = STATUS_COLOURS.get(sample.status, TROUBLE)
    draw.ellipse((0, top + 39, 8, top + 47), colour)
    draw.text((13, top + 35), status, colour, ImageFont.load_default(size=12))
