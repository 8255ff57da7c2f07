"""The axial chest CT phantom: body, lungs, mediastinum, spine, ribs, table, and the finding."""

from __future__ import annotations

import numpy as np
from PIL import Image

from medvlm.data.sources.phantom.canvas import Canvas, Points, ellipse, smooth
from medvlm.data.sources.phantom.radiograph import LARGE_RADIUS, SIGN, SMALL_RADIUS
from medvlm.data.sources.phantom.spec import Spec


def paint(canvas: Canvas, spec: Spec, rng: np.random.Generator) -> Image.Image | None:
    """Paint the phantom; return the mask of its finding, None where there is none."""
    tissue = rng.uniform(112, 132)
    _table(canvas, rng)
    wide, deep = rng.uniform(0.92, 1.0), rng.uniform(0.68, 0.76)
    canvas.fill(ellipse(0, 0, wide, deep), tissue - 40)
    fat = rng.uniform(0.05, 0.09)
    canvas.fill(ellipse(0, 0, wide - fat, deep - fat), tissue)
    lungs = {side: _lung(sign, rng) for side, sign in SIGN.items()}
    masks = {side: canvas.mask(lung) for side, lung in lungs.items()}
    darkness = rng.uniform(46, 62)
    for side, mask in masks.items():
        canvas.paste(darkness, mask)
        canvas.add(_vessels(canvas, SIGN[side], rng), mask)
    _mediastinum(canvas, tissue, rng)
    _bones(canvas, wide - fat, deep - fat, rng)
    if spec.side is None:
        return None
    if spec.finding == "nodule":
        return _nodule(canvas, spec, rng)
    if spec.finding == "effusion":
        return _effusion(canvas, spec, masks[spec.side], tissue, rng)
    return _pneumothorax(canvas, spec, masks[spec.side], rng)


def _table(canvas: Canvas, rng: np.random.Generator) -> None:
    """The table under the patient: one bright arc."""
    depth = rng.uniform(0.80, 0.86)
    arc = [(-0.95, depth - 0.16), (-0.5, depth), (0.5, depth), (0.95, depth - 0.16)]
    canvas.line(smooth(arc, closed=False), rng.uniform(80, 150), 0.025)


def _lung(sign: int, rng: np.random.Generator) -> Points:
    """One lung in cross section, flat toward the mediastinum."""
    wide, front, back = rng.uniform(0.70, 0.76), rng.uniform(-0.52, -0.46), rng.uniform(0.47, 0.52)
    corners = [(0.14, -0.3), (0.26, front), (0.5, front), (wide, -0.2), (wide + 0.02, 0.15), (0.6, back), (0.3, back)]
    corners += [(0.16, 0.36), (0.22 if sign < 0 else 0.30, 0.05)]
    return smooth([(sign * x, y) for x, y in corners])


def _vessels(canvas: Canvas, sign: int, rng: np.random.Generator) -> Canvas:
    """Vessels from the hilum and some seen end on, as a layer to be added to the lung."""
    layer = canvas.layer()
    for _ in range(6):
        reach, angle = rng.uniform(0.2, 0.42), rng.uniform(-1.3, 1.3)
        start, end = (0.26, 0.05), (0.26 + reach * np.cos(angle), 0.05 + reach * np.sin(angle))
        layer.line(np.array([(sign * x, y) for x, y in (start, end)]), rng.uniform(25, 50), 0.018)
        dot = ellipse(sign * rng.uniform(0.3, 0.65), rng.uniform(-0.35, 0.4), 0.014, 0.014, corners=8)
        layer.fill(dot, rng.uniform(40, 80))
    return layer


