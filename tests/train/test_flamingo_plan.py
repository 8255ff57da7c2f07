"""A Flamingo's plan: operations by formula against those that PyTorch counts, memory against a real step's."""

from __future__ import annotations

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
from medvlm.train.flops import FlopModel
from medvlm.train.loss import forward_loss
from medvlm.train.memory_trace import Shape

TINY = {"id": "medvlm/tiny-random"}
OPT = {"vision_tower": "openai/clip-vit-base-patch16", "language_model": "facebook/opt-350m"}
LLAMA = {"vision_tower": "google/siglip-base-patch16-224", "language_model": "meta-llama/Llama-2-7b-hf"}
LORA = {"kind": "lora", "r": 8}


def recipe_of(model: dict[str, Any], parts: dict[str, Any], **train: Any) -> Recipe:
    raw = {
        "name": "t",
        "model": {**model, "backbone": "flamingo", "dtype": "float32"},
        "adapters": parts,
        "data": [{"path": "d"}],
        "train": train,
    }
    return check(raw, "t")


def made_of(recipe: Recipe) -> Any:
    kind = BACKBONES.get("flamingo")
    with torch.device("meta"):
        model = kind.build(planned_config(recipe))
    return adapters.apply(model, recipe.adapters, kind).train()


def counted(model: Any, shape: Shape) -> int:
    """What PyTorch counts in one training step on the meta device, logits at the label positions only."""
    inputs = BACKBONES.get("flamingo").fake_inputs
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        made = inputs(model, shape, torch.device("meta"))
        model(**made, use_cache=False).logits.sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    ("model", "parts", "pictures"),
    [
        (TINY, {"language_model": "frozen", "projector": "full"}, 1),
        (TINY, {"language_model": LORA, "projector": "full"}, 3),
        (TINY, {"language_model": "full", "projector": "full", "head": "full"}, 2),
        (TINY, {"language_model": "frozen", "projector": "full", "vision_tower": LORA}, 1),
        pytest.param(OPT, {"language_model": "frozen", "projector": "full"}, 1, marks=pytest.mark.slow),
        pytest.param(OPT, {"language_model": LORA, "projector": "full"}, 2, marks=pytest.mark.slow),
        pytest.param(LLAMA, {"language_model": LORA, "projector": "full"}, 1, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_operations_are_those_that_pytorch_counts(model: dict[str, Any], parts: dict[str, Any], pictures: int) -> None:
    recipe = recipe_of(model, parts)
    made = made_of(recipe)
    rows, length, labels = 2, 40, 16
    ours = FlopModel(made, recipe, BACKBONES.get("flamingo")).training([length] * rows, rows * labels, rows * pictures)
    patches = next(module for module in made.modules() if isinstance(module, torch.nn.Conv2d))
    # By the formula CLIP's class token passes the patches' convolution, too.
    extra = rows * pictures * 2 * patches.weight.numel() if made.config.vision_config.model_type[:4] == "clip" else 0
    assert ours.useful == counted(made, Shape(rows, length, labels, rows * pictures)) + extra
    assert ours.recomputed == 0
    assert set(ours.parts) == {"vision_tower", "projector", "language_model", "head"}


def test_operations_with_nothing_new_to_train_are_near() -> None:
    recipe = recipe_of(TINY, {"language_model": LORA, "projector": "frozen"})
    made = made_of(recipe)
    ours = FlopModel(made, recipe, BACKBONES.get("flamingo")).training([40] * 2, 32, 2)
    assert ours.useful == pytest.approx(counted(made, Shape(2, 40, 16, 2)), rel=0.01)


def test_a_real_step_takes_what_the_formula_says() -> None:
    recipe = recipe_of({**TINY, "attention": "eager"}, {"language_model": LORA, "projector": "full"})
    loaded = load_base(recipe)
    kind = BACKBONES.get("flamingo")
    loaded.model.set_attn_implementation("eager")  # type: ignore[operator]
    model = adapters.apply(loaded.model, recipe.adapters, kind).train()
    example = Example(Image.new("RGB", (40, 40)), "caption en", "a nodule in the left lung")
    inputs = loaded.backbone.collate([example, example])
    formula = FlopModel(model, recipe, kind).batch(inputs)
    with FlopCounterMode(display=False) as counter:
        forward_loss(model, inputs)[0].backward()  # type: ignore[no-untyped-call]
    assert formula == pytest.approx(counter.get_total_flops(), rel=0.003)


def test_padding_of_pictures_and_text_costs_no_operations() -> None:
    recipe = recipe_of(TINY, {"language_model": LORA, "projector": "full"})
    loaded = load_base(recipe)
    kind = BACKBONES.get("flamingo")
    flops = FlopModel(adapters.apply(loaded.model, recipe.adapters, kind), recipe, kind)
    picture = Image.new("RGB", (40, 40))
    examples = [
        Example(picture, "caption en", "no"),
        Example(picture, "caption en", "a large left pleural effusion with a nodule.", more_images=(picture, picture)),
        Example(None, "caption en", "Findings: no acute change."),
    ]
    batch = loaded.backbone.collate(examples)
    assert kind.images_in(batch) == 4
    lengths = kind.true_lengths(batch)
    words = [sum(loaded.backbone.text_tokens(one.prefix, one.suffix or "")) for one in examples]
    assert lengths == [count + images for count, images in zip(words, (1, 3, 0), strict=True)]
    assert flops.batch(batch) == flops.training(lengths, int((batch["labels"] != -100).sum()), 4).useful


def test_checkpointing_adds_a_forward_of_what_gets_gradients() -> None:
    plain, again = (
        recipe_of(TINY, {"language_model": "frozen", "projector": "full"}, activation_checkpointing=on)
        for on in (False, True)
    )
    model = made_of(plain)
    first, second = (FlopModel(model, one, BACKBONES.get("flamingo")).training([40], 16, 1) for one in (plain, again))
    assert first.useful == second.useful
    parts = second.parts
    assert second.recomputed == parts["projector"].forward + parts["language_model"].forward
    assert parts["vision_tower"].recomputed == parts["head"].recomputed == 0


def test_a_plan_takes_the_sizes_that_the_recipe_sets() -> None:
    usual = made_of(recipe_of(OPT, {"language_model": "frozen", "projector": "full"}))
    fewer = made_of(
        recipe_of({**OPT, "latents": 32, "cross_every": 4}, {"language_model": "frozen", "projector": "full"})
    )
    assert (usual.config.latents, len(usual.projector.blocks)) == (64, 24)
    assert (fewer.config.latents, len(fewer.projector.blocks)) == (32, 6)
