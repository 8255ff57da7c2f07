"""The plan of a run before anything is trained: parameters by component, what is 4-bit, steps, tokens, license."""

from __future__ import annotations

import dataclasses
from typing import Any

from medvlm.data.mixture import Mixture
from medvlm.models import adapters, quantize
from medvlm.models.backbones import BACKBONES
from medvlm.models.load import planned_config
from medvlm.models.locate import is_local, locate_parts
from medvlm.recipe.models import Recipe
from medvlm.train.collate import prefix

SAMPLED = 1000
"""From so many rows the number of text tokens is taken, and scaled to all."""


@dataclasses.dataclass(slots=True)
class Plan:
    """What a recipe would do."""

    census: dict[str, adapters.Count]
    lora_modules: int
    quantized_modules: int
    image_tokens: int
    rows: int
    steps: int
    tokens: int
    tokens_are: str
    """How `tokens` was found: "counted", "sampled" or "estimated"."""


def make_plan(recipe: Recipe, mixture: Mixture) -> Plan:
    """Return the plan; the model is built without weights, so it takes no memory and no network.

    Raises:
        AccessError, InputError, RecipeError: as in loading the model.
    """
    import torch

    from medvlm.train.loop import updates

    config = planned_config(recipe)
    kind = BACKBONES.get(recipe.model.backbone)
    with torch.device("meta"):
        model = kind.build(config)
    quantized = quantize.would_be_quantized(model, kind) if recipe.quantization.mode != "none" else []
    model = adapters.apply(model, recipe.adapters, kind)
    tokens = kind.image_tokens_of(model.config)
    text, how = _text_tokens(recipe, mixture, tokens)
    steps = updates(recipe, len(mixture))
    seen = steps * recipe.train.batch_size * recipe.train.gradient_accumulation
    return Plan(
        census=adapters.census(model, kind, set(quantized)),
        lora_modules=sum(1 for _, module in model.named_modules() if hasattr(module, "lora_A")),
        quantized_modules=len(quantized),
        image_tokens=tokens,
        rows=len(mixture),
        steps=steps,
        tokens=round(seen * (tokens + text)),
        tokens_are=how,
    )


def _text_tokens(recipe: Recipe, mixture: Mixture, images: int) -> tuple[float, str]:
    """Return the mean number of text tokens a row, and how it was found."""
    places = range(0, len(mixture), max(1, len(mixture) // SAMPLED))
    texts = [mixture.text(place) for place in places]
    pairs = [(prefix(text, recipe.prompts), str(text["target"])) for text in texts]
    here = all(map(is_local, recipe.model.parts.values()))
    paths = [part.path for part in locate_parts(recipe.model).values()] if here else []
    if not paths or None in paths:
        # About 1.3 tokens a word in English with a large vocabulary.
        limit = recipe.text.max_prefix_tokens + recipe.text.max_suffix_tokens
        words = [min(limit, round(1.3 * len(f"{a} {b}".split())) + 3) for a, b in pairs]
        return sum(words) / max(1, len(words)), "estimated"
    from transformers import AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(str(paths[0]), local_files_only=True, backend="pil")
    backbone = BACKBONES.get(recipe.model.backbone)(
        processor,
        image_tokens=images,
        max_prefix_tokens=recipe.text.max_prefix_tokens,
        max_suffix_tokens=recipe.text.max_suffix_tokens,
    )
    counts = [sum(backbone.text_tokens(a, b)) for a, b in pairs]
    return sum(counts) / max(1, len(counts)), "counted" if len(texts) == len(mixture) else "sampled"
