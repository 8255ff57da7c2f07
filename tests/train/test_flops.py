"""Operations by formula against those that PyTorch counts while a real model runs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from medvlm.models import adapters
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import Example
from medvlm.models.load import load_base, planned_config
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe
from medvlm.train.collate import Collator
from medvlm.train.flops import FlopModel
from medvlm.train.loss import forward_loss

ROWS, TEXT, LABELS = 2, 40, 16
LLAMA = {"vision_tower": "openai/clip-vit-base-patch16", "language_model": "meta-llama/Llama-2-7b-hf"}
OPT = {"vision_tower": "openai/clip-vit-base-patch16", "language_model": "facebook/opt-350m"}
MPT = {"vision_tower": "openai/clip-vit-base-patch16", "language_model": "mosaicml/mpt-7b"}
PALIGEMMA = {"id": "google/paligemma-3b-pt-224"}
TINY = {"id": "medvlm/tiny-random"}
LORA = {"kind": "lora", "r": 8}


def recipe_of(model: dict[str, Any], parts: dict[str, Any], **train: Any) -> Recipe:
    backbone = "paligemma" if "id" in model else "git_llm"
    raw = {
        "name": "t",
        "model": {**model, "backbone": backbone, "dtype": "float32"},
        "adapters": parts,
        "data": [{"path": "d"}],
        "train": train,
    }
    return check(raw, "t")


def counted(model: Any, image_tokens: int) -> int:
    """Return what PyTorch counts in one training step on the meta device, logits at the label positions only."""
    side = model.config.vision_config.image_size
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        found = model.get_image_features(torch.empty(ROWS, 3, side, side))
        found = found if isinstance(found, torch.Tensor) else found.pooler_output
        words = model.get_input_embeddings()(torch.zeros(ROWS, TEXT, dtype=torch.long))
        length = image_tokens + TEXT
        outputs = model(
            inputs_embeds=torch.cat([found, words], dim=1),
            attention_mask=torch.zeros(ROWS, 1, length, length),
            position_ids=torch.zeros(ROWS, length, dtype=torch.long),
            logits_to_keep=torch.zeros(LABELS, dtype=torch.long),
            use_cache=False,
        )
        outputs.logits.sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (TINY, {"language_model": LORA}),
        (TINY, {"language_model": {**LORA, "modules": ["q_proj", "v_proj"]}, "projector": "full"}),
        (TINY, {"language_model": "frozen", "projector": "full"}),
        (TINY, {"language_model": "full", "projector": "full", "vision_tower": "full"}),
        (TINY, {"language_model": "frozen", "vision_tower": LORA, "head": "full"}),
        pytest.param(PALIGEMMA, {"language_model": LORA}, marks=pytest.mark.slow),
        pytest.param(PALIGEMMA, {"language_model": "full"}, marks=pytest.mark.slow),
        pytest.param(
            PALIGEMMA, {"language_model": LORA, "projector": "full", "vision_tower": LORA}, marks=pytest.mark.slow
        ),
        (LLAMA, {"language_model": {**LORA, "modules": ["q_proj", "k_proj", "v_proj"]}, "projector": "full"}),
        pytest.param(
            LLAMA, {"language_model": "frozen", "projector": "full", "vision_tower": "full"}, marks=pytest.mark.slow
        ),
        pytest.param(OPT, {"language_model": "full", "projector": "full", "head": "full"}, marks=pytest.mark.slow),
        pytest.param(OPT, {"language_model": LORA, "projector": "full"}, marks=pytest.mark.slow),
        pytest.param(
            MPT, {"language_model": {**LORA, "modules": ["Wqkv"]}, "projector": "full"}, marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
def test_operations_are_those_that_pytorch_counts(model: dict[str, Any], parts: dict[str, Any]) -> None:
    recipe = recipe_of(model, parts)
    kind = BACKBONES.get(recipe.model.backbone)
    with torch.device("meta"):
        made: Any = kind.build(planned_config(recipe))
    made = adapters.apply(made, recipe.adapters, kind)
    made.train()
    tokens = kind.image_tokens_of(made.config)
    ours = FlopModel(made, recipe, kind).training([tokens + TEXT] * ROWS, ROWS * LABELS, ROWS)
    assert ours.useful == pytest.approx(counted(made, tokens), rel=0.01)
    assert ours.recomputed == 0


def test_a_real_step_on_the_processor_takes_what_the_formula_says(tiny_folder: Path) -> None:
    recipe = recipe_of({"id": str(tiny_folder), "attention": "eager"}, {"language_model": LORA, "projector": "full"})
    loaded = load_base(recipe)
    kind = BACKBONES.get("paligemma")
    # The tower as well: sdpa's kernel for the processor is not counted.
    loaded.model.set_attn_implementation("eager")  # type: ignore[operator]
    model = adapters.apply(loaded.model, recipe.adapters, kind).train()
    inputs = loaded.backbone.collate([Example(Image.new("RGB", (40, 40)), "caption en", "a nodule in the left lung")])
    formula = FlopModel(model, recipe, kind).batch(inputs)
    with FlopCounterMode(display=False) as counter:
        forward_loss(model, inputs)[0].backward()  # type: ignore[no-untyped-call]
    assert formula == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("packed", [False, True])
def test_padding_and_packing_cost_no_operations(tiny_folder: Path, packed: bool) -> None:
    recipe = recipe_of({"id": str(tiny_folder)}, {"language_model": LORA})
    loaded = load_base(recipe)
    kind = BACKBONES.get("paligemma")
    model = FlopModel(adapters.apply(loaded.model, recipe.adapters, kind), recipe, kind)
    texts = ["no", "a large left pleural effusion with a nodule.", "clear", "Findings: no acute change."]
    examples = [Example(Image.new("RGB", (40, 40)), "caption en", text) for text in texts]
    alone = sum(model.batch(loaded.backbone.collate([example])) for example in examples)
    assert model.batch(Collator(loaded.backbone, packed, None)(examples)) == alone


def test_checkpointing_adds_a_forward_of_what_gets_gradients_and_nothing_useful() -> None:
    plain, again = (recipe_of(TINY, {"language_model": LORA}, activation_checkpointing=on) for on in (False, True))
    kind = BACKBONES.get("paligemma")
    with torch.device("meta"):
        model = adapters.apply(kind.build(planned_config(plain)), plain.adapters, kind)
    first, second = (FlopModel(model, recipe, kind).training([104], 16, 1) for recipe in (plain, again))
    assert first.useful == second.useful
    assert first.recomputed == 0
    assert second.recomputed == second.parts["language_model"].forward
    assert second.parts["vision_tower"].recomputed == 0


def test_cached_features_spare_the_tower_and_the_model_travels_to_workers() -> None:
    recipe = recipe_of(TINY, {"language_model": LORA})
    kind = BACKBONES.get("paligemma")
    with torch.device("meta"):
        model = adapters.apply(kind.build(planned_config(recipe)), recipe.adapters, kind)
    cached = recipe.model_copy(update={"data": [recipe.data[0].model_copy(update={"cache_features": True})]})
    with_tower, without = (FlopModel(model, one, kind) for one in (recipe, cached))
    parts = with_tower.training([104], 16, 1).parts
    assert without.training([104], 16, 1).useful == with_tower.training([104], 16, 1).useful - sum(
        (parts["vision_tower"].forward, parts["vision_tower"].backward)
    )
    assert pickle.loads(pickle.dumps(without)).training([104], 16, 1) == without.training([104], 16, 1)
