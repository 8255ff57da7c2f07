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


def tiled() -> tuple[Any, Any]:
    """Return a LLaVA-NeXT, which cuts pictures into tiles of 56 pixels: model and processor."""
    from transformers import AutoModelForImageTextToText, LlavaNextConfig, LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    like, processor = GenericBackbone.tiny(56, "llava")
    side, grids = {"height": 56, "width": 56}, [[56, 112], [112, 56], [112, 112]]
    config = LlavaNextConfig(
        vision_config=like.config.vision_config,
        text_config=like.config.text_config,
        image_token_index=like.config.image_token_id,
        image_grid_pinpoints=grids,
        vision_feature_layer=-1,
    )
    made = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": 56}, crop_size=side, image_grid_pinpoints=grids
        ),
        tokenizer=processor.tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=processor.chat_template,
    )
    return AutoModelForImageTextToText.from_config(config, attn_implementation="eager"), made


def qwen3() -> tuple[Any, Any]:
    """Return a Qwen3-VL with projectors behind two blocks of its tower: model and processor."""
    from transformers import AutoModelForImageTextToText, Qwen3VLConfig, Qwen3VLProcessor

    from medvlm.models.backbones.generic_processor import assemble

    like, processor = GenericBackbone.tiny(SIDE, "qwen2_5_vl")
    own = like.config
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "mrope_interleaved": True, "rope_theta": 1e6}
    text = {
        name: getattr(own.text_config, name)
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    }
    vision = {"depth": 4, "hidden_size": 128, "intermediate_size": 256, "num_heads": 4, "out_hidden_size": 128}
    config = Qwen3VLConfig(
        vision_config={**vision, "patch_size": 14, "deepstack_visual_indexes": [1, 2], "num_position_embeddings": 64},
        text_config={**text, "num_key_value_heads": 2, "head_dim": 32, "rope_parameters": rope},
        image_token_id=own.image_token_id,
        video_token_id=own.video_token_id,
        vision_start_token_id=own.vision_start_token_id,
        vision_end_token_id=own.vision_end_token_id,
    )
    made = assemble(
        Qwen3VLProcessor, processor.image_processor, processor.tokenizer, chat_template=processor.chat_template
    )
    return AutoModelForImageTextToText.from_config(config, attn_implementation="eager"), made


def chat(model: Any, processor: Any) -> GenericBackbone:
    tokens = GenericBackbone.image_tokens_of(model.config)
    return GenericBackbone(processor, image_tokens=tokens, max_prefix_tokens=64, max_suffix_tokens=64)


def logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits [B, T, V] of all positions."""
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "logits_to_keep")}
    with torch.no_grad():
        found: torch.Tensor = model(**inputs, use_cache=False).logits
    return found
