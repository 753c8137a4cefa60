"""Paints one walking person, far parts first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .appearance import Appearance, Colour
from .canvas import Canvas
from .gait import ProjectedBody

TORSO_DEPTH = 0.62  # half depth of the trunk over its half width

# Marks that the pieces of the tracklet's own person leave on the canvas's map.
LAYERS = {"trunk": 1, "head": 2, "left_arm": 3, "right_arm": 4, "left_leg": 5, "right_leg": 6, "backpack": 7}


def paint_person(canvas: Canvas, body: ProjectedBody, appearance: Appearance, layers: dict[str, int]) -> None:
    """Paint the person on the canvas; each piece (see LAYERS) marks the map with the number it has in `layers`."""
    points = body.points
    depths = {"trunk": 0.0, "head": 0.01}
    for side in ("left", "right"):
        depths[f"{side}_arm"] = points[f"{side}_shoulder"][2] + 0.4 * points[f"{side}_wrist"][2]
        depths[f"{side}_leg"] = 0.5 * points[f"{side}_hip"][2] + 0.5 * points[f"{side}_ankle"][2] - 0.02
    if appearance.bag == "backpack":
        depths["backpack"] = -0.1 * np.cos(body.view.yaw)
    for piece in sorted(depths, key=lambda name: depths[name]):
        canvas.layer = layers[piece]
        if piece == "trunk":
            _trunk(canvas, body, appearance)
        elif piece == "head":
            _head(canvas, body, appearance)
        elif piece == "backpack":
            _backpack(canvas, body, appearance)
        else:
            side, limb = piece.split("_")
            (_arm if limb == "arm" else _leg)(canvas, body, appearance, side)


def _shade(colour: Colour, near: float) -> Colour:
    factor = float(np.clip(1.0 + 1.3 * near, 0.72, 1.08))
    r, g, b = (int(min(255, channel * factor)) for channel in colour)
    return (r, g, b)


def _leg(canvas: Canvas, body: ProjectedBody, appearance: Appearance, side: str) -> None:
    scale, points = body.view.height, body.points
    hip, knee, ankle, toe = (points[f"{side}_{name}"] for name in ("hip", "knee", "ankle", "toe"))
    width = appearance.limb_width * scale
    near = float(hip[2])
    cloth, skin = _shade(appearance.bottom, near), _shade(appearance.skin, near)
    shoe = _shade(appearance.left_shoe if side == "left" else appearance.right_shoe, near)
    lower = cloth if appearance.bottom_style == "trousers" else skin
    canvas.limb(knee, ankle, width * 0.8, width * 0.5, lower)
    canvas.limb(ankle, toe, width * 0.55, width * 0.4, shoe)
    canvas.limb(hip, knee, width * 1.15, width * 0.85, cloth)


def _arm(canvas: Canvas, body: ProjectedBody, appearance: Appearance, side: str) -> None:
    scale, points = body.view.height, body.points
    shoulder, elbow, wrist = (points[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
    width = appearance.limb_width * scale
    near = float(shoulder[2])
    sleeve = _shade(appearance.left_sleeve if side == "left" else appearance.right_sleeve, near)
    skin = _shade(appearance.skin, near)
    canvas.limb(elbow, wrist, width * 0.65, width * 0.5, sleeve if appearance.long_sleeves else skin)
    canvas.ellipse(wrist + (wrist - elbow) * 0.12, width * 0.5, width * 0.5, skin)
    canvas.limb(shoulder, elbow, width * 0.9, width * 0.7, sleeve)
    if appearance.bag == f"{side}_bag":
        size = 0.055 * scale
        low = wrist + np.array([0, size * 1.2, 0])
        corners = [low + np.array([dx * size, dy * size, 0]) for dx, dy in ((-0.8, -1), (0.8, -1), (1, 1), (-1, 1))]
        canvas.polygon(corners, _shade(appearance.bag_colour, near))


def _trunk(canvas: Canvas, body: ProjectedBody, appearance: Appearance) -> None:
    scale, points, yaw = body.view.height, body.points, body.view.yaw

    def edge(left: str, right: str, half_width: float, widen: float) -> tuple[np.ndarray, np.ndarray]:
        centre = (points[left][:2] + points[right][:2]) / 2
        spread = (abs(np.cos(yaw)) + TORSO_DEPTH * abs(np.sin(yaw))) * half_width * widen * scale
        return centre - np.array([spread, 0]), centre + np.array([spread, 0])

    top_left, top_right = edge("left_shoulder", "right_shoulder", appearance.shoulder_width, 0.95)
    low_left, low_right = edge("left_hip", "right_hip", appearance.hip_width, 1.25)

    def at(u: float, v: float) -> np.ndarray:
        """A point of the trunk: u from left to right of the picture, v from the shoulders to the hips."""
        return (1 - v) * ((1 - u) * top_left + u * top_right) + v * ((1 - u) * low_left + u * low_right)

    def band(u0: float, u1: float, v0: float, v1: float, colour: Colour) -> None:
        canvas.polygon([at(u0, v0), at(u1, v0), at(u1, v1), at(u0, v1)], colour)

    neck = points["neck"]
    canvas.limb(neck, points["head"], 0.03 * scale, 0.03 * scale, appearance.skin)
    if appearance.bottom_style == "skirt":
        knees = (points["left_knee"][:2] + points["right_knee"][:2]) / 2
        flare = np.array([1.35 * appearance.hip_width * scale, 0])
        canvas.polygon([at(0, 0.9), at(1, 0.9), knees + flare, knees - flare], appearance.bottom)
    else:
        band(0.0, 1.0, 0.9, 1.12, appearance.bottom)
    band(0.0, 1.0, -0.06, 1.0, appearance.top)
    _pattern(band, appearance, facing=np.cos(yaw))
    if appearance.bag == "sling":
        canvas.polygon([at(0.1, -0.05), at(0.22, -0.05), at(0.98, 0.9), at(0.86, 0.9)], appearance.bag_colour)


def _pattern(band: Callable[[float, float, float, float, Colour], None], appearance: Appearance, facing: float) -> None:
    colour = appearance.top_second
    if appearance.pattern in ("hoops", "checks"):
        for start in (0.1, 0.4, 0.7):
            band(0, 1, start, start + 0.15, colour)
    if appearance.pattern in ("stripes", "checks"):
        for start in (0.12, 0.45, 0.78):
            band(start, start + 0.12, -0.06, 1, colour)
    if appearance.pattern == "halves":
        band(0, 1, 0.45, 1, colour)
    if appearance.pattern == "badge" and facing > 0.3:  # on the chest: not seen from behind
        band(0.3, 0.7, 0.2, 0.5, colour)


def _head(canvas: Canvas, body: ProjectedBody, appearance: Appearance) -> None:
    points, size = body.points, appearance.head_size * body.view.height
    head, facing = points["head"], float(np.cos(body.view.yaw))
    if appearance.hairstyle == "long":
        canvas.ellipse(head + np.array([0, 0.5 * size, 0]), 1.05 * size, 1.5 * size, appearance.hair)
    canvas.ellipse(head, 0.85 * size, 1.1 * size, appearance.skin)
    back = (head - points["nose"])[:2] * 0.45
    if appearance.hairstyle != "bald":
        cover = appearance.bag_colour if appearance.hairstyle == "cap" else appearance.hair
        drop = 0.1 if facing < -0.3 else -0.5
        height = 1.0 if facing < -0.3 else 0.62
        canvas.ellipse(head[:2] + back + np.array([0, drop * size]), 0.9 * size, height * size, cover)
    for side in ("left", "right"):
        if points[f"{side}_eye"][2] > head[2] + 0.1 * appearance.head_size:
            canvas.ellipse(points[f"{side}_eye"], 0.13 * size, 0.13 * size, (30, 26, 26))
        if points[f"{side}_ear"][2] > head[2] - 0.3 * appearance.head_size and appearance.hairstyle != "long":
            canvas.ellipse(points[f"{side}_ear"], 0.18 * size, 0.25 * size, _shade(appearance.skin, -0.15))
    if points["nose"][2] > head[2] - 0.2 * appearance.head_size:
        canvas.ellipse(points["nose"], 0.16 * size, 0.18 * size, _shade(appearance.skin, -0.2))


def _backpack(canvas: Canvas, body: ProjectedBody, appearance: Appearance) -> None:
    points, scale, yaw = body.points, body.view.height, body.view.yaw
    shoulders = (points["left_shoulder"][:2] + points["right_shoulder"][:2]) / 2
    behind = -np.sin(yaw) * 0.1 * scale
    half = (0.75 * abs(np.cos(yaw)) + 0.45 * abs(np.sin(yaw))) * appearance.shoulder_width * scale
    top, low = shoulders[1] + 0.01 * scale, shoulders[1] + 0.2 * scale
    x = shoulders[0] + behind
    canvas.polygon(
        [np.array([x - half, top]), np.array([x + half, top]), np.array([x + half, low]), np.array([x - half, low])],
        _shade(appearance.bag_colour, -0.05),
    )
