"""Cheap statistics of a picture's small copy: can it be a scan, or is it plainly drawn?"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class Traits:
    """Shares (0 to 1) of the small copy's 4096 pixels, but for `colors` (a count of 512 coarse ones)."""

    white: float
    black: float
    gray: float
    """Pixels without color."""
    middle: float
    """Pixels without color that are neither nearly white nor nearly black."""
    colors: int

    @property
    def drawn(self) -> bool:
        """True for lines and letters on white: plots, diagrams, tables."""
        return self.white > 0.6 and self.black < 0.15

    @property
    def scan(self) -> bool:
        """True for gray pictures that are mostly shades on dark, as scans are."""
        return self.gray > 0.97 and self.white < 0.3 and self.middle > 0.2


def traits(thumb: np.ndarray) -> Traits:
    """Return the statistics of `thumb`, uint8 [H, W, 3]."""
    pixels = thumb.reshape(-1, 3).astype(np.int16)
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    gray = high - low <= 16
    white, black = low >= 235, high <= 25
    coarse = (pixels >> 5) @ np.array([64, 8, 1], dtype=np.int16)
    return Traits(
        white=float(white.mean()),
        black=float(black.mean()),
        gray=float(gray.mean()),
        middle=float((gray & ~white & ~black).mean()),
        colors=int(np.unique(coarse).size),
    )
