"""Where the files that ship with medvlm lie: recipes, data cards, the packaged base model."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def shipped(folder: str) -> Path:
    """Return the folder `recipes` or `data_cards`: inside the wheel, or at the top of a checkout."""
    installed = PACKAGE / "shipped" / folder
    return installed if installed.is_dir() else PACKAGE.parent / folder
