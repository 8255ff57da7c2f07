"""The tiny chat models of every family, made once, and examples to ask them about."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medvlm.models.backbones.base import Example
from medvlm.models.backbones.generic import GenericBackbone
from medvlm.models.backbones.generic_tiny import FAMILIES as MADE

FAMILIES = list(MADE)
EACH = [pytest.param(family, marks=pytest.mark.slow) if family == "idefics3" else family for family in FAMILIES]
"""SmolVLM's model is Idefics3's under another name."""
SIDE = 112


@functools.cache
def untrained(family: str) -> tuple[Any, Any]:
    """Return model and processor; not to be changed."""
    torch.manual_seed(0)
    model, processor = GenericBackbone.tiny(SIDE, family)
    GenericBackbone.resize(model, processor, SIDE)
    return model.eval(), processor


def backbone(family: str, prefix: int = 64, suffix: int = 64) -> GenericBackbone:
    model, processor = untrained(family)
    tokens = GenericBackbone.image_tokens_of(model.config)
    return GenericBackbone(processor, image_tokens=tokens, max_prefix_tokens=prefix, max_suffix_tokens=suffix)


def picture(seed: int = 0, size: tuple[int, int] = (150, 90)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def mixed() -> list[Example]:
    """Return examples with one picture, none, two, and few-shot examples with one and two pictures."""
    return [
        Example(picture(1), "What is seen?", "a small nodule in the left lung"),
        Example(None, "Which side is the left one, and what of the other side?", "right"),
        Example(picture(2, (90, 160)), "Compare them.", "no change", more_images=(picture(3),)),
        Example(
            picture(4),
            "Which side?",
            "left",
            shots=(
                Example(picture(5), "Which side?", "the right one"),
                Example(picture(6), "Which side?", "none", more_images=(picture(7),)),
            ),
        ),
    ]


def logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits [B, T, V] of all positions."""
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "logits_to_keep")}
    with torch.no_grad():
        found: torch.Tensor = model(**inputs, use_cache=False).logits
    return found
