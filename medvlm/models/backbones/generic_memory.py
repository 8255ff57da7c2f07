"""A training step's inputs on tensors without contents, for the plan of its memory: pictures through every tower.

What a tower works out from the numbers of a picture's grid (positions, windows) is given to it here, for such tensors
have no numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from medvlm.models.backbones import generic_families as families

if TYPE_CHECKING:
    from medvlm.train.memory_trace import Shape


def inputs(model: Any, shape: Shape, device: torch.device) -> dict[str, Any]:
    """Return the inputs of one batch: embeddings with the pictures in them; IDEFICS takes the pictures apart.

    Of a family that is not known by name the tower's own passing memory is left out, and what Qwen3-VL adds to the
    features of its decoder's first layers.

    Args:
        model: on tensors without contents (see `train.memory_trace`).
        shape: of the batch.
        device: of the tensors.
    """
    config: Any = model.config
    eager = config.get_text_config()._attn_implementation == "eager"
    square = (shape.rows, 1, shape.length, shape.length)
    # Qwen has a position in time, in height and in width.
    axes = (3, shape.rows, shape.length) if config.model_type in families.QWEN else (shape.rows, shape.length)
    given = {
        "attention_mask": torch.zeros(square, device=device, dtype=torch.float32 if eager else torch.bool),
        "position_ids": torch.zeros(axes, dtype=torch.long, device=device),
        "logits_to_keep": torch.zeros(shape.labels, dtype=torch.long, device=device),
    }
    if config.model_type == "idefics":
        return {**given, **_beside(model, shape, device)}
    seen = _features(model, shape.images, device)
    words = shape.rows * shape.length - shape.images * families.image_tokens(config)
    text = model.get_input_embeddings()(torch.zeros(1, words, dtype=torch.long, device=device))
    embeds = torch.cat([seen.reshape(1, -1, seen.shape[-1]).to(text.dtype), text], dim=1)
    return {**given, "inputs_embeds": embeds.reshape(shape.rows, shape.length, -1)}


def _beside(model: Any, shape: Shape, device: torch.device) -> dict[str, Any]:
    """Return IDEFICS's text and, apart, its pictures, a like number in each row."""
    pictures, side = max(1, shape.images // shape.rows), int(model.config.vision_config.image_size)
    # Its own way of looking tokens up goes by their numbers.
    weight = model.get_input_embeddings().weight
    text = torch.nn.functional.embedding(torch.zeros(shape.rows, shape.length, dtype=torch.long, device=device), weight)
    return {
        "inputs_embeds": text,
        "attention_mask": torch.ones(shape.rows, shape.length, dtype=torch.long, device=device),
        "pixel_values": torch.empty(shape.rows, pictures, 3, side, side, device=device),
        "image_attention_mask": torch.ones(shape.rows, shape.length, pictures, dtype=torch.long, device=device),
    }


def _features(model: Any, images: int, device: torch.device) -> torch.Tensor:
    """Return what the projector makes of the pictures [images x tokens, D]."""
    config: Any = model.config
    # Without PEFT's wrapper, whose attributes are others.
    bare: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    if config.model_type in families.QWEN:
        return _qwen(bare, images, device)
    if config.model_type not in families.COMPONENTS:
        tokens = images * families.image_tokens(config)
        return torch.empty(tokens, config.get_text_config().hidden_size, device=device, dtype=model.dtype)
    side = int(config.vision_config.image_size)
    pictures = torch.empty(images, 3, side, side, device=device)
    if config.model_type in families.IDEFICS3:
        found: Any = bare.model.connector(bare.model.vision_model(pixel_values=pictures).last_hidden_state)
    else:
        found = bare.get_image_features(pictures).pooler_output
    # LLaVA gives a list.
    whole = found if isinstance(found, torch.Tensor) else torch.cat(list(found))
    return whole.reshape(-1, whole.shape[-1])


class _Lengths:
    """Stands for the ends of runs of tokens [N + 1], of which attention takes the differences as a list."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __getitem__(self, part: slice) -> _Lengths:
        return self

    def __sub__(self, other: _Lengths) -> _Lengths:
        return self

    def tolist(self) -> list[int]:
        """Return the lengths of the runs."""
        return self.lengths


def _qwen(model: Any, images: int, device: torch.device) -> torch.Tensor:
    config: Any = model.config
    vision = config.vision_config
    merged, unit = families.image_tokens(config), vision.spatial_merge_size**2
    patches = images * merged * unit
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    given: dict[str, Any] = {
        "position_ids": torch.zeros(patches, 2, dtype=torch.long, device=device),
        "cu_seqlens": _Lengths([merged * unit] * images),
    }
    if config.model_type == "qwen2_5_vl":
        given["window_index"] = torch.zeros(patches // unit, dtype=torch.long, device=device)
        given["cu_window_seqlens"] = _Lengths(_windows(merged, vision) * images)
    if config.model_type == "qwen3_vl":
        given["interp_indices"] = torch.zeros(patches, 4, dtype=torch.long, device=device)
        given["interp_weights"] = torch.empty(patches, 4, device=device)
    pixels = torch.empty(patches, width, device=device, dtype=model.dtype)
    found: torch.Tensor = model.model.visual(pixels, grid_thw=None, **given).pooler_output
    return found


def _windows(merged: int, vision: Any) -> list[int]:
    """Return the patches of each window of a square picture of so many merged patches."""
    side = round(merged**0.5)
    wide = vision.window_size // vision.spatial_merge_size // vision.patch_size
    runs = [min(wide, side - start) for start in range(0, side, wide)]
    return [rows * columns * vision.spatial_merge_size**2 for rows in runs for columns in runs]
