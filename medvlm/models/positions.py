"""Image tokens of a square picture, and position embeddings for another size of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

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


def resize_embeddings(embeddings: Any, image_size: int, *, class_token: bool = False) -> bool:
    """Give a CLIP or SigLIP tower's embeddings another image size; return whether positions had to be resampled.

    Args:
        embeddings: the module that holds `position_embedding` and `patch_embedding`.
        image_size: side of the square image in pixels.
        class_token: the first position is no patch's, and stays as it is.
    """
    import torch

    if embeddings.image_size == image_size:
        return False
    tokens = image_tokens(image_size, embeddings.patch_size)
    old = embeddings.position_embedding.weight
    first = old.data[:1] if class_token else old.data[:0]
    grid = resample_positions(old.data[len(first) :], image_size // embeddings.patch_size)
    new = torch.cat([first, grid])
    embeddings.position_embedding = torch.nn.Embedding(*new.shape)
    embeddings.position_embedding.weight = torch.nn.Parameter(new, requires_grad=old.requires_grad)
    embeddings.image_size, embeddings.num_patches, embeddings.num_positions = image_size, tokens, len(new)
    embeddings.position_ids = torch.arange(len(new), device=old.device).expand((1, -1))
    return True
