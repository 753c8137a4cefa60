"""A synthetic person: appearance, walk, and how both are painted on a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Points = dict[str, np.ndarray]  # joints and helper points by name, float (3,)

# Colours of clothes. Identities draw from the same few, so that arrangement tells them apart and not mere presence.
CLOTHES: tuple[Colour, ...] = (
    (28, 28, 32), (222, 220, 214), (122, 124, 128), (40, 58, 110), (150, 38, 40),
    (52, 102, 60), (176, 150, 108), (92, 64, 46), (196, 168, 52), (98, 52, 112), (62, 140, 160), (206, 118, 128),
)  # fmt: skip
HAIR: tuple[Colour, ...] = ((24, 20, 18), (70, 46, 30), (156, 116, 62), (128, 126, 124), (110, 48, 26))
SKIN: tuple[Colour, ...] = ((232, 190, 160), (204, 158, 122), (160, 112, 80), (104, 70, 50))
PATTERNS = ("plain", "plain", "hoops", "stripes", "checks", "halves", "badge")
BOTTOMS = ("trousers", "trousers", "trousers", "shorts", "skirt")
HAIRSTYLES = ("short", "short", "long", "cap", "bald")
SIDES = ("left", "right")
BAGS = ("none", "none", "backpack", "left_bag", "right_bag", "sling")

HIP_TO_SHOULDER = 0.30  # these three in body heights
UPPER_ARM = 0.165
FOREARM = 0.15
TORSO_DEPTH = 0.62  # half depth of the trunk over its half width

OVERSAMPLING = 2  # people are painted so many times larger, then reduced
# Marks that the pieces of the tracklet's own person leave on the canvas's map.
LAYERS = {"trunk": 1, "head": 2, "left_arm": 3, "right_arm": 4, "left_leg": 5, "right_leg": 6, "backpack": 7}


@dataclass(frozen=True)
class Appearance:
    """One identity. Lengths are shares of the body height; colours are RGB 0 to 255; sleeves and shoes are by side."""

    shoulder_width: float
    hip_width: float
    leg_length: float
    limb_width: float
    head_size: float
    skin: Colour
    hair: Colour
    hairstyle: str
    top: Colour
    top_second: Colour
    pattern: str
    sleeves: dict[str, Colour]
    long_sleeves: bool
    bottom: Colour
    bottom_style: str
    shoes: dict[str, Colour]
    bag: str
    bag_colour: Colour
    stride: float
    arm_swing: float

    def painter(self, canvas: Canvas, points: Points, view: View) -> Painter:
        """Who paints this person's pieces."""
        return Painter(canvas, points, view, self)


def sample_appearance(rng: np.random.Generator, difficulty: float, group_rng: np.random.Generator) -> Appearance:
    """Draw an identity.

    At difficulty 0 it has colours of its own; at 1 it shares a wardrobe of three colours with the look-alikes whose
    `group_rng` starts alike, and differs in what it wears where.
    """
    shared = group_rng.choice(len(CLOTHES), size=3, replace=False)
    own = rng.choice(len(CLOTHES), size=4, replace=False)
    use_shared = rng.random(6) < difficulty
    order = rng.permutation(3)

    def cloth(slot: int) -> Colour:
        index = shared[order[slot % 3]] if use_shared[slot] else own[slot % 4]
        r, g, b = np.clip(CLOTHES[index] + rng.normal(0, 6, 3), 0, 255).astype(int).tolist()
        return (r, g, b)

    top, second, bottom, shoe, bag_colour, sleeve = [cloth(slot) for slot in range(6)]
    uneven = rng.random() < 0.4  # one sleeve differs: an arm band, a cast, a half-worn coat
    other_shoe = rng.random() < 0.15
    return Appearance(
        shoulder_width=rng.uniform(0.105, 0.14),
        hip_width=rng.uniform(0.07, 0.10),
        leg_length=rng.uniform(0.48, 0.53),
        limb_width=rng.uniform(0.034, 0.05),
        head_size=rng.uniform(0.062, 0.074),
        skin=SKIN[rng.integers(len(SKIN))],
        hair=HAIR[rng.integers(len(HAIR))],
        hairstyle=str(rng.choice(HAIRSTYLES)),
        top=top,
        top_second=second,
        pattern=str(rng.choice(PATTERNS)),
        sleeves={"left": sleeve if uneven and rng.random() < 0.5 else top, "right": sleeve if uneven else top},
        long_sleeves=rng.random() < 0.65,
        bottom=bottom,
        bottom_style=str(rng.choice(BOTTOMS)),
        shoes={"left": shoe, "right": top if other_shoe else shoe},
        bag=str(rng.choice(BAGS)),
        bag_colour=bag_colour,
        stride=rng.uniform(0.35, 0.55),
        arm_swing=rng.uniform(0.2, 0.6),
    )


