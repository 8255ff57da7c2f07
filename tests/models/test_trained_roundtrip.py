"""What was trained comes back from disk with the same logits, whatever it was; and another run goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from saved_run import saved
from tiny_ways import NF4, WAYS

from medvlm.errors import InputError, RecipeError
from medvlm.models import adapters, trained
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import Example
from medvlm.models.load import Loaded, load_base
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe

SAVED_WAYS: dict[str, dict[str, Any]] = WAYS | {
    "vision": {"language_model": "frozen", "vision_tower": {"kind": "lora", "r": 2}},
    "components": {"language_model": "frozen", "projector": "full", "vision_tower": "full"},
    "head": {"language_model": "frozen", "head": "full"},
    "whole_untied": {"language_model": "full", "head": "full"},
}


def recipe(folder: Path, way: dict[str, Any], **changes: Any) -> Recipe:
    raw: dict[str, Any] = {"name": "t", "model": {"id": str(folder), "dtype": "float32"}, "data": [{"path": "d"}]}
    return check({**raw, "adapters": way, **changes}, "test")


def fresh(made: Recipe, shake: bool = True) -> Loaded:
    """Return the wrapped base, everything that is trained moved from where it began."""
    loaded = load_base(made)
    loaded.model = adapters.apply(loaded.model, made.adapters, BACKBONES.get(made.model.backbone))
    adapters.trainable_in_float32(loaded.model)
    torch.manual_seed(5)
    for parameter in loaded.model.parameters():
        if parameter.requires_grad and shake:
            parameter.data += 0.05 * torch.randn_like(parameter)
    return loaded


def logits(loaded: Loaded) -> torch.Tensor:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))
    inputs = loaded.backbone.collate([Example(image, "caption en", "a small nodule"), Example(image, "what?", "no")])
    del inputs["labels"]
    with torch.no_grad():
        found: torch.Tensor = loaded.model.eval()(**inputs).logits
    return found


@pytest.mark.parametrize(
    ("way", "quantized"), [*((way, False) for way in SAVED_WAYS), ("lora", True), ("dora", True), ("mixed", True)]
)
def test_the_same_logits_from_disk(tiny_folder: Path, tmp_path: Path, way: str, quantized: bool) -> None:
    made = recipe(tiny_folder, SAVED_WAYS[way], **({"quantization": NF4} if quantized else {}))
    loaded = fresh(made)
    expected = logits(loaded)
    run = saved(loaded, made, tmp_path / "run")
    again = trained.load(run, made)
    assert torch.allclose(logits(again), expected, atol=1e-5)
    assert not torch.allclose(logits(load_base(made)), expected, atol=1e-2)


@pytest.mark.parametrize("way", ["mixed", "components", "whole", "whole_untied", "decoder"])
def test_another_run_goes_on_from_it(tiny_folder: Path, tmp_path: Path, way: str) -> None:
    made = recipe(tiny_folder, SAVED_WAYS[way])
    loaded = fresh(made)
    expected = logits(loaded)
    run = saved(loaded, made, tmp_path / "run")
    again = fresh(made, shake=False)
    trained.begin_from(again.model, run, made, BACKBONES.get("paligemma"))
    assert torch.allclose(logits(again), expected, atol=1e-5)
    before = {n for n, p in loaded.model.named_parameters() if p.requires_grad}
    assert {n for n, p in again.model.named_parameters() if p.requires_grad} == before


WHOLE = {"language_model": "full", "projector": "full"}


@pytest.mark.parametrize("way", ["mixed", "components", "whole", "whole_untied", "decoder"])
def test_in_bfloat16_nothing_that_was_trained_is_rounded(tiny_folder: Path, tmp_path: Path, way: str) -> None:
    made = recipe(tiny_folder, SAVED_WAYS[way], model={"id": str(tiny_folder), "dtype": "bfloat16"})
    loaded = fresh(made)
    run = saved(loaded, made, tmp_path / "run")
    again = fresh(made, shake=False)
    trained.begin_from(again.model, run, made, BACKBONES.get("paligemma"))
    for found in (again, trained.load(run, made)):
        parameters = dict(found.model.named_parameters())
        for name, parameter in loaded.model.named_parameters():
            assert torch.equal(parameters[name], parameter), name
            assert parameters[name].dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name


@pytest.mark.parametrize("first", [WHOLE, {**WHOLE, "vision_tower": {"kind": "lora", "r": 2}}])
@pytest.mark.parametrize("more", [{}, {"head": "full"}, {"vision_tower": {"kind": "lora", "r": 2}, "head": "full"}])
def test_a_head_trained_as_the_embeddings_goes_on(
    tiny_folder: Path, tmp_path: Path, first: dict[str, Any], more: dict[str, Any]
) -> None:
    made = recipe(tiny_folder, first)
    loaded = fresh(made)
    expected = logits(loaded)
    run = saved(loaded, made, tmp_path / "first")
    second = recipe(tiny_folder, {**first, **more})
    again = fresh(second, shake=False)
    trained.begin_from(again.model, run, second, BACKBONES.get("paligemma"))
    assert torch.allclose(logits(again), expected, atol=1e-5)
    assert torch.allclose(logits(trained.load(saved(again, second, tmp_path / "second"), second)), expected, atol=1e-5)


@pytest.mark.parametrize("first", [WHOLE, {**WHOLE, "vision_tower": {"kind": "lora", "r": 2}}])
def test_a_head_trained_as_the_embeddings_is_not_lost_beneath_an_adapter(
    tiny_folder: Path, tmp_path: Path, first: dict[str, Any]
) -> None:
    made = recipe(tiny_folder, first)
    run = saved(fresh(made), made, tmp_path / "run")
    second = recipe(tiny_folder, {**first, "head": {"kind": "lora", "r": 2}})
    with pytest.raises(RecipeError, match=r"adapters\.head: lora .* which would be lost; expected frozen or full"):
        trained.begin_from(fresh(second, shake=False).model, run, second, BACKBONES.get("paligemma"))


@pytest.mark.parametrize("way", ["whole", "components"])
def test_another_image_size_is_refused_where_position_embeddings_were_trained(
    tiny_folder: Path, tmp_path: Path, way: str
) -> None:
    made = recipe(tiny_folder, {**SAVED_WAYS[way], "vision_tower": "full"})
    run = saved(fresh(made), made, tmp_path / "run")
    other = recipe(tiny_folder, made.adapters.model_dump(), model={"id": str(tiny_folder), "image_size": 56})
    with pytest.raises(InputError, match=r"expected the run's own model\.image_size") as caught:
        trained.begin_from(fresh(other, shake=False).model, run, other, BACKBONES.get("paligemma"))
    assert "\n" not in str(caught.value)


def test_another_image_size_beside_a_frozen_tower(tiny_folder: Path, tmp_path: Path) -> None:
    made = recipe(tiny_folder, WHOLE)
    loaded = fresh(made)
    run = saved(loaded, made, tmp_path / "run")
    other = recipe(tiny_folder, WHOLE, model={"id": str(tiny_folder), "dtype": "float32", "image_size": 56})
    again = fresh(other, shake=False)
    positions = [value for name, value in again.model.named_parameters() if "position_embedding" in name]
    before = [value.clone() for value in positions]
    trained.begin_from(again.model, run, other, BACKBONES.get("paligemma"))
    found = dict(again.model.named_parameters())
    assert positions
    assert all(torch.equal(old, new) for old, new in zip(before, positions, strict=True))
    assert all(
        torch.equal(found[name], value) for name, value in loaded.model.named_parameters() if value.requires_grad
    )


def test_whole_components_go_on_beside_an_adapter(tiny_folder: Path, tmp_path: Path) -> None:
    first = recipe(tiny_folder, {"language_model": "frozen", "projector": "full"})
    loaded = fresh(first)
    expected = logits(loaded)
    run = saved(loaded, first, tmp_path / "run")
    second = recipe(tiny_folder, {"language_model": {"kind": "lora", "r": 4}, "projector": "full"})
    again = fresh(second, shake=False)
    trained.begin_from(again.model, run, second, BACKBONES.get("paligemma"))
    # A new adapter changes nothing before its first step.
    assert torch.allclose(logits(again), expected, atol=1e-5)


def test_what_would_be_lost_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    made = recipe(tiny_folder, SAVED_WAYS["mixed"])
    run = saved(fresh(made), made, tmp_path / "run")
    other = recipe(tiny_folder, {"language_model": {"kind": "lora", "r": 4}, "projector": "full", "head": "full"})
    model = fresh(other, shake=False).model
    with pytest.raises(RecipeError) as caught:
        trained.begin_from(model, run, other, BACKBONES.get("paligemma"))
    assert len(caught.value.problems) == 2
    assert "trained it as rslora of r 4, alpha 32 on q_proj, which would be lost" in str(caught.value)
    assert "adapters.vision_tower: frozen" in str(caught.value)
    elsewhere = made.model_copy(update={"model": made.model.model_copy(update={"id": "medvlm/tiny-base"})})
    with pytest.raises(RecipeError, match="expected the same base"):
        trained.begin_from(model, run, elsewhere, BACKBONES.get("paligemma"))


def test_weights_that_do_not_fit_or_are_not_there_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    made = recipe(tiny_folder, SAVED_WAYS["lora"])
    run = saved(fresh(made), made, tmp_path / "run")
    with pytest.raises(InputError, match="do not fit the recipe"):
        trained.load(run, recipe(tiny_folder, {"language_model": {"kind": "lora", "r": 4}, "projector": "full"}))
    with pytest.raises(InputError, match=r"is \[4, 128\]; expected \[2, 128\]"):
        trained.load(run, recipe(tiny_folder, {"language_model": {"kind": "lora", "r": 2}}))
    weights = run.adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(InputError, match="its weights cannot be loaded"):
        trained.load(run, made)
    weights.unlink()
    with pytest.raises(InputError, match="holds weights; train it again"):
        trained.load(run, made)


def test_a_killed_save_leaves_the_earlier_one(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(tiny_folder, SAVED_WAYS["lora"])
    loaded = fresh(made)
    expected = logits(loaded)
    run = saved(loaded, made, tmp_path / "run")

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loaded.processor, "save_pretrained", dies)
    for parameter in loaded.model.parameters():
        parameter.data += 1.0
    with pytest.raises(KeyboardInterrupt):
        trained.save(loaded.model, loaded.processor, run.path)
    assert torch.allclose(logits(trained.load(run, made)), expected, atol=1e-5)


def test_the_name_of_the_base_can_be_recorded(tiny_folder: Path, tmp_path: Path) -> None:
    made = recipe(tiny_folder, SAVED_WAYS["lora"])
    loaded = fresh(made)
    trained.save(loaded.model, loaded.processor, tmp_path, base="owner/base")
    assert '"base_model_name_or_path": "owner/base"' in (tmp_path / "adapter" / "adapter_config.json").read_text()


def test_trained_parts_come_back_in_float32_beside_a_bfloat16_base(tiny_folder: Path, tmp_path: Path) -> None:
    made = recipe(tiny_folder, SAVED_WAYS["mixed"], model={"id": str(tiny_folder), "dtype": "bfloat16"})
    loaded = fresh(made)
    run = saved(loaded, made, tmp_path / "run")
    again = dict(trained.load(run, made).model.named_parameters())
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(again[name], parameter), name
        assert again[name].dtype == parameter.dtype
