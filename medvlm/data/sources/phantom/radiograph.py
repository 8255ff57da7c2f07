"""The frontal chest radiograph phantom: torso, lung fields, ribs, spine, heart, diaphragm, and the finding."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops

from medvlm.data.sources.phantom.canvas import Canvas, Points, ellipse, smooth
from medvlm.data.sources.phantom.spec import Spec

HALF_THORAX = 0.79
"""Half of the inner thoracic width in body units; the lung fields below reach it."""
NORMAL_RATIO = (0.42, 0.48)
ENLARGED_RATIO = (0.63, 0.72)
"""Cardiothoracic ratios: a heart wider than half of the thorax is enlarged."""
SIGN = {"left": 1, "right": -1}
"""The patient's left is on the image's right."""
SMALL_RADIUS = (0.095, 0.110)
LARGE_RADIUS = (0.150, 0.170)
"""Of a nodule in body units: 10 to 17 pixels across in a picture of 112."""


def paint(canvas: Canvas, spec: Spec, rng: np.random.Generator) -> Image.Image | None:
    """Paint the phantom; return the mask of its finding, None where there is none."""
    tissue = rng.uniform(112, 132)
    canvas.fill(_torso(rng), tissue)
    canvas.fill(smooth([(-0.9, 0.3), (0.9, 0.3), (0.95, 1.5), (-0.95, 1.5)]), tissue + 22)
    lungs = {side: _lung(sign, rng) for side, sign in SIGN.items()}
    masks = {side: canvas.mask(lung) for side, lung in lungs.items()}
    darkness = rng.uniform(42, 60)
    for side, mask in masks.items():
        canvas.paste(darkness, mask)
        canvas.add(_vessels(canvas, SIGN[side], rng), mask)
    air = None
    if spec.finding == "pneumothorax" and spec.side:
        air = _pneumothorax(canvas, spec, lungs[spec.side], masks[spec.side], rng)
    _bones(canvas, tissue, rng)
    heart = _heart(spec, rng)
    canvas.fill(heart, tissue + 48)
    _nuisances(canvas, rng)
    if air is not None:
        return air
    if spec.finding == "cardiomegaly":
        return canvas.mask(heart)
    if spec.finding == "nodule":
        return _nodule(canvas, spec, rng)
    if spec.finding == "effusion" and spec.side:
        return _effusion(canvas, spec, masks[spec.side], tissue, rng)
    return None


def _torso(rng: np.random.Generator) -> Points:
    """Neck, shoulders and flanks, wider or narrower."""
    wide = rng.uniform(0.95, 1.08)
    right = [(0.24, -1.5), (0.26, -1.0), (0.85 * wide, -0.86), (1.05 * wide, -0.3), (0.95 * wide, 0.5), (0.98, 1.5)]
    return smooth(right + [(-x, y) for x, y in reversed(right)])


def _lung(sign: int, rng: np.random.Generator) -> Points:
    """One lung field: apex, lateral wall, sharp costophrenic angle, dome, mediastinal border."""
    apex, dome = rng.uniform(-0.84, -0.76), rng.uniform(0.36, 0.44) + (0.03 if sign > 0 else 0.0)
    angle = (HALF_THORAX, rng.uniform(0.60, 0.66))
    corners = [(0.14, 0.5), (0.15, -0.2), (0.18, -0.6), (0.3, apex), (0.5, apex), (0.68, -0.5), (0.78, 0.0)]
    corners += [angle, angle, angle, (0.62, dome), (0.36, dome - 0.04)]
    return smooth([(sign * x, y) for x, y in corners])


def _vessels(canvas: Canvas, sign: int, rng: np.random.Generator) -> Canvas:
    """Vessels that branch from the hilum, as a layer to be added to the lung."""
    layer = canvas.layer()
    for _ in range(7):
        reach, angle = rng.uniform(0.25, 0.5), rng.uniform(-1.35, 1.35)
        bend = rng.uniform(-0.06, 0.06)
        end = (0.2 + reach * np.cos(angle), 0.05 + 1.1 * reach * np.sin(angle))
        middle = (0.2 + (end[0] - 0.2) / 2, (0.05 + end[1]) / 2 + bend)
        layer.line(np.array([(sign * x, y) for x, y in ((0.2, 0.05), middle, end)]), rng.uniform(15, 35), 0.018)
    return layer


def _bones(canvas: Canvas, tissue: float, rng: np.random.Generator) -> None:
    """Mediastinum, spine, ribs and clavicles; how clearly the ribs show varies."""
    canvas.fill(
        smooth([(-0.15, -1.1), (0.15, -1.1), (0.18, -0.2), (0.2, 0.7), (-0.2, 0.7), (-0.17, -0.2)]), tissue + 28
    )
    layer = canvas.layer()
    layer.fill(np.array([(-0.08, -1.3), (0.08, -1.3), (0.09, 1.3), (-0.09, 1.3)]), 22)
    for y in np.arange(-1.0, 1.2, 0.2):
        layer.line(np.array([(-0.08, y), (0.08, y)]), 4, 0.02)
    strength, tilt, thick = rng.uniform(6, 22), rng.uniform(0.05, 0.2), rng.uniform(0.035, 0.055)
    for y in np.arange(-0.72, 0.62, 0.19) + rng.uniform(-0.04, 0.04):
        reach = HALF_THORAX * min(1.0, 0.72 + 0.5 * (y + 0.75))
        for sign in (-1, 1):
            rib = [(0.08, y), (0.4 * reach, y - 0.07), (0.85 * reach, y), (reach, y + tilt)]
            layer.line(smooth([(sign * u, v) for u, v in rib], rounds=2, closed=False), strength, thick)
    for sign in (-1, 1):
        clavicle = [(0.1, -0.6), (0.45, -0.74), (0.85, -0.78)]
        layer.line(smooth([(sign * u, v) for u, v in clavicle], rounds=2, closed=False), strength + 14, 0.055)
    canvas.add(layer)


def _heart(spec: Spec, rng: np.random.Generator) -> Points:
    """The heart, its width set by the cardiothoracic ratio."""
    half = HALF_THORAX * rng.uniform(*(ENLARGED_RATIO if spec.finding == "cardiomegaly" else NORMAL_RATIO))
    height = 0.30 + 0.25 * (half - 0.34) + rng.uniform(-0.02, 0.02)
    return ellipse(0.10, 0.62 - height, half, height, tilt=rng.uniform(0.05, 0.25))


def _nodule(canvas: Canvas, spec: Spec, rng: np.random.Generator) -> Image.Image:
    """A round, bright, solid opacity inside one lung field, clear of the heart."""
    sign = SIGN[spec.side or "left"]
    radius = rng.uniform(*(SMALL_RADIUS if spec.size == "small" else LARGE_RADIUS))
    if spec.zone == "upper":
        x, y = rng.uniform(0.38, 0.52), rng.uniform(-0.52, -0.30)
    else:
        # The heart reaches further on the patient's left.
        x, y = rng.uniform(0.58, 0.64) if sign > 0 else rng.uniform(0.48, 0.62), rng.uniform(0.10, 0.26)
    mask = canvas.mask(ellipse(sign * x, y, radius, radius * rng.uniform(0.88, 1.12), tilt=rng.uniform(0, 3)))
    canvas.paste(rng.uniform(190, 215), mask)
    return mask


def _effusion(canvas: Canvas, spec: Spec, lung: Image.Image, tissue: float, rng: np.random.Generator) -> Image.Image:
    """Fluid over the base of one lung: a meniscus that rises to the lateral wall and blunts the angle."""
    sign = SIGN[spec.side or "left"]
    level = rng.uniform(0.24, 0.30) if spec.size == "small" else rng.uniform(-0.16, -0.06)
    rise = rng.uniform(0.14, 0.22)
    surface = [(0.0, level), (0.3, level), (0.6, level - 0.15 * rise), (0.74, level - 0.5 * rise), (0.85, level - rise)]
    fluid = np.array([(sign * x, y) for x, y in [*surface, (0.9, 0.8), (0.0, 0.8)]])
    mask = canvas.mask(fluid, within=lung)
    canvas.paste(tissue + rng.uniform(34, 46), mask)
    return mask


def _pneumothorax(canvas: Canvas, spec: Spec, lung: Points, mask: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Air between a shrunken lung and the wall: black, free of vessels, bounded by a fine pleural line."""
    sign = SIGN[spec.side or "left"]
    canvas.paste(2, mask)
    shrink = rng.uniform(0.70, 0.76) if spec.size == "small" else rng.uniform(0.42, 0.50)
    hilum = np.array([sign * 0.14, 0.35])
    rest = hilum + (lung - hilum) * shrink
    canvas.fill(rest, rng.uniform(72, 92))
    kept = canvas.mask(rest)
    canvas.add(_vessels(canvas, sign, rng), kept)
    canvas.line(np.concatenate([rest, rest[:1]]), 175, 0.022)
    return ImageChops.subtract(mask, kept)


def _nuisances(canvas: Canvas, rng: np.random.Generator) -> None:
    """A side marker or a wire, sometimes: things on a film that mean nothing for the finding."""
    if rng.random() < 0.5:
        sign = 1 if rng.random() < 0.5 else -1
        x, y = sign * rng.uniform(0.84, 0.92), rng.uniform(-0.97, -0.88)
        left = [(-0.03, -0.05), (-0.03, 0.05), (0.03, 0.05)]
        right = [(-0.03, 0.05), (-0.03, -0.05), (0.03, -0.04), (0.03, 0.0), (-0.03, 0.0), (0.03, 0.05)]
        letter = np.array(left if sign > 0 else right)
        canvas.line(letter + np.array([x, y]), 235, 0.02)
    if rng.random() < 0.3:
        start, end = rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8)
        wire = [(start, -1.1), (start * 0.6, -0.4), (end * 0.6, 0.4), (end, 1.1)]
        canvas.line(smooth(wire, closed=False), rng.uniform(170, 210), 0.012)
