"""What is 4-bit and what is trained, by component, on a tiny model of the real classes; and the CPU traps mended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medvlm.errors import InputError, RecipeError
from medvlm.models import adapters, quantize
from medvlm.models.backbones.base import Example
from medvlm.models.backbones.paligemma import PaliGemmaBackbone
from medvlm.models.load import Loaded, load_base
from medvlm.models.positions import image_tokens, resample_positions
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe
from medvlm.train.loss import suffix_loss


def recipe(folder: Path | str, **changes: Any) -> Recipe:
    raw: dict[str, Any] = {
        "name": "t",
        "model": {"id": str(folder), "dtype": "float32"},
        "quantization": {"mode": "nf4", "compute_dtype": "float32"},
        "adapters": {"language_model": {"kind": "lora", "r": 4}, "projector": "full"},
        "data": [{"path": "d"}],
    }
    return check({**raw, **changes}, "test")


def tuned(tiny_folder: Path, **changes: Any) -> Loaded:
    made = recipe(tiny_folder, **changes)
    loaded = load_base(made)
    loaded.model = adapters.apply(loaded.model, made.adapters, PaliGemmaBackbone)
    adapters.trainable_in_float32(loaded.model)
    return loaded


def batch(loaded: Loaded) -> dict[str, torch.Tensor]:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))
    pairs = [("caption en", "a small nodule"), ("answer en is it left?", "yes")]
    return loaded.backbone.collate([Example(image, *pair) for pair in pairs])


def gradients(loaded: Loaded) -> dict[str, torch.Tensor]:
    loaded.model.train()
    loaded.model.zero_grad()
    inputs = batch(loaded)
    labels = inputs.pop("labels")
    suffix_loss(loaded.model(**inputs, use_cache=False).logits, labels).backward()
    return {n: p.grad.clone() for n, p in loaded.model.named_parameters() if p.grad is not None}


def test_only_the_language_model_is_quantized_and_only_what_was_asked_is_trained(tiny_folder: Path) -> None:
    loaded = tuned(tiny_folder)
    names = quantize.quantized_modules(loaded.model)
    layers = loaded.model.config.text_config.num_hidden_layers
    assert len(names) == 7 * layers
    assert all(".language_model." in name for name in names)
    trained = [n for n, p in loaded.model.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in n or "multi_modal_projector.modules_to_save" in n for n in trained)
    assert sum("lora_A" in n for n in trained) == 7 * layers
    assert not any("vision_tower" in n for n in trained)
    counts = adapters.census(loaded.model, PaliGemmaBackbone)
    assert counts["vision_tower"].trainable == counts["vision_tower"].quantized == 0
    assert counts["embeddings"].quantized == 0
    hidden = loaded.model.config.text_config.hidden_size
    vision = loaded.model.config.vision_config.hidden_size
    assert counts["projector"].trainable == counts["projector"].total == vision * hidden + hidden


def test_census_of_the_plan_equals_that_of_the_loaded_model(tiny_folder: Path) -> None:
    loaded = tuned(tiny_folder)
    with torch.device("meta"):
        planned = PaliGemmaBackbone.build(loaded.model.config.to_dict())
    names = set(quantize.would_be_quantized(planned, PaliGemmaBackbone))
    planned = adapters.apply(planned, recipe(tiny_folder).adapters, PaliGemmaBackbone)
    assert adapters.census(planned, PaliGemmaBackbone, names) == adapters.census(loaded.model, PaliGemmaBackbone)


def test_gradients_are_the_same_before_and_after_generating(tiny_folder: Path) -> None:
    # compute in bfloat16 is what takes the AVX512-BF16 path where the machine has it
    loaded = tuned(tiny_folder, quantization={"mode": "nf4", "compute_dtype": "bfloat16"})
    before = gradients(loaded)
    loaded.model.eval()
    prompts = loaded.backbone.collate_prompts([Example(Image.new("RGB", (50, 50)), "caption en")])
    loaded.model.generate(**prompts, max_new_tokens=4, do_sample=False)
    after = gradients(loaded)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


def test_adapter_and_projector_come_back_from_disk(tiny_folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    loaded = tuned(tiny_folder)
    for parameter in loaded.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    inputs = batch(loaded)
    inputs.pop("labels")
    loaded.model.eval()
    with torch.no_grad():
        expected = loaded.model(**inputs).logits
    loaded.model.save_pretrained(tmp_path / "adapter")
    again = load_base(recipe(tiny_folder))
    model = PeftModel.from_pretrained(again.model, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        assert torch.allclose(model(**inputs).logits, expected, atol=1e-5)
        with model.disable_adapter():
            assert not torch.allclose(model(**inputs).logits, expected, atol=1e-3)


def test_modules_that_match_nothing_are_refused(tiny_folder: Path) -> None:
    loaded = load_base(recipe(tiny_folder))
    wrong = recipe(tiny_folder, adapters={"language_model": {"kind": "lora", "modules": ["query"]}})
    with pytest.raises(RecipeError, match="no linear layer of the language_model"):
        adapters.apply(loaded.model, wrong.adapters, PaliGemmaBackbone)


def test_whole_components_without_lora(tiny_folder: Path) -> None:
    made = recipe(
        tiny_folder, adapters={"language_model": "frozen", "projector": "full"}, quantization={"mode": "none"}
    )
    loaded = load_base(made)
    model = adapters.apply(loaded.model, made.adapters, PaliGemmaBackbone)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"model.multi_modal_projector.linear.weight", "model.multi_modal_projector.linear.bias"}


@pytest.mark.parametrize(("side", "new"), [(8, 32), (8, 5), (3, 3), (16, 17)])
def test_position_embeddings_are_resampled_linearly_with_fixed_corners(side: int, new: int) -> None:
    """The same as scipy.ndimage.zoom(order=1), written out: corners stay, between them lines are straight."""
    grid = torch.randn(side * side, 6, generator=torch.Generator().manual_seed(1))
    found = resample_positions(grid, new).reshape(new, new, 6)
    square = grid.reshape(side, side, 6)
    for row in range(new):
        for column in range(new):
            y, x = row * (side - 1) / (new - 1), column * (side - 1) / (new - 1)
            top, left = min(int(y), side - 2), min(int(x), side - 2)
            dy, dx = y - top, x - left
            upper = square[top, left] * (1 - dx) + square[top, left + 1] * dx
            lower = square[top + 1, left] * (1 - dx) + square[top + 1, left + 1] * dx
            assert torch.allclose(found[row, column], upper * (1 - dy) + lower * dy, atol=1e-5)


def test_image_size_must_fit_the_patches() -> None:
    assert image_tokens(448, 14) == 1024
    with pytest.raises(RecipeError, match="multiple of 14, as 448"):
        image_tokens(450, 14)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)).save_pretrained(
        tmp_path
    )
    with pytest.raises(InputError, match="is a bert model; expected paligemma"):
        load_base(recipe(tmp_path))
