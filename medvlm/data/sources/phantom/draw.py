"""Draw a phantom from its facts: a frontal chest radiograph or an axial chest CT slice, as a reader would see it.

The patient's left lies on the image's right, as in clinical display. Shape, pose, exposure, noise, blur, ribs, vessels
and markers vary, so that only the finding tells one picture's facts from another's.
"""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from medvlm.data.sources.phantom import ct, radiograph
from medvlm.data.sources.phantom.canvas import Canvas, random_pose
from medvlm.data.sources.phantom.spec import Spec

SIZE = 224
"""Side of a picture in pixels."""
QUALITY = 82
"""JPEG quality of `encode`."""


class Drawing(NamedTuple):
    """A picture and the place of its finding."""

    pixels: NDArray[np.uint8]
    """[H, W], bright is dense."""
    finding_box: tuple[float, float, float, float] | None
    """(x0, y0, x1, y1), each 0 to 1 of the image; None where there is no finding."""


def draw(spec: Spec, rng: np.random.Generator, size: int = SIZE) -> Drawing:
    """Draw one phantom, `size` pixels a side."""
    canvas, finding = _painted(spec, rng, size)
    blurred = canvas.image.filter(ImageFilter.GaussianBlur(size / SIZE * rng.uniform(0.8, 1.6)))
    box = None if finding is None else canvas.box(finding)
    return Drawing(_expose(np.asarray(blurred, dtype=np.float32), rng), box)


def finding_mask(spec: Spec, rng: np.random.Generator, size: int = SIZE) -> NDArray[np.bool_] | None:
    """Return where the finding lies [size, size] in what `draw` makes of a generator in the same state, or None."""
    _, finding = _painted(spec, rng, size)
    return None if finding is None else np.asarray(finding) > 127


def _painted(spec: Spec, rng: np.random.Generator, size: int) -> tuple[Canvas, Image.Image | None]:
    """Return the phantom before blur and exposure, and the mask of its finding."""
    canvas = Canvas(size, random_pose(rng), background=round(rng.uniform(2, 14)))
    painter = radiograph.paint if spec.modality == "radiograph" else ct.paint
    return canvas, painter(canvas, spec, rng)


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture [H, W] as JPEG bytes, the same for the same Pillow."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def _expose(values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Vary gain, offset and shading, add noise, and round to 8 bits."""
    height, width = values.shape
    angle, shade = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.12)
    x = np.linspace(-shade, shade, width, dtype=np.float32) * np.float32(math.cos(angle))
    y = np.linspace(-shade, shade, height, dtype=np.float32) * np.float32(math.sin(angle))
    gain = np.float32(rng.uniform(0.85, 1.12)) + x[None, :] + y[:, None]
    noise = rng.standard_normal(values.shape, dtype=np.float32) * np.float32(rng.uniform(1.5, 5.0))
    exposed = values * gain + noise + np.float32(rng.uniform(0, 12))
    return exposed.clip(0, 255).astype(np.uint8)
