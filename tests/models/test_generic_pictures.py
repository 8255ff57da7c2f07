"""What pictures that keep their size, or are cut into tiles, cost a chat model, against what PyTorch counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from generic_tiny_models import chat, picture, qwen3, tiled
from torch.utils.flop_counter import FlopCounterMode

from medvlm.models.backbones.base import Example
from medvlm.models.backbones.generic import GenericBackbone
from medvlm.recipe.load import check
from medvlm.train.flops import FlopModel
from medvlm.train.memory_trace import Shape, Tracker, fake, fused, step

RECIPE = check({"name": "t", "model": {"id": "m", "backbone": "generic"}, "data": [{"path": "d"}]}, "t")


def own_sizes() -> tuple[Any, Any]:
    """Return a Qwen2.5-VL whose pictures keep their size."""
    model, processor = GenericBackbone.tiny(112, "qwen2_5_vl")
    model.config.vision_config.image_size = None
    pictures = processor.image_processor
    pictures.size = type(pictures)(size={"shortest_edge": 28**2, "longest_edge": 448**2}).size
    return model, processor


MAKERS = {"qwen2_5_vl": own_sizes, "qwen3_vl": qwen3, "llava_next": tiled}


@pytest.mark.parametrize("family", list(MAKERS))
def test_they_count_by_their_true_size_and_tiles(family: str) -> None:
    torch.manual_seed(0)
    model, processor = MAKERS[family]()
    model.set_attn_implementation("eager")
    # One row, for padding is not counted.
    several = (picture(1, (120, 120)), picture(2, (168, 56)))
    batch = chat(model, processor).collate([Example(picture(0, (60, 120)), "What is it?", "a nodule", None, several)])
    assert GenericBackbone.images_in(batch) == 3
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with FlopCounterMode(display=False) as counter:
        model.train()(**inputs, use_cache=False).logits.sum().backward()
    formula = FlopModel(model, RECIPE, GenericBackbone).batch(batch)
    # Of tiles some tokens pass the projector and are cut off then.
    assert formula == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_towers_with_a_table_of_positions_tell_their_tokens() -> None:
    from transformers import InternVLConfig, InternVLVisionConfig, LlamaConfig

    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**small, image_size=[56, 56], patch_size=[14, 14]).to_dict(),
        text_config=LlamaConfig(**small, vocab_size=99).to_dict(),
        image_token_id=7,
        image_seq_length=4,
    )
    flops = FlopModel(GenericBackbone.build(config.to_dict()), RECIPE, GenericBackbone)
    assert GenericBackbone.patch_size_of(config) == 56
    assert flops.tower_tokens == 17
    tiles = torch.ones(3, 3, 56, 56)
    ids = torch.tensor([[1, *[7] * 12, 5]])
    found = GenericBackbone.amounts_in(
        config,
        flops.tower_tokens,
        {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids, "pixel_values": tiles},
    )
    assert (found["vision_tower"], found["projector"]) == ((3 * 17, 3 * 17**2), (12, 0))
    assert GenericBackbone.image_size_of(config) == 56


def test_a_qwen3_is_planned_through_its_tower() -> None:
    config = qwen3()[0].config
    config.vision_config.image_size = 112
    with torch.device("meta"):
        model: Any = GenericBackbone.build(config.to_dict())
    with fake(model), fused():
        tracker = Tracker(model)
        with tracker:
            step(model.train(), RECIPE, GenericBackbone, Shape(rows=2, length=40, labels=8, images=2), tracker)
        found = {name for name, value in model.named_parameters() if value.grad is not None}
    assert any(name.startswith("model.visual.blocks.") for name in found)
