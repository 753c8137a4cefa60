"""The shared wardrobe: everybody wears the same few dull colours, and where things are tells people apart.

Colour tells little of a person in photographs taken by cameras that disagree; this wardrobe is for measurements in
which it must not decide. docs/datasets.md says how far it does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .person import SIDES, Appearance, Canvas, Colour, Painter, Points, View, shade
from .scene import Camera

DULL: tuple[Colour, ...] = ((46, 48, 54), (52, 66, 108), (118, 102, 74), (140, 140, 138))  # of tops, trousers, bags
INKS: tuple[Colour, ...] = ((196, 194, 188), (24, 24, 28))  # of prints, rings and patches
DARK_HAIR: tuple[Colour, ...] = ((30, 26, 24), (44, 36, 30))
TAN: tuple[Colour, ...] = ((196, 152, 120), (182, 138, 106))
SHOE: Colour = (52, 52, 56)
PRINT_ROWS, PRINT_COLUMNS, PRINT_CELLS = 5, 4, 10  # so many cells of each print are inked
SLOTS = 3  # of an upper arm, thigh or shin; one is inked


@dataclass(frozen=True)
class Dressed(Appearance):
    """An identity of the shared wardrobe; every one has as much ink on it, at other places."""

    print_cells: tuple[tuple[int, int], ...]  # row and column of the inked ones, on chest and back
    yoke: float  # where a seam crosses the trunk, from the shoulders (0) to the hips (1)
    hem: float  # where the top ends
    rings: dict[str, int]  # slot of the upper arm's ring, by side
    patches: dict[str, tuple[int, int]]  # slots of thigh and shin, by side
    zipped: bool  # a line down the front

    def painter(self, canvas: Canvas, points: Points, view: View) -> Painter:
        return _DressedPainter(canvas, points, view, self)


def dress(appearance: Appearance, rng: np.random.Generator) -> Dressed:
    """The same build, gait and bag in the shared wardrobe."""
    colour = [DULL[index] for index in rng.integers(len(DULL), size=3)]
    cells = np.sort(rng.choice(PRINT_ROWS * PRINT_COLUMNS, PRINT_CELLS, replace=False))
    plain = {
        "skin": TAN[rng.integers(len(TAN))],
        "hair": DARK_HAIR[rng.integers(len(DARK_HAIR))],
        "top": colour[0],
        "top_second": INKS[rng.integers(len(INKS))],
        "pattern": "plain",
        "sleeves": dict.fromkeys(SIDES, colour[0]),
        "bottom": colour[1],
        "shoes": dict.fromkeys(SIDES, SHOE),
        "bag_colour": colour[2],
    }
    return Dressed(
        **{**vars(appearance), **plain},
        print_cells=tuple((int(cell) // PRINT_COLUMNS, int(cell) % PRINT_COLUMNS) for cell in cells),
        yoke=float(rng.uniform(0.1, 0.9)),
        hem=float(rng.uniform(0.85, 1.12)),
        rings={side: int(rng.integers(SLOTS)) for side in SIDES},
        patches={side: (int(rng.integers(SLOTS)), int(rng.integers(SLOTS))) for side in SIDES},
        zipped=bool(rng.random() < 0.5),
    )


class _DressedPainter(Painter):
    """Paints the ink on top of the plain pieces."""

    looks: Dressed

    def pattern(self) -> None:
        looks = self.looks
        if looks.hem < 1:
            self.band(0, 1, looks.hem, 1, looks.bottom)
        else:
            self.band(0, 1, 1, looks.hem, looks.top)
        self.band(0, 1, looks.yoke - 0.02, looks.yoke + 0.02, shade(looks.top, -0.2))
        facing = float(np.cos(self.yaw))
        if looks.zipped and facing > 0.2:
            self.band(0.485, 0.515, -0.04, min(looks.hem, 1), shade(looks.top, -0.2))
        if abs(facing) > 0.2:  # on chest and back
            width, height = 0.7 / PRINT_COLUMNS, 0.6 / PRINT_ROWS
            for row, column in looks.print_cells:
                left, top = 0.15 + column * width, 0.14 + row * height
                self.band(left, left + width, top, top + height, looks.top_second)

    def arm(self, side: str) -> None:
        super().arm(side)
        shoulder, elbow = (self.points[f"{side}_{name}"] for name in ("shoulder", "elbow"))
        self._mark(shoulder, elbow, self.looks.rings[side], self.limb_width * 0.8)

    def leg(self, side: str) -> None:
        super().leg(side)
        hip, knee, ankle = (self.points[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        thigh, shin = self.looks.patches[side]
        self._mark(hip, knee, thigh, self.limb_width)
        if self.looks.bottom_style == "trousers":
            self._mark(knee, ankle, shin, self.limb_width * 0.65)

    def _mark(self, start: np.ndarray, end: np.ndarray, slot: int, radius: float) -> None:
        """A stretch of a limb in ink."""
        low, high = (start + (end - start) * (0.15 + 0.7 * (slot + part) / SLOTS) for part in (0.1, 0.9))
        direction = (end - start)[:2]
        length = float(np.hypot(*direction))
        if length > 1e-3:
            across = np.array([-direction[1], direction[0]]) / length * radius
            corners = [low[:2] + across, high[:2] + across, high[:2] - across, low[:2] - across]
            self.canvas.polygon(corners, shade(self.looks.top_second, float(start[2])))


def disagree(camera: Camera, rng: np.random.Generator, difficulty: float) -> Camera:
    """The camera with more of a white balance, and a saturation and slanting light of its own, by difficulty."""
    cast = np.exp(difficulty * rng.normal(0, 0.06, 3))
    angle, strength = rng.uniform(0, 2 * np.pi), difficulty * rng.uniform(0.1, 0.3)
    red, green, blue = (np.array(camera.gain) * cast).tolist()
    return replace(
        camera,
        gain=(red, green, blue),
        saturation=float(np.exp(difficulty * rng.uniform(-0.5, 0.2))),
        slope=(float(strength * np.cos(angle)), float(strength * np.sin(angle))),
    )