def _mediastinum(canvas: Canvas, tissue: float, rng: np.random.Generator) -> None:
    """Heart, toward the patient's left, with a chamber full of contrast, and the aorta."""
    canvas.fill(smooth([(-0.16, -0.5), (0.18, -0.5), (0.22, 0.2), (0.14, 0.5), (-0.14, 0.5), (-0.18, 0.1)]), tissue + 6)
    x, y, wide = rng.uniform(0.06, 0.10), rng.uniform(-0.16, -0.10), rng.uniform(0.24, 0.28)
    canvas.fill(ellipse(x, y, wide, 0.24, tilt=rng.uniform(0.2, 0.6)), tissue + 22)
    contrast = rng.uniform(20, 65)
    canvas.fill(ellipse(x + 0.05, y + 0.03, 0.12, 0.10, tilt=0.4), tissue + contrast)
    canvas.fill(ellipse(0.12, 0.27, 0.065, 0.065), tissue + contrast)


def _bones(canvas: Canvas, wide: float, deep: float, rng: np.random.Generator) -> None:
    """Vertebra with its canal, sternum, and ribs cut obliquely around the wall."""
    bright = rng.uniform(205, 235)
    canvas.fill(ellipse(0, 0.42, 0.11, 0.10), bright)
    canvas.fill(np.array([(-0.16, 0.5), (0.16, 0.5), (0.03, 0.56), (0.02, 0.64), (-0.02, 0.64), (-0.03, 0.56)]), bright)
    canvas.fill(ellipse(0, 0.525, 0.045, 0.03, corners=12), 120)
    canvas.fill(ellipse(0, 0.05 - deep, 0.10, 0.03, corners=16), bright - 20)
    turn = rng.uniform(-0.15, 0.15)
    for sign in (-1, 1):
        for angle in np.array([-0.95, -0.35, 0.25, 0.8]) + turn:
            part = np.linspace(angle - 0.13, angle + 0.13, 5)
            rib = np.stack([sign * (wide - 0.05) * np.cos(part), (deep - 0.05) * np.sin(part)], axis=1)
            canvas.line(rib, bright - 15, 0.04)


def _nodule(canvas: Canvas, spec: Spec, rng: np.random.Generator) -> Image.Image:
    """A round, bright, solid opacity in the front or the back of one lung."""
    sign = SIGN[spec.side or "left"]
    radius = rng.uniform(*(SMALL_RADIUS if spec.size == "small" else LARGE_RADIUS))
    y = rng.uniform(-0.30, -0.22) if spec.zone == "anterior" else rng.uniform(0.20, 0.30)
    x = rng.uniform(0.46, 0.54)
    mask = canvas.mask(ellipse(sign * x, y, radius, radius * rng.uniform(0.88, 1.12), tilt=rng.uniform(0, 3)))
    canvas.paste(rng.uniform(190, 215), mask)
    return mask


def _effusion(canvas: Canvas, spec: Spec, lung: Image.Image, tissue: float, rng: np.random.Generator) -> Image.Image:
    """Fluid that layers in the dependent back of one pleural space, its surface rising along the wall."""
    sign = SIGN[spec.side or "left"]
    level = rng.uniform(0.24, 0.29) if spec.size == "small" else rng.uniform(-0.04, 0.04)
    surface = [(0.0, level), (0.3, level + 0.05), (0.55, level), (0.7, level - 0.1), (0.85, level - 0.2)]
    mask = canvas.mask(np.array([(sign * x, y) for x, y in [*surface, (0.9, 0.7), (0.0, 0.7)]]), within=lung)
    canvas.paste(tissue + rng.uniform(8, 22), mask)
    return mask


def _pneumothorax(canvas: Canvas, spec: Spec, lung: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Air that rises to the front of one pleural space: black, free of vessels, over a fine pleural line."""
    sign = SIGN[spec.side or "left"]
    level = rng.uniform(-0.24, -0.18) if spec.size == "small" else rng.uniform(0.06, 0.14)
    border = [(0.0, level - 0.06), (0.35, level - 0.06), (0.55, level), (0.68, level + 0.12), (0.85, level + 0.2)]
    line = smooth([(sign * x, y) for x, y in border], rounds=2, closed=False)
    mask = canvas.mask(np.concatenate([line, np.array([(sign * 0.9, -0.7), (0.0, -0.7)])]), within=lung)
    canvas.paste(2, mask)
    pleura = canvas.layer()
    pleura.line(line, 120, 0.024)
    canvas.add(pleura, lung)
    return mask
