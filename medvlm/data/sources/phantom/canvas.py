"""A gray-scale canvas in body coordinates: x to the image's right, y down, both about -1 to 1, posed by a `Pose`."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

Points = NDArray[np.float64]
"""A polygon or a line, [N, 2], in body coordinates."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pose:
    """How the body lies in the image: rotation in radians, the rest in shares of the image's side."""

    rotation: float
    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float

    def place(self, points: Points) -> Points:
        """Map body coordinates [N, 2] to image coordinates [N, 2], where the image spans 0 to 1."""
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        x, y = points[:, 0] * self.scale_x, points[:, 1] * self.scale_y
        return np.stack([0.5 + self.shift_x + x * cos - y * sin, 0.5 + self.shift_y + x * sin + y * cos], axis=1)


def random_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose: up to 6 degrees of rotation, 10 % of scale each way, 4 % of shift."""
    scale = 0.46 * rng.uniform(0.92, 1.06)
    return Pose(
        rotation=math.radians(rng.uniform(-6, 6)),
        scale_x=scale * rng.uniform(0.96, 1.04),
        scale_y=scale * rng.uniform(0.96, 1.04),
        shift_x=rng.uniform(-0.04, 0.04),
        shift_y=rng.uniform(-0.04, 0.04),
    )


def smooth(corners: list[tuple[float, float]], rounds: int = 3, closed: bool = True) -> Points:
    """Round a polygon by cutting its corners (Chaikin 1974); a corner named three times stays sharp."""
    points = np.asarray(corners, dtype=np.float64)
    for _ in range(rounds):
        here, after = (points, np.roll(points, -1, axis=0)) if closed else (points[:-1], points[1:])
        cut = np.empty((2 * len(here), 2))
        cut[0::2], cut[1::2] = 0.75 * here + 0.25 * after, 0.25 * here + 0.75 * after
        points = cut if closed else np.concatenate([points[:1], cut, points[-1:]])
    return points


def ellipse(x: float, y: float, radius_x: float, radius_y: float, tilt: float = 0.0, corners: int = 40) -> Points:
    """Return an ellipse about (x, y), tilted by `tilt` radians, as a polygon [corners, 2]."""
    angle = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    u, v = radius_x * np.cos(angle), radius_y * np.sin(angle)
    cos, sin = math.cos(tilt), math.sin(tilt)
    return np.stack([x + u * cos - v * sin, y + u * sin + v * cos], axis=1)


class Canvas:
    """An 8-bit picture [size, size] that takes shapes in body coordinates."""

    def __init__(self, size: int, pose: Pose, background: int = 0) -> None:
        self.size = size
        self.pose = pose
        self.image = Image.new("L", (size, size), background)
        self._draw = ImageDraw.Draw(self.image)

    def pixels(self, points: Points) -> list[tuple[float, float]]:
        """Return `points` as pixel coordinates."""
        return [(x, y) for x, y in (self.pose.place(points) * self.size).tolist()]

    def fill(self, points: Points, value: float) -> None:
        """Fill a polygon."""
        self._draw.polygon(self.pixels(points), fill=round(value))

    def line(self, points: Points, value: float, width: float) -> None:
        """Draw a polyline; `width` is in body units."""
        thick = max(1, round(width * self.pose.scale_x * self.size))
        self._draw.line(self.pixels(points), fill=round(value), width=thick, joint="curve")

    def mask(self, points: Points, within: Image.Image | None = None) -> Image.Image:
        """Return a mask of a polygon, cut by `within` where given."""
        made = Image.new("L", self.image.size, 0)
        ImageDraw.Draw(made).polygon(self.pixels(points), fill=255)
        return made if within is None else ImageChops.multiply(made, within)

    def paste(self, value: float, mask: Image.Image) -> None:
        """Fill a mask."""
        self.image.paste(round(value), mask=mask)

    def layer(self) -> Canvas:
        """Return an empty canvas of the same size and pose, to be added later."""
        return Canvas(self.size, self.pose)

    def add(self, layer: Canvas, mask: Image.Image | None = None) -> None:
        """Add a layer's values (clipped at 255), only inside `mask` where given."""
        values = layer.image if mask is None else ImageChops.multiply(layer.image, mask)
        self.image.paste(ImageChops.add(self.image, values))

    def box(self, mask: Image.Image) -> tuple[float, float, float, float]:
        """Return the box of a mask as (x0, y0, x1, y1), each 0 to 1 of the image."""
        found = mask.getbbox() or (0, 0, self.size, self.size)
        x0, y0, x1, y1 = (value / self.size for value in found)
        return x0, y0, x1, y1
