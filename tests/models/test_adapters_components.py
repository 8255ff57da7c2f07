"""Any combination of components: what is trained, at which rank and rate, counted by hand; and nothing by mistake."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from medvlm.errors import RecipeError
from medvlm.models import adapters, tiny
from medvlm.models.adapters import lora_pattern
from medvlm.models.backbones.base import Backbone
from medvlm.models.backbones.paligemma import PaliGemmaBackbone
from medvlm.models.components import Places, component_of, tied
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe

LINEAR = {"language_model": 7 * 4, "vision_tower": 6 * 4, "projector": 1, "head": 1}
"""Linear layers of the tiny model: seven a decoder layer, six a tower layer, four layers each."""


def recipe(**parts: Any) -> Recipe:
    raw = {"name": "t", "model": {"id": tiny_id}, "data": [{"path": "d"}], "adapters": {**FROZEN, **parts}}
    raw["train"] = {"learning_rate": 1e-3, "weight_decay": 0.1}
    return check(raw, "test")


tiny_id = "medvlm/tiny-random"
FROZEN = {"language_model": "frozen"}


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return tiny.random_model()[0]


def wrapped(model: Any, **parts: Any) -> Any:
    return adapters.apply(model, recipe(**parts).adapters, PaliGemmaBackbone)


def low_rank(model: Any) -> dict[str, Any]:
    return {name: m for name, m in model.named_modules() if hasattr(m, "lora_A")}


@pytest.mark.parametrize("component", list(LINEAR))
@pytest.mark.parametrize("kind", ["lora", "dora", "rslora"])
def test_low_rank_on_one_component_alone(model: Any, component: str, kind: str) -> None:
    found = low_rank(wrapped(model, **{component: {"kind": kind, "r": 3, "alpha": 5}}))
    assert len(found) == LINEAR[component]
    for name, layer in found.items():
        assert component_of(name, model, PaliGemmaBackbone) == component
        assert layer.r["default"] == 3
        assert layer.scaling["default"] == pytest.approx(5 / math.sqrt(3) if kind == "rslora" else 5 / 3)
        assert bool(layer.use_dora["default"]) == (kind == "dora")


def test_rank_and_alpha_of_each_component_with_a_mix_of_lora_and_rslora(model: Any) -> None:
    parts = {
        "vision_tower": {"kind": "rslora", "r": 2, "alpha": 6},
        "projector": {"kind": "lora", "r": 5, "alpha": 10},
        "language_model": {"kind": "lora", "r": 4, "alpha": 8, "modules": ["q_proj", "v_proj"]},
        "head": {"kind": "rslora", "r": 9, "alpha": 3},
    }
    found = low_rank(made := wrapped(model, **parts))
    scaling = {"vision_tower": 6 / math.sqrt(2), "projector": 2.0, "language_model": 2.0, "head": 1.0}
    seen = {}
    for name, layer in found.items():
        component = component_of(name, made, PaliGemmaBackbone)
        seen[component] = seen.get(component, 0) + 1
        assert layer.r["default"] == parts[component]["r"]
        assert layer.scaling["default"] == pytest.approx(scaling[component], abs=1e-12)
    assert seen == {**LINEAR, "language_model": 2 * 4}


def test_census_by_hand(model: Any) -> None:
    vision, text = model.config.vision_config, model.config.text_config
    v, t, vocabulary, rank = vision.hidden_size, text.hidden_size, text.vocab_size, 4
    made = wrapped(
        model,
        language_model={"kind": "lora", "r": rank, "modules": ["q_proj", "down_proj"]},
        projector="full",
        head="full",
    )
    counts = adapters.census(made, PaliGemmaBackbone)
    heads = text.num_attention_heads * text.head_dim
    a_layer = rank * (t + heads) + rank * (text.intermediate_size + t)
    assert counts["language_model"].trainable == text.num_hidden_layers * a_layer
    assert counts["projector"].trainable == counts["projector"].total == v * t + t
    assert counts["head"].trainable == counts["head"].total == vocabulary * t
    assert (counts["embeddings"].total, counts["embeddings"].trainable) == (vocabulary * t, 0)
    patches = (vision.image_size // vision.patch_size) ** 2
    attention, mlp = 4 * (v * v + v), 2 * v * vision.intermediate_size + v + vision.intermediate_size
    a_tower_layer = attention + mlp + 2 * 2 * v
    embedded = 3 * vision.patch_size**2 * v + v + patches * v
    assert counts["vision_tower"].total == vision.num_hidden_layers * a_tower_layer + embedded + 2 * v
    assert counts["vision_tower"].trainable == 0


def test_tied_embeddings_count_once_and_stay_tied_where_the_head_is_frozen(model: Any) -> None:
    made = wrapped(model, language_model="full")
    assert tied(made)
    counts = adapters.census(made, PaliGemmaBackbone)
    assert counts["head"].total == 0
    assert counts["embeddings"].trainable == counts["embeddings"].total > 0


def test_a_head_trained_without_lora_is_untied_first(model: Any) -> None:
    before = model.lm_head.weight.detach().clone()
    made = wrapped(model, head="full")
    assert not tied(made)
    assert torch.equal(made.lm_head.weight, before)
    assert [n for n, p in made.named_parameters() if p.requires_grad] == ["lm_head.weight"]
    made.tie_weights()
    assert not tied(made), "transformers tied it again"


def test_a_frozen_head_follows_embeddings_that_are_trained_beside_lora(model: Any) -> None:
    made = wrapped(model, language_model="full", vision_tower="lora")
    head, embeddings = made.get_output_embeddings(), made.get_input_embeddings()
    assert head.modules_to_save["default"].weight is embeddings.weight
    assert embeddings.weight.requires_grad
    counts = adapters.census(made, PaliGemmaBackbone)
    assert counts["head"].total == 0
    assert counts["language_model"].trainable == counts["language_model"].total
    assert 0 < counts["vision_tower"].trainable < counts["vision_tower"].total


def test_every_misspelt_module_is_named_in_one_error(model: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        wrapped(
            model,
            language_model={"kind": "lora", "modules": ["q_porj", "v_proj"]},
            vision_tower={"kind": "lora", "modules": ["fc3"]},
        )
    assert len(caught.value.problems) == 2
    assert (
        "adapters.language_model.modules: 'q_porj': no linear layer of the language_model (did you mean \"q_proj\"?)"
        in str(caught.value)
    )
    assert "adapters.vision_tower.modules: 'fc3'" in str(caught.value)


class Trap(nn.Module):
    """Components whose modules' names end alike: what PEFT matches by suffix must not reach the others."""

    def __init__(self) -> None:
        super().__init__()
        self.vision_tower = nn.Module()
        self.vision_tower.projector = nn.Linear(4, 4)
        self.vision_tower.language_model = nn.Module()
        self.vision_tower.language_model.q = nn.Linear(4, 4)
        self.vision_tower.old_projector = nn.Linear(4, 4)
        self.projector = nn.Module()
        self.projector.linear = nn.Linear(4, 4)
        self.language_model = nn.Module()
        self.language_model.embed = nn.Embedding(6, 4)
        self.language_model.q = nn.Linear(4, 4)
        self.language_model.projector = nn.Linear(4, 4)
        self.language_model.embed_out = nn.Linear(4, 6, bias=False)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.embed

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.embed_out

    def prepare_inputs_for_generation(self) -> None:
        raise NotImplementedError


