"""Tiny GIT, BLIP-2 and InstructBLIP with weights that make attention far from flat, so that what leaks shows."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from PIL import Image

from medvlm.models.backbones.base import Backbone, Example
from medvlm.models.backbones.blip2 import Blip2Backbone
from medvlm.models.backbones.git import GitBackbone

KINDS: dict[str, tuple[type[Backbone], str | None]] = {
    "git": (GitBackbone, None),
    "blip2": (Blip2Backbone, None),
    "instructblip": (Blip2Backbone, "instructblip"),
}
SIZE = 56
"""4 x 4 patches."""


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (90, 70, 3), dtype=np.uint8))


def fresh(name: str) -> tuple[Any, Any]:
    """Return model and processor."""
    kind, family = KINDS[name]
    torch.manual_seed(0)
    model, processor = kind.tiny(SIZE, family)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.12)
    return model.eval(), processor


@functools.cache
def shared(name: str) -> tuple[Any, Any]:
    """Return model and processor that no test may change for good."""
    return fresh(name)


def backbone_of(name: str, processor: Any, prefix: int = 64, suffix: int = 64) -> Any:
    kind = KINDS[name][0]
    tokens = kind.image_tokens_of(shared(name)[0].config)
    return kind(processor, image_tokens=tokens, max_prefix_tokens=prefix, max_suffix_tokens=suffix)


PAIRS = [
    ("Question: is there a nodule? Answer:", "yes, a small one in the left lung"),
    ("", "a chest radiograph."),
    ("Where?", "right"),
]


def examples(*which: int) -> list[Example]:
    return [Example(picture(place), *PAIRS[place]) for place in which or range(len(PAIRS))]


def taken(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what the model takes to give all logits."""
    return {name: value for name, value in batch.items() if name not in ("labels", "logits_to_keep", "example_ids")}