@dataclass(frozen=True)
class View:
    """How the body stands in front of the camera."""

    yaw: float  # radians; 0 faces the camera, pi / 2 walks to the right of the picture, pi turns the back
    elevation: float  # radians; how far the camera looks down
    height: float  # body height in pixels
    x: float  # pixel of the point on the ground between the feet
    y: float


def walk(appearance: Appearance, phase: float) -> Points:
    """The body at a gait phase (radians): forward, left, up in body heights."""
    thigh, shin = appearance.leg_length * 0.5, appearance.leg_length * 0.5 - 0.04
    hip_height = appearance.leg_length + 0.01
    shoulder_height = hip_height + HIP_TO_SHOULDER
    size = appearance.head_size
    head = np.array([0.015, 0.0, shoulder_height + 0.05 + size])
    nose = head + size * np.array([0.95, 0, -0.1])
    points = {"neck": np.array([0.0, 0.0, shoulder_height + 0.01]), "head": head, "nose": nose}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        swing = sign * np.sin(phase)
        lift = max(0.0, sign * np.cos(phase))  # the leg that moves forward bends its knee
        hip = np.array([0.0, sign * appearance.hip_width, hip_height])
        angle = appearance.stride * swing + 0.15 * lift
        knee = hip + thigh * np.array([np.sin(angle), 0, -np.cos(angle)])
        bend = angle - 0.12 - 0.9 * lift
        ankle = knee + shin * np.array([np.sin(bend), 0, -np.cos(bend)])
        shoulder = np.array([0.0, sign * appearance.shoulder_width, shoulder_height])
        arm = -appearance.arm_swing * swing
        elbow = shoulder + UPPER_ARM * np.array([np.sin(arm), sign * 0.22, -np.cos(arm)])
        fold = arm + 0.25 + 0.3 * max(0.0, -swing)
        wrist = elbow + FOREARM * np.array([np.sin(fold), sign * 0.05, -np.cos(fold)])
        points |= {f"{side}_hip": hip, f"{side}_knee": knee, f"{side}_ankle": ankle}
        points |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_wrist": wrist}
        points[f"{side}_toe"] = ankle + np.array([0.06, 0, -0.025])
        points[f"{side}_eye"] = head + size * np.array([0.8, 0.38 * sign, 0.18])
        points[f"{side}_ear"] = head + size * np.array([0.0, 0.85 * sign, 0.0])
    ground = min(points["left_ankle"][2], points["right_ankle"][2]) - 0.04
    return {name: point - np.array([0, 0, ground]) for name, point in points.items()}


def project(points: Points, view: View) -> Points:
    """The body as the view sees it, orthographic: x, y in pixels, and depth in body heights, larger when nearer."""
    sin, cos = np.sin(view.yaw), np.cos(view.yaw)
    projected = {}
    for name, (forward, left, up) in points.items():
        right = forward * sin + left * cos
        near = forward * cos - left * sin
        rise = up * np.cos(view.elevation) - near * np.sin(view.elevation)
        projected[name] = np.array([view.x + view.height * right, view.y - view.height * rise, near])
    return projected


class Canvas:
    """A picture, and a map of what was painted last at each pixel: paints shapes, in final pixel coordinates, on both.

    Attributes:
        layer: number that the next shapes leave on the map, 0 to 255 (0: background).
    """

    def __init__(self, background: Image.Image) -> None:
        size = (background.width * OVERSAMPLING, background.height * OVERSAMPLING)
        self._picture = background.resize(size, Image.Resampling.BILINEAR)
        self._map = Image.new("L", size, 0)
        self._paint = ImageDraw.Draw(self._picture)
        self._mark = ImageDraw.Draw(self._map)
        self.layer = 0

    def polygon(self, points: Sequence[np.ndarray], colour: Colour) -> None:
        corners = [(float(p[0]) * OVERSAMPLING, float(p[1]) * OVERSAMPLING) for p in points]
        self._paint.polygon(corners, fill=colour)
        self._mark.polygon(corners, fill=self.layer)

    def ellipse(self, centre: np.ndarray, radius_x: float, radius_y: float, colour: Colour) -> None:
        x, y = float(centre[0]) * OVERSAMPLING, float(centre[1]) * OVERSAMPLING
        rx, ry = radius_x * OVERSAMPLING, radius_y * OVERSAMPLING
        box = (x - rx, y - ry, x + rx, y + ry)
        self._paint.ellipse(box, fill=colour)
        self._mark.ellipse(box, fill=self.layer)

    def limb(self, start: np.ndarray, end: np.ndarray, start_radius: float, end_radius: float, colour: Colour) -> None:
        """A tapered limb with round ends."""
        direction = end[:2] - start[:2]
        length = float(np.hypot(*direction))
        if length > 1e-3:
            normal = np.array([-direction[1], direction[0]]) / length
            a, b = normal * start_radius, normal * end_radius
            self.polygon([start[:2] + a, end[:2] + b, end[:2] - b, start[:2] - a], colour)
        self.ellipse(start, start_radius, start_radius, colour)
        self.ellipse(end, end_radius, end_radius, colour)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """The picture, uint8 (H, W, 3), and the layer seen at each of its pixels, uint8 (H, W)."""
        return np.asarray(self._picture.reduce(OVERSAMPLING)), np.asarray(self._map)[::OVERSAMPLING, ::OVERSAMPLING]