class TrapKind(Backbone):
    components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision_tower": "vision_tower.",
        "projector": "projector.",
        "language_model": "language_model.",
    }


def test_modules_of_other_components_whose_names_end_alike_are_not_caught() -> None:
    parts = {"projector": "full", "language_model": {"kind": "lora", "modules": ["q", "projector"]}, "head": "full"}
    made: Any = adapters.apply(Trap(), recipe(**parts).adapters, TrapKind)  # type: ignore[arg-type]
    trained = {n.removeprefix("base_model.model.") for n, p in made.named_parameters() if p.requires_grad}
    assert trained == {
        "projector.linear.modules_to_save.default.weight",
        "projector.linear.modules_to_save.default.bias",
        "language_model.embed_out.modules_to_save.default.weight",
        *(f"language_model.{m}.lora_{x}.default.weight" for m in ("q", "projector") for x in "AB"),
    }


def test_a_module_that_peft_cannot_tell_from_another_is_refused() -> None:
    model = Trap()
    model.projector = nn.Linear(4, 4)
    with pytest.raises(
        RecipeError, match=r"projector cannot be trained whole beside an adapter: vision_tower\.projector"
    ):
        adapters.apply(model, recipe(projector="full", language_model="lora").adapters, TrapKind)  # type: ignore[arg-type]


