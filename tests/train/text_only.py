"""Takes the picture from every third training example, which then asks about nothing but its words."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from medvlm.train.collate import Examples


def without_some_pictures(patch: pytest.MonkeyPatch | None = None) -> None:
    """Change `Examples` for this process, or for as long as `patch` lasts."""
    whole = Examples.__getitem__

    def some(self: Any, index: int) -> Any:
        example = whole(self, index)
        return example if index % 3 else dataclasses.replace(example, image=None)

    (patch or pytest.MonkeyPatch()).setattr(Examples, "__getitem__", some)
