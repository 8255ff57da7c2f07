"""Chat models' operations by formula against those that PyTorch counts, and their plan's memory against real steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from medvlm.models import adapters
from medvlm.models.backbones import generic_memory
from medvlm.models.backbones.base import Example
from medvlm.models.backbones.generic import GenericBackbone
from medvlm.models.load import load_base
from medvlm.recipe.load import check
from medvlm.train.flops import FlopModel
from medvlm.train.memory_trace import Shape, Tracker, fake, fused, step

FAMILIES = ["smolvlm", "qwen2_5_vl", "gemma3", "llava", "idefics"]
LORA = {"kind": "lora", "r": 4}
WAYS: dict[str, dict[str, Any]] = {
    "lora": {"language_model": LORA},
    "projector": {"language_model": LORA, "projector": "full"},
    "all": {"language_model": "full", "projector": "full", "vision_tower": "full", "head": "full"},
}


def loaded(family: str, way: str) -> Any:
    raw = {
        "name": "t",
        "model": {
            "id": f"medvlm/tiny-random-{family}",
            "backbone": "generic",
            "dtype": "float32",
            "attention": "eager",
            "image_size": 112,
        },
        "data": [{"path": "d"}],
        "adapters": WAYS[way],
    }
    recipe = check(raw, "t")
    made = load_base(recipe)
    made.model = adapters.apply(made.model, recipe.adapters, GenericBackbone).train()
    return made, recipe


def example(seed: int, **more: Any) -> Example:
    pixels = np.random.default_rng(seed).integers(0, 255, (120, 120, 3), dtype=np.uint8)
    return Example(Image.fromarray(pixels), "What is there to be seen in it?", "a nodule in the left lung", **more)


def pictures() -> tuple[Image.Image, ...]:
    return tuple(one for seed in (3, 4) if (one := example(seed).image) is not None)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", ["lora", *(pytest.param(way, marks=pytest.mark.slow) for way in ("projector", "all"))])
def test_operations_are_those_that_pytorch_counts(family: str, way: str) -> None:
    made, recipe = loaded(family, way)
    batch = made.backbone.collate([example(0), example(1)] if way == "lora" else [example(2, more_images=pictures())])
    assert GenericBackbone.images_in(batch) == (2 if way == "lora" else 3)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with FlopCounterMode(display=False) as counter:
        made.model(**inputs, use_cache=False).logits.sum().backward()
    formula = FlopModel(made.model, recipe, GenericBackbone).batch(batch)
    # Of IDEFICS's layers that look at pictures it is a mean; of LLaVA's tower the last of four layers has no backward.
    near = {"idefics": 0.08, "llava": 0.07 if way == "all" else 0.01}.get(family, 0.03)
    assert formula == pytest.approx(counter.get_total_flops(), rel=near)


@pytest.mark.parametrize(
    "family", [f if f in ("qwen2_5_vl", "idefics") else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES]
)
def test_a_plan_makes_as_many_features_and_gradients_as_a_real_step(family: str) -> None:
    made, recipe = loaded(family, "all")
    batch = made.backbone.collate([example(0), example(1)])
    made.backbone.losses(made.model, batch)[0].backward()
    real = {name for name, parameter in made.model.named_parameters() if parameter.grad is not None}
    with torch.device("meta"):
        model = GenericBackbone.build(made.model.config.to_dict())
    tokens, labels = batch["input_ids"].shape[1], int(batch["logits_to_keep"].sum()) // 2
    shape = Shape(rows=2, length=tokens, labels=labels, images=2)
    with fake(model), fused():
        tracker = Tracker(model)
        with tracker:
            step(model.train(), recipe, GenericBackbone, shape, tracker)
        found = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    # IDEFICS's head has a part for added tokens, whose logits the plan leaves out.
    assert {name for name in real ^ found if "additional" not in name} == set()
    assert tracker.peak["activations"] > 0


@pytest.mark.parametrize("side", [56, 112, 140, 448])
def test_windows_of_a_planned_picture_are_those_that_the_tower_cuts(side: int) -> None:
    from transformers.vision_utils import get_vision_window_index

    vision = GenericBackbone.tiny(112, "qwen2_5_vl")[0].config.vision_config
    grid = torch.tensor([[1, side // 14, side // 14]])
    _, ends = get_vision_window_index(grid, 2, vision.window_size, vision.patch_size)
    assert generic_memory._windows((side // 28) ** 2, vision) == ends.diff().tolist()