def paint_person(canvas: Canvas, points: Points, view: View, appearance: Appearance, layers: dict[str, int]) -> None:
    """Paint a projected person; each piece (see LAYERS) marks the canvas's map with the number it has in `layers`."""
    painter = appearance.painter(canvas, points, view)
    pieces: list[tuple[float, str, Callable[[], None]]] = [(0.0, "trunk", painter.trunk), (0.01, "head", painter.head)]
    for side in SIDES:
        arm = points[f"{side}_shoulder"][2] + 0.4 * points[f"{side}_wrist"][2]
        leg = 0.5 * points[f"{side}_hip"][2] + 0.5 * points[f"{side}_ankle"][2] - 0.02
        pieces.append((arm, f"{side}_arm", partial(painter.arm, side)))
        pieces.append((leg, f"{side}_leg", partial(painter.leg, side)))
    if appearance.bag == "backpack":
        pieces.append((-0.1 * np.cos(view.yaw), "backpack", painter.backpack))
    for _, name, paint in sorted(pieces, key=lambda piece: piece[0]):  # the farthest first
        canvas.layer = layers[name]
        paint()


def shade(colour: Colour, near: float) -> Colour:
    factor = min(max(1.0 + 1.3 * near, 0.72), 1.08)
    r, g, b = (int(min(255, channel * factor)) for channel in colour)
    return (r, g, b)


