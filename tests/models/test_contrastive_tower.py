"""What contrastive tuning trains and keeps, and its tower inside GIT-LLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import git_llm_tiny
import pytest
import torch
from test_contrastive_inputs import EXAMPLES, FAMILIES, recipe

from medvlm.errors import InputError
from medvlm.models import adapters, merge, trained
from medvlm.models.backbones.contrastive import ContrastiveBackbone, bare
from medvlm.models.load import Loaded, load_base
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe
from medvlm.recipe.resolve import write_resolved
from medvlm.runs import Run
from medvlm.train import memory
from medvlm.train.flops import FlopModel
from medvlm.train.memory_trace import Shape

LORA = {"kind": "lora", "r": 4}
WAYS: dict[str, dict[str, Any]] = {
    "whole": {"vision_tower": "full", "projector": "full", "language_model": "full"},
    "lora": {"vision_tower": LORA, "projector": "full", "language_model": LORA},
    "mixed": {"vision_tower": "full", "projector": "full", "language_model": LORA},
    "text": {"vision_tower": "frozen", "projector": "frozen", "language_model": LORA},
    "tower": {"vision_tower": "full", "projector": "full", "language_model": "frozen"},
}


def wrapped(made: Recipe, seed: int = 3) -> Loaded:
    """Return the base, everything that is trained moved from where it began."""
    loaded = load_base(made)
    loaded.model = adapters.apply(loaded.model, made.adapters, ContrastiveBackbone)
    adapters.trainable_in_float32(loaded.model)
    torch.manual_seed(seed)
    for parameter in loaded.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    return loaded


def saved(loaded: Loaded, made: Recipe, folder: Path) -> Run:
    folder.mkdir()
    trained.save(loaded.model, loaded.processor, folder)
    write_resolved(made, folder / "recipe.yaml")
    run = Run(folder)
    run.keep_fitted(loaded.backbone.fit(loaded.model, [(one.prefix, str(one.suffix)) for one in EXAMPLES]))
    return run


def logits(loaded: Loaded) -> torch.Tensor:
    inputs = loaded.backbone.collate(EXAMPLES)
    names = ("input_ids", "attention_mask", "pixel_values")
    with torch.no_grad():
        found: torch.Tensor = loaded.model.eval()(**{name: inputs[name] for name in names}).logits_per_image
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", list(WAYS))
def test_what_is_trained_comes_back_from_disk_and_merged(tmp_path: Path, family: str, way: str) -> None:
    made = recipe(family, adapters=WAYS[way])
    loaded = wrapped(made)
    expected = logits(loaded)
    assert not torch.allclose(logits(load_base(made)), expected, atol=1e-2)
    run = saved(loaded, made, tmp_path / "run")
    assert torch.allclose(logits(trained.load(run, made)), expected, atol=1e-5)
    merged = merge.merged(run, made, "original")
    assert type(merged.model).__name__ in ("CLIPModel", "SiglipModel")
    assert torch.allclose(logits(merged), expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_census_counts_every_component_once(family: str) -> None:
    made = recipe(family, adapters=WAYS["lora"])
    plain = adapters.census(load_base(made).model, ContrastiveBackbone)
    model: Any = load_base(made).model
    assert sum(count.total for count in plain.values()) == sum(p.numel() for p in model.parameters())
    loaded = wrapped(made)
    found = adapters.census(loaded.model, ContrastiveBackbone)
    assert found["projector"].trainable == found["projector"].total == plain["projector"].total
    named = dict(loaded.model.named_parameters())
    assert named["base_model.model.logit_scale"].requires_grad
    for component, stem in (("vision_tower", "vision_model."), ("language_model", "text_model.")):
        low_rank = [p.numel() for name, p in named.items() if ".lora_" in name and f".{stem}" in name]
        assert found[component].trainable == sum(low_rank) > 0
    # What SigLIP's towers end in belongs to what brings them together; no adapter stands there.
    assert not any(".head." in name and ".lora_" in name for name in named)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", ["lora", "whole"])
def test_git_llm_takes_the_tuned_tower(tmp_path: Path, family: str, way: str) -> None:
    made = recipe(family, adapters=WAYS[way])
    loaded = wrapped(made)
    run = saved(loaded, made, tmp_path / "run")
    merged = merge.merged(run, made, "original")
    merged.model.save_pretrained(tmp_path / "tower")  # type: ignore[operator]
    merged.processor.save_pretrained(tmp_path / "tower")
    git_llm_tiny.save_text(tmp_path / "text", "opt", "opt")
    parts = {"vision_tower": str(tmp_path / "tower"), "language_model": str(tmp_path / "text")}
    raw = {"name": "g", "model": {"backbone": "git_llm", "dtype": "float32", **parts}, "data": [{"path": "d"}]}
    whole = load_base(check({**raw, "adapters": {"projector": "full"}}, "test"))
    pixels = loaded.backbone.collate(EXAMPLES)["pixel_values"]
    # It prepares pictures in the same way, and sees the same in them.
    assert torch.equal(whole.backbone.collate(EXAMPLES)["pixel_values"], pixels)
    git: Any = whole.model.eval()
    tuned: Any = merged.model.eval()
    with torch.no_grad():
        seen = git.vision_tower(pixel_values=pixels).last_hidden_state
        expected = tuned.vision_model(pixel_values=pixels).last_hidden_state
        untuned: Any = load_base(made).model
        before = untuned.eval().vision_model(pixel_values=pixels).last_hidden_state
    assert torch.allclose(seen, expected, atol=1e-6)
    assert not torch.allclose(seen, before, atol=1e-2)


def test_a_run_is_no_tower_until_it_is_exported(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    parts = {"vision_tower": str(tmp_path), "language_model": "facebook/opt-350m"}
    raw = {"name": "g", "model": {"backbone": "git_llm", **parts}, "data": [{"path": "d"}]}
    with pytest.raises(InputError, match=r"model\.vision_tower: .* is a run, .* medvlm export .* --merge --out FOLDER"):
        load_base(check({**raw, "adapters": {"projector": "full"}}, "test"))


@pytest.mark.parametrize("way", ["whole", "lora", "tower", "text"])
@pytest.mark.parametrize(("family", "low", "high"), [("clip", 0.995, 1.01), ("siglip", 0.95, 0.995)])
def test_operations_are_those_that_torch_counts(family: str, low: float, high: float, way: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    made = recipe(family, adapters=WAYS[way])
    loaded = wrapped(made)
    batch = loaded.backbone.collate([EXAMPLES[0]] * 4)
    bare(loaded.model).set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        loaded.backbone.losses(loaded.model.train(), batch)[0].backward()  # type: ignore[no-untyped-call]
    # Torch counts cosines beside the towers, and SigLIP's pooling head, which is large beside a tower of four layers.
    ours = FlopModel(loaded.model, made, ContrastiveBackbone).batch(batch)
    assert low < ours / counter.get_total_flops() < high


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_is_traced_without_weights(family: str) -> None:
    made = recipe(family, adapters=WAYS["lora"])
    config = load_base(made).model.config.to_dict()  # type: ignore[union-attr, operator]
    needed = [
        memory.estimate(made, memory.prepare(made, config), Shape(rows, 30, 12, rows), "cpu").activations
        for rows in (4, 8)
    ]
    # Twice the pairs keep about twice as much for the way back.
    assert needed[1] == pytest.approx(2 * needed[0], rel=0.15)