def test_a_whole_language_model_beside_lora_spares_a_head_that_lies_inside_it() -> None:
    parts = {"language_model": "full", "vision_tower": {"kind": "lora", "r": 2, "modules": ["projector"]}}
    model = Trap()
    del model.vision_tower.language_model
    made: Any = adapters.apply(model, recipe(**parts).adapters, TrapKind)  # type: ignore[arg-type]
    counts = adapters.census(made, TrapKind)  # type: ignore[arg-type]
    assert counts["head"].trainable == 0
    assert counts["language_model"].trainable == counts["language_model"].total == 2 * (16 + 4)
    assert counts["embeddings"].trainable == 24
    assert counts["projector"].trainable == 0
    assert counts["vision_tower"].trainable == 2 * (4 + 4)


def test_a_pattern_matches_what_was_asked_and_nothing_else() -> None:
    names = ["a.b.x.q", "a.b.y.q", "a.c.q", "a.b.q_norm", "b.x.q", "z.a.b.x.q"]
    pattern = lora_pattern(["a.b.x.q", "a.b.y.q"], names)
    assert [name for name in names if re.fullmatch(pattern, name)] == ["a.b.x.q", "a.b.y.q"]
    # Where the last names do not tell them apart, each is written out.
    exact = lora_pattern(["a.b.x.q", "a.c.q"], names)
    assert [name for name in names if re.fullmatch(exact, name)] == ["a.b.x.q", "a.c.q"]


def test_the_pooling_head_of_siglip_gets_no_adapter_where_it_would_do_nothing() -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    class Kind(Backbone):
        components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {"vision_tower": ""}

    config = SiglipVisionConfig(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    tower = SiglipVisionModel(config)
    names = adapters.linear_layers(tower, Kind)["vision_tower"]  # type: ignore[arg-type]
    assert any("head.mlp" in name for name in names)
    assert not any("head.attention" in name for name in names)


def test_learning_rates_and_weight_decay_by_component(model: Any) -> None:
    made_recipe = recipe(
        language_model={"kind": "lora", "r": 2},
        projector={"kind": "full", "learning_rate": 5e-4},
        vision_tower={"kind": "full", "learning_rate": 1e-5},
    )
    made = adapters.apply(model, made_recipe.adapters, PaliGemmaBackbone)
    groups = adapters.parameter_groups(made, made_recipe, PaliGemmaBackbone)
    names = {id(p): n for n, p in made.named_parameters()}
    places = Places(made, PaliGemmaBackbone)
    rates = {"language_model": 1e-3, "projector": 5e-4, "vision_tower": 1e-5}
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["lr"] == rates[places.component(name)]
            spared = name.endswith(".bias") or "norm" in name
            assert group["weight_decay"] == (0.0 if spared else 0.1), name
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in made.parameters() if p.requires_grad)


def test_one_rate_gives_the_groups_of_transformers(model: Any, tmp_path: Any) -> None:
    from transformers import Trainer, TrainingArguments

    made_recipe = recipe(vision_tower="full", projector="full")
    made = adapters.apply(model, made_recipe.adapters, PaliGemmaBackbone)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), learning_rate=1e-3, weight_decay=0.1, report_to="none", use_cpu=True
    )
    theirs = Trainer(made, arguments).create_optimizer().param_groups
    ours = adapters.parameter_groups(made, made_recipe, PaliGemmaBackbone)
    assert len(ours) == len(theirs) == 2
    for group, other in zip(ours, theirs, strict=True):
        assert (group["lr"], group["weight_decay"]) == (other["lr"], other["weight_decay"])
        assert list(map(id, group["params"])) == list(map(id, other["params"]))
