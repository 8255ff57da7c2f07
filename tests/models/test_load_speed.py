"""What makes steps faster: applied where it can be, said, refused in one line where it was asked for and cannot be."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from medvlm.errors import MissingExtraError, RecipeError
from medvlm.models import adapters, tiny
from medvlm.models.backbones.paligemma import PaliGemmaBackbone
from medvlm.models.load import decoder_layers, speed_up
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe


def recipe(**train: Any) -> Recipe:
    return check({"name": "t", "model": {"id": "medvlm/tiny-random"}, "data": [{"path": "d"}], "train": train}, "test")


# What torch says of itself when its compiler is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return adapters.apply(tiny.random_model()[0], recipe().adapters, PaliGemmaBackbone)


def test_nothing_is_done_by_default_without_a_gpu(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert speed_up(model, recipe()) == []


def test_the_decoder_is_compiled_in_place(model: torch.nn.Module) -> None:
    names = [name for name, _ in model.named_parameters()]
    assert speed_up(model, recipe(compile=True, liger="off")) == ["torch.compile of 4 decoder layers"]
    assert [name for name, _ in model.named_parameters()] == names
    layers = decoder_layers(model.get_base_model(), PaliGemmaBackbone)  # type: ignore[operator]
    assert all(layer._compiled_call_impl is not None for layer in layers)
    compiled = [m for m in model.modules() if getattr(m, "_compiled_call_impl", None) is not None]
    assert len(compiled) == 4


def test_liger_by_name_is_refused_without_a_gpu_or_the_package(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"train\.liger: 'on': liger-kernel needs a GPU"):
        speed_up(model, recipe(liger="on"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'medvlm\[liger\]'"):
        speed_up(model, recipe(liger="on"))
    assert speed_up(model, recipe()) == []


def test_liger_never_brings_its_cross_entropy(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call into the package is watched; its kernels themselves need a GPU."""
    seen: list[dict[str, Any]] = []
    fake: Any = types.ModuleType("liger_kernel.transformers.monkey_patch")
    fake.MODEL_TYPE_TO_APPLY_LIGER_FN = {"paligemma": None}
    fake._apply_liger_kernel_to_instance = lambda part, **options: seen.append({"part": part, **options})
    monkeypatch.setitem(sys.modules, "liger_kernel", types.ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", types.ModuleType("liger_kernel.transformers"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers.monkey_patch", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert speed_up(model, recipe()) == ["liger-kernel for paligemma"]
    (call,) = seen
    assert call["part"] is model.get_base_model()  # type: ignore[operator]
    assert (call["cross_entropy"], call["fused_linear_cross_entropy"]) == (False, False)
    fake.MODEL_TYPE_TO_APPLY_LIGER_FN = {}
    assert speed_up(model, recipe()) == []


@pytest.mark.slow
def test_compiled_layers_give_the_same_loss(tiny_folder: Path) -> None:
    from PIL import Image

    from medvlm.models.backbones.base import Example
    from medvlm.models.load import load_base
    from medvlm.train.loss import forward_loss

    made = check(
        {
            "name": "t",
            "model": {"id": str(tiny_folder), "dtype": "float32"},
            "data": [{"path": "d"}],
            "train": {"compile": True},
        },
        "test",
    )
    loaded = load_base(made)
    wrapped = adapters.apply(loaded.model, made.adapters, PaliGemmaBackbone).eval()
    inputs = loaded.backbone.collate([Example(Image.new("RGB", (40, 40)), "caption en", "a nodule")])
    with torch.no_grad():
        before = forward_loss(wrapped, dict(inputs))[0]
        speed_up(wrapped, made)
        after = forward_loss(wrapped, dict(inputs))[0]
    assert torch.allclose(before, after, atol=1e-5)
