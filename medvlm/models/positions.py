"""Image tokens of a square picture, and position embeddings for another size of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from medvlm.errors import RecipeError

if TYPE_CHECKING:
    import torch


def image_tokens(image_size: int, patch_size: int) -> int:
    """Return how many patches a square image has.

    Raises:
        RecipeError: the side is no multiple of the patch.
    """
    if image_size % patch_size:
        near = max(1, round(image_size / patch_size)) * patch_size
        raise RecipeError("recipe", [f"model.image_size: {image_size}: expected a multiple of {patch_size}, as {near}"])
    return (image_size // patch_size) ** 2


def resample_positions(grid: torch.Tensor, new_side: int) -> torch.Tensor:
    """Return position embeddings [new_side², D] resampled from [side², D].

    Linear between the old grid's corner points, as big_vision's `resample_posemb` does through
    `scipy.ndimage.zoom(order=1)`, whose corners coincide.
    """
    import torch

    side = math.isqrt(grid.shape[0])
    if side == new_side:
        return grid
    picture = grid.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    picture = torch.nn.functional.interpolate(picture, (new_side, new_side), mode="bilinear", align_corners=True)
    return picture.permute(0, 2, 3, 1).reshape(new_side**2, -1).to(grid.dtype)
