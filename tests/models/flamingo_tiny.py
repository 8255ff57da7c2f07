"""Tiny Flamingos of every family of decoders, their gates open or closed, and rows with pictures in them."""

from __future__ import annotations

from typing import Any

import torch
from git_llm_tiny import FAMILIES as GIT_FAMILIES
from git_llm_tiny import IMAGE_SIZE, VOCABULARY, text_config, vision_config

from medvlm.models.backbones.rows import pad_prompts, pad_rows
from medvlm.models.flamingo import FlamingoConfig, FlamingoForConditionalGeneration
from medvlm.models.flamingo.processing import by_row

IMAGE, CHUNK = VOCABULARY + 3, VOCABULARY + 4
"""Past the vocabulary: the language model has no row for them."""
START, END = 1, 2
LATENTS = 8
FAMILIES = [*GIT_FAMILIES, "bloom"]


def text_of(family: str) -> Any:
    if family != "bloom":
        return text_config(family)
    from transformers import BloomConfig

    return BloomConfig(hidden_size=64, n_layer=2, n_head=4, vocab_size=VOCABULARY)


def model_of(family: str, attention: str = "sdpa", *, opened: bool = True, **sizes: Any) -> Any:
    """Weights large enough that attention is far from flat and what leaks shows; gates 0 or well open."""
    torch.manual_seed(0)
    config = FlamingoConfig(
        vision_config=vision_config(),
        text_config=sizes.pop("text_config", None) or text_of(family),
        image_token_id=IMAGE,
        chunk_token_id=CHUNK,
        **{
            "latents": LATENTS,
            "resampler_layers": 2,
            "heads": 4,
            "head_dim": 16,
            "feed_forward": 2,
            **sizes,
        },
    )
    config._attn_implementation = attention
    model = FlamingoForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
        embedded = model.get_input_embeddings()(torch.tensor([START, END]))
        model.projector.tokens.weight.copy_(embedded)
        if opened:
            open_gates(model)
    return model


@torch.no_grad()
def open_gates(model: Any, attention: float = 1.0, feed_forward: float = 0.5) -> None:
    for block in model.projector.blocks:
        block.attention_gate.fill_(attention)
        block.feed_forward_gate.fill_(feed_forward)


def pictures(count: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(seed))


def rows(prompts: list[list[int]], drawn: torch.Tensor | None = None, side: str = "right") -> dict[str, torch.Tensor]:
    """Model inputs of token lists, their pictures taken in order from `drawn`."""
    counts = [row.count(IMAGE) for row in prompts]
    values = pictures(sum(counts)) if drawn is None else drawn
    shown = by_row(values, counts) if sum(counts) else torch.zeros(len(prompts), 1, 3, IMAGE_SIZE, IMAGE_SIZE)
    if side == "left":
        made = pad_prompts(prompts, 0)
    else:
        made = pad_rows(prompts, [[] for _ in prompts], 0)
        del made["labels"], made["logits_to_keep"]
    return {**made, "pixel_values": shown, "image_counts": torch.tensor(counts)}


@torch.no_grad()
def logits_of(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    found: torch.Tensor = model(**inputs, use_cache=False).logits
    return found
