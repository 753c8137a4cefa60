"""A picture and, beside it, a map of what was painted last at each pixel; both at twice the final size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .appearance import Colour

OVERSAMPLING = 2


class Canvas:
    """Paints shapes in final pixel coordinates on a picture and their layer number on the map.

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

    def picture(self) -> np.ndarray:
        """uint8 (H, W, 3): the picture at its final size."""
        return np.asarray(self._picture.reduce(OVERSAMPLING))

    def layers(self) -> np.ndarray:
        """uint8 (H, W): the layer seen at each final pixel."""
        return np.asarray(self._map)[::OVERSAMPLING, ::OVERSAMPLING]
