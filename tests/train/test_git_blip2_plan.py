"""The plans of GIT, BLIP-2 and InstructBLIP: operations and memory against what PyTorch counts while a step runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from measured_peak import Counted, trained
from PIL import Image
from prepared import write_folder
from torch.utils.flop_counter import FlopCounterMode

from medvlm.data.sources.phantom.base_grammar import base_samples
from medvlm.models import adapters
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import Example
from medvlm.models.load import load_base, planned_config
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe
from medvlm.train import memory, memory_trace
from medvlm.train.flops import FlopModel
from medvlm.train.memory_trace import Shape

LORA = {"kind": "lora", "r": 8}
WHOLE = {"language_model": "full", "projector": "full", "vision_tower": "full", "head": "full"}
MODELS: dict[str, tuple[str, str]] = {
    "git": ("git", "medvlm/tiny-random"),
    "blip2": ("blip2", "medvlm/tiny-random"),
    "instructblip": ("blip2", "medvlm/tiny-random-instructblip"),
}
ROWS, TEXT, LABELS = 2, 24, 10


def settings(name: str, parts: dict[str, Any], **changed: Any) -> dict[str, Any]:
    backbone, base = MODELS.get(name, ("git" if name.startswith("microsoft/git") else "blip2", name))
    model = {"id": base, "backbone": backbone, "dtype": "float32", **changed.pop("model", {})}
    return {"name": "t", "model": model, "adapters": parts, "data": [{"path": "data"}], **changed}


def recipe_of(name: str, parts: dict[str, Any], **changed: Any) -> Recipe:
    return check(settings(name, parts, **changed), "t")


WAYS: list[dict[str, Any]] = [
    {"language_model": LORA},
    {"language_model": "frozen", "projector": "full"},
    {"language_model": LORA, "projector": "full", "vision_tower": LORA},
    WHOLE,
]


@pytest.mark.parametrize("parts", WAYS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_a_real_step_takes_what_the_formula_says(name: str, parts: dict[str, Any]) -> None:
    recipe = recipe_of(name, parts, model={"attention": "eager"})
    loaded = load_base(recipe)
    kind = BACKBONES.get(recipe.model.backbone)
    # Tower and Q-Former as well: sdpa's kernel for the processor is not counted.
    loaded.model.set_attn_implementation("eager")  # type: ignore[operator]
    model = adapters.apply(loaded.model, recipe.adapters, kind).train()
    # As long as each other, since the formula leaves padding out.
    examples = [
        Example(Image.new("RGB", (40, 40), shade), "where?", "a nodule in the left lung") for shade in ("red", 0)
    ]
    inputs = loaded.backbone.collate(examples)
    formula = FlopModel(model, recipe, kind).batch(inputs)
    with FlopCounterMode(display=False) as counter:
        loaded.backbone.losses(model, inputs)[0].backward()  # type: ignore[no-untyped-call]
    assert formula == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_operations_are_the_same_however_examples_share_batches(name: str) -> None:
    recipe = recipe_of(name, WHOLE)
    loaded = load_base(recipe)
    model = adapters.apply(loaded.model, recipe.adapters, BACKBONES.get(recipe.model.backbone))
    formula = FlopModel(model, recipe, BACKBONES.get(recipe.model.backbone))
    texts = [("where?", "a nodule"), ("what is seen in the lower left lung, and beside it?", "no effusion"), ("x", "y")]
    examples = [Example(Image.new("RGB", (40, 40)), *words) for words in texts]
    alone = sum(formula.batch(loaded.backbone.collate([example])) for example in examples)
    assert formula.batch(loaded.backbone.collate(examples)) == alone
    if loaded.backbone.packs:
        assert formula.batch(loaded.backbone.collate_packed(examples, None)) == alone


@pytest.mark.parametrize(
    "name",
    [
        "microsoft/git-base",
        pytest.param("microsoft/git-large-vqav2", marks=pytest.mark.slow),
        pytest.param("Salesforce/blip2-opt-2.7b", marks=pytest.mark.slow),
        pytest.param("Salesforce/instructblip-vicuna-7b", marks=pytest.mark.slow),
    ],
)
def test_operations_of_published_models_are_those_that_pytorch_counts(name: str) -> None:
    recipe = recipe_of(name, {"language_model": LORA, "projector": "full"}, model={"attention": "eager"})
    kind = BACKBONES.get(recipe.model.backbone)
    prepared = memory.prepare(recipe, planned_config(recipe))
    prepared.model.set_attn_implementation("eager")
    shape = Shape(ROWS, kind.image_tokens_of(prepared.model.config) + TEXT, LABELS, ROWS)
    ours = FlopModel(prepared.model, recipe, kind).training([shape.length] * ROWS, ROWS * LABELS, ROWS)
    with memory_trace.fake(prepared.model) as model, FlopCounterMode(display=False) as counter:
        made = kind.fake_inputs(model, shape, torch.device("cpu"))
        model(**made, use_cache=False).logits.sum().backward()
    assert ours.useful == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("backbone", ["paligemma", "git_llm", "git", "blip2"])
def test_checkpointing_sends_nothing_back_through_a_frozen_tower(backbone: str) -> None:
    model = {"id": "medvlm/tiny-random", "backbone": backbone, "attention": "eager", "dtype": "float32"}
    train = {"activation_checkpointing": True}
    recipe = check(settings("git", {"language_model": LORA}, train=train) | {"model": model}, "t")
    loaded = load_base(recipe)
    kind = BACKBONES.get(backbone)
    loaded.model.set_attn_implementation("eager")  # type: ignore[operator]
    made: Any = adapters.apply(loaded.model, recipe.adapters, kind).train()
    # As the Trainer switches it on.
    made.activation_checkpointing_enable()
    inputs = loaded.backbone.collate([Example(Image.new("RGB", (40, 40)), "where?", "a nodule in the left lung")])
    lengths, labels = loaded.backbone.true_lengths(inputs), loaded.backbone.labels_in(inputs)
    formula = FlopModel(made, recipe, kind).training(lengths, labels, 1)
    with FlopCounterMode(display=False) as counter:
        loaded.backbone.losses(made, inputs)[0].backward()  # type: ignore[no-untyped-call]
    assert formula.useful + formula.recomputed == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert not any(parameter.grad is not None for parameter in made.parameters() if not parameter.requires_grad)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    listed = [next(s for s in base_samples(5, i) if s.prompt == "keywords") for i in range(16)]
    write_folder(folder / "data", {"train": listed})
    return folder


@pytest.mark.parametrize(
    ("name", "checkpointing"),
    [
        pytest.param("git", True, marks=pytest.mark.slow),
        pytest.param("instructblip", False, marks=pytest.mark.slow),
        pytest.param("git", False, marks=pytest.mark.slow),
        pytest.param("blip2", False, marks=pytest.mark.slow),
        pytest.param("blip2", True, marks=pytest.mark.slow),
        pytest.param("instructblip", True, marks=pytest.mark.slow),
    ],
)
def test_the_estimate_of_memory_is_that_of_pytorch(
    name: str, checkpointing: bool, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shelf)
    parts = {"language_model": LORA, "projector": "full"}
    train = {"batch_size": 16, "max_steps": 3, "trackers": [], "activation_checkpointing": checkpointing}
    raw = settings(name, parts, train=train)
    Path("recipe.yaml").write_text(json.dumps(raw), encoding="utf-8")
    counted = Counted()
    shape = trained("recipe.yaml", counted.before_step)
    recipe = check(raw, "t")
    kind = BACKBONES.get(recipe.model.backbone)
    if name == "git":
        # Its rows begin with the picture, which has no ids.
        shape["length"] += kind.image_tokens_of(kind.tiny(None, None)[0].config)
    found = memory.estimate(recipe, memory.prepare(recipe, planned_config(recipe)), Shape(**shape), "cpu")
    assert found.tensors == pytest.approx(counted.peak(), rel=0.1)


@pytest.mark.parametrize(
    "name", ["microsoft/git-base", pytest.param("Salesforce/blip2-opt-2.7b", marks=pytest.mark.slow)]
)
def test_what_settings_change_in_the_estimate(name: str) -> None:
    def estimate(features: bool = False, **changed: Any) -> memory.Estimate:
        recipe = recipe_of(name, {"language_model": "frozen", "projector": "full"}, **changed)
        prepared = memory.prepare(recipe, planned_config(recipe))
        images = prepared.kind.image_tokens_of(prepared.model.config)
        return memory.estimate(recipe, prepared, Shape(4, images + TEXT, LABELS, 4, features), "cpu")

    plain = estimate()
    # A frozen tower keeps nothing, but its own peak is gone.
    assert estimate(features=True).activations <= plain.activations
    assert estimate(train={"activation_checkpointing": True}).activations < 0.8 * plain.activations
    assert estimate(quantization={"mode": "nf4"}).weights < 0.8 * plain.weights
    assert estimate(model={"dtype": "bfloat16"}).weights == plain.weights / 2