class Painter:
    """Paints the pieces of one person."""

    def __init__(self, canvas: Canvas, points: Points, view: View, looks: Appearance) -> None:
        self.canvas, self.points, self.looks, self.yaw, self.scale = canvas, points, looks, view.yaw, view.height
        self.limb_width = looks.limb_width * self.scale
        self.top_left, self.top_right = self._edge("shoulder", looks.shoulder_width, 0.95)
        self.low_left, self.low_right = self._edge("hip", looks.hip_width, 1.25)

    def _edge(self, joint: str, half_width: float, widen: float) -> tuple[np.ndarray, np.ndarray]:
        spread = (abs(np.cos(self.yaw)) + TORSO_DEPTH * abs(np.sin(self.yaw))) * half_width * widen * self.scale
        return self.middle(joint) - np.array([spread, 0]), self.middle(joint) + np.array([spread, 0])

    def trunk_point(self, u: float, v: float) -> np.ndarray:
        """A point of the trunk: u from left to right of the picture, v from the shoulders to the hips."""
        upper = (1 - v) * ((1 - u) * self.top_left + u * self.top_right)
        return upper + v * ((1 - u) * self.low_left + u * self.low_right)

    def band(self, u0: float, u1: float, v0: float, v1: float, colour: Colour) -> None:
        at = self.trunk_point
        self.canvas.polygon([at(u0, v0), at(u1, v0), at(u1, v1), at(u0, v1)], colour)

    def middle(self, joint: str) -> np.ndarray:
        """float (2,): x, y between the left and the right one."""
        return (self.points[f"left_{joint}"][:2] + self.points[f"right_{joint}"][:2]) / 2

    def leg(self, side: str) -> None:
        hip, knee, ankle, toe = (self.points[f"{side}_{name}"] for name in ("hip", "knee", "ankle", "toe"))
        width, near = self.limb_width, float(hip[2])
        cloth, skin = shade(self.looks.bottom, near), shade(self.looks.skin, near)
        lower = cloth if self.looks.bottom_style == "trousers" else skin
        self.canvas.limb(knee, ankle, width * 0.8, width * 0.5, lower)
        self.canvas.limb(ankle, toe, width * 0.55, width * 0.4, shade(self.looks.shoes[side], near))
        self.canvas.limb(hip, knee, width * 1.15, width * 0.85, cloth)

    def arm(self, side: str) -> None:
        shoulder, elbow, wrist = (self.points[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
        width, near = self.limb_width, float(shoulder[2])
        sleeve, skin = shade(self.looks.sleeves[side], near), shade(self.looks.skin, near)
        self.canvas.limb(elbow, wrist, width * 0.65, width * 0.5, sleeve if self.looks.long_sleeves else skin)
        self.canvas.ellipse(wrist + (wrist - elbow) * 0.12, width * 0.5, width * 0.5, skin)
        self.canvas.limb(shoulder, elbow, width * 0.9, width * 0.7, sleeve)
        if self.looks.bag == f"{side}_bag":
            size = 0.055 * self.scale
            low = wrist + np.array([0, size * 1.2, 0])
            shape = ((-0.8, -1), (0.8, -1), (1, 1), (-1, 1))
            corners = [low + np.array([dx * size, dy * size, 0]) for dx, dy in shape]
            self.canvas.polygon(corners, shade(self.looks.bag_colour, near))

    def trunk(self) -> None:
        looks, at = self.looks, self.trunk_point
        neck = 0.03 * self.scale
        self.canvas.limb(self.points["neck"], self.points["head"], neck, neck, looks.skin)
        if looks.bottom_style == "skirt":
            knees, flare = self.middle("knee"), np.array([1.35 * looks.hip_width * self.scale, 0])
            self.canvas.polygon([at(0, 0.9), at(1, 0.9), knees + flare, knees - flare], looks.bottom)
        else:
            self.band(0.0, 1.0, 0.9, 1.12, looks.bottom)
        self.band(0.0, 1.0, -0.06, 1.0, looks.top)
        self.pattern()
        if looks.bag == "sling":
            self.canvas.polygon([at(0.1, -0.05), at(0.22, -0.05), at(0.98, 0.9), at(0.86, 0.9)], looks.bag_colour)

    def pattern(self) -> None:
        """What is on the plain top."""
        looks = self.looks
        bands: list[tuple[float, float, float, float]] = []
        if looks.pattern in ("hoops", "checks"):
            bands += [(0, 1, start, start + 0.15) for start in (0.1, 0.4, 0.7)]
        if looks.pattern in ("stripes", "checks"):
            bands += [(start, start + 0.12, -0.06, 1) for start in (0.12, 0.45, 0.78)]
        if looks.pattern == "halves":
            bands.append((0, 1, 0.45, 1))
        if looks.pattern == "badge" and np.cos(self.yaw) > 0.3:  # on the chest: not seen from behind
            bands.append((0.3, 0.7, 0.2, 0.5))
        for one in bands:
            self.band(*one, looks.top_second)

    def head(self) -> None:
        looks, points, size = self.looks, self.points, self.looks.head_size * self.scale
        head, nose = points["head"], points["nose"]
        if looks.hairstyle == "long":
            self.canvas.ellipse(head + np.array([0, 0.5 * size, 0]), 1.05 * size, 1.5 * size, looks.hair)
        self.canvas.ellipse(head, 0.85 * size, 1.1 * size, looks.skin)
        if looks.hairstyle != "bald":
            cover = looks.bag_colour if looks.hairstyle == "cap" else looks.hair
            drop, height = (0.1, 1.0) if float(np.cos(self.yaw)) < -0.3 else (-0.5, 0.62)
            back = (head - nose)[:2] * 0.45
            self.canvas.ellipse(head[:2] + back + np.array([0, drop * size]), 0.9 * size, height * size, cover)
        for side in SIDES:
            eye, ear = points[f"{side}_eye"], points[f"{side}_ear"]
            if eye[2] > head[2] + 0.1 * looks.head_size:
                self.canvas.ellipse(eye, 0.13 * size, 0.13 * size, (30, 26, 26))
            if ear[2] > head[2] - 0.3 * looks.head_size and looks.hairstyle != "long":
                self.canvas.ellipse(ear, 0.18 * size, 0.25 * size, shade(looks.skin, -0.15))
        if nose[2] > head[2] - 0.2 * looks.head_size:
            self.canvas.ellipse(nose, 0.16 * size, 0.18 * size, shade(looks.skin, -0.2))

    def backpack(self) -> None:
        x, y = self.middle("shoulder")
        x += -np.sin(self.yaw) * 0.1 * self.scale
        half = (0.75 * abs(np.cos(self.yaw)) + 0.45 * abs(np.sin(self.yaw))) * self.looks.shoulder_width * self.scale
        top, low = y + 0.01 * self.scale, y + 0.2 * self.scale
        corners = [np.array(corner) for corner in ((x - half, top), (x + half, top), (x + half, low), (x - half, low))]
        self.canvas.polygon(corners, shade(self.looks.bag_colour, -0.05))
