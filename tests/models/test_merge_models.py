"""Merged models against the adapter beside its base, and both in plain transformers + peft, without medvlm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paligemma2_tiny import SOFTCAP, save_paligemma2
from PIL import Image
from tiny_ways import NF4, WAYS

from medvlm.errors import InputError
from medvlm.models import adapters, merge, trained
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import Example
from medvlm.models.components import tied
from medvlm.models.load import Loaded, load_base
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe
from medvlm.runs import Run

MERGED_WAYS = WAYS | {"components": {"language_model": "frozen", "projector": "full", "head": "full"}}
UNTIED = {"mixed", "head_lora", "components"}


def recipe(folder: Path, way: str, quantized: bool = False, **model: Any) -> Recipe:
    raw: dict[str, Any] = {
        "name": "t",
        "model": {"id": str(folder), "dtype": "float32", **model},
        "data": [{"path": "d"}],
        "adapters": MERGED_WAYS[way],
        "quantization": NF4 if quantized else {"mode": "none"},
    }
    return check(raw, "test")


def trained_run(made: Recipe, folder: Path) -> tuple[Run, Loaded]:
    """Return a run whose trained parts were all moved from where they began, and its model."""
    loaded = load_base(made)
    loaded.model = adapters.apply(loaded.model, made.adapters, BACKBONES.get("paligemma"))
    adapters.trainable_in_float32(loaded.model)
    torch.manual_seed(5)
    for parameter in loaded.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    folder.mkdir()
    trained.save(loaded.model, loaded.processor, folder)
    return Run(folder), loaded


def inputs_of(loaded: Loaded) -> dict[str, torch.Tensor]:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))
    inputs = loaded.backbone.collate([Example(image, "caption en", "a small nodule"), Example(image, "what?", "no")])
    return {name: value for name, value in inputs.items() if name not in ("labels", "logits_to_keep")}


def logits(loaded: Loaded) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = loaded.model.eval()(**inputs_of(loaded)).logits
    return found


@pytest.mark.parametrize("way", list(MERGED_WAYS))
def test_merged_into_the_base_it_was_trained_on(tiny_folder: Path, tmp_path: Path, way: str) -> None:
    made = recipe(tiny_folder, way)
    run, loaded = trained_run(made, tmp_path / "run")
    found = merge.merged(run, made, "original")
    assert torch.allclose(logits(found), logits(loaded), atol=2e-5)
    assert type(found.model).__name__ == "PaliGemmaForConditionalGeneration"
    assert not any("lora" in name or "modules_to_save" in name for name, _ in found.model.named_modules())
    assert tied(found.model) == (way not in UNTIED)
    found.model.save_pretrained(tmp_path / "merged")  # type: ignore[operator]
    again = type(found.model).from_pretrained(tmp_path / "merged")  # type: ignore[attr-defined]
    assert tied(again) == (way not in UNTIED)
    assert torch.equal(logits(Loaded(again, None, found.backbone, {})), logits(found))


@pytest.mark.parametrize("way", ["lora", "dora", "mixed"])
def test_the_difference_of_both_merges_of_a_4_bit_run(tiny_folder: Path, tmp_path: Path, way: str) -> None:
    """Into the dequantized base nothing but rounding changes; into the original what quantization had cost comes back.

    As a share of the logits' standard deviation, the largest difference on this model: below 0.001 and about 0.1 to 1.
    """
    made = recipe(tiny_folder, way, quantized=True)
    run, loaded = trained_run(made, tmp_path / "run")
    expected = logits(loaded)
    deviation = float(expected.std())
    unpacked = merge.merged(run, made, "dequantized")
    assert not getattr(unpacked.model, "is_quantized", False)
    assert "quantization_config" not in unpacked.model.config.to_dict()
    small = float((logits(unpacked) - expected).abs().max()) / deviation
    original = float((logits(merge.merged(run, made, "original")) - expected).abs().max()) / deviation
    assert small < 1e-3, small
    assert 0.01 < original < 2.0, original
    assert original > 20 * small


def test_nothing_to_dequantize_is_said(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="merge into original"):
        merge.merged(Run(tmp_path), recipe(tiny_folder, "lora"), "dequantized")


PLAIN = """
import sys, torch
from transformers import AutoModelForImageTextToText
from peft import PeftModel
base, adapter, merged, inputs, out = sys.argv[1:]
inputs = torch.load(inputs)
with torch.no_grad():
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    first = PeftModel.from_pretrained(model, adapter).eval()(**inputs).logits
    whole = AutoModelForImageTextToText.from_pretrained(merged, dtype=torch.float32).eval()
    second = whole(**inputs).logits
assert not any(name.split(".")[0] == "medvlm" for name in sys.modules)
torch.save([first, second], out)
"""


def test_plain_transformers_and_peft_load_both(tiny_folder: Path, tmp_path: Path) -> None:
    made = recipe(tiny_folder, "mixed")
    run, loaded = trained_run(made, tmp_path / "run")
    expected = logits(loaded)
    merge.merged(run, made, "original").model.save_pretrained(tmp_path / "merged")  # type: ignore[operator]
    torch.save(inputs_of(loaded), tmp_path / "inputs.pt")
    script = tmp_path / "plain.py"
    script.write_text(PLAIN, encoding="utf-8")
    arguments = [tiny_folder, run.adapter, tmp_path / "merged", tmp_path / "inputs.pt", tmp_path / "out.pt"]
    subprocess.run([sys.executable, str(script), *map(str, arguments)], check=True, cwd=tmp_path)
    first, second = torch.load(tmp_path / "out.pt")
    assert torch.allclose(first, expected, atol=1e-5)
    assert torch.allclose(second, expected, atol=2e-5)
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.fixture(scope="module")
def gemma2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_paligemma2(tmp_path_factory.mktemp("paligemma2"))


@pytest.mark.parametrize("keep", [True, False])
def test_softcapping_is_written_to_the_merged_configuration(gemma2_folder: Path, tmp_path: Path, keep: bool) -> None:
    made = recipe(gemma2_folder, "lora", logit_softcapping=keep)
    run, loaded = trained_run(made, tmp_path / "run")
    found = merge.merged(run, made, "original")
    found.model.save_pretrained(tmp_path / "merged")  # type: ignore[operator]
    again: Any = type(found.model).from_pretrained(tmp_path / "merged", attn_implementation="eager")  # type: ignore[attr-defined]
    assert again.config.text_config.final_logit_softcapping == (SOFTCAP if keep else None)
    assert torch.allclose(logits(Loaded(again, None, found.backbone, {})), logits(loaded), atol=2e-5)


def test_frequencies_of_rotary_embeddings_are_not_rounded(tiny_folder: Path, tmp_path: Path) -> None:
    made = recipe(tiny_folder, "dora", dtype="bfloat16")
    run, _ = trained_run(made, tmp_path / "run")
    untrained = load_base(recipe(Path("medvlm/tiny-random"), "dora", dtype="bfloat16"))
    plain = load_base(recipe(tiny_folder, "dora"))
    expected = dict(plain.model.named_buffers())
    for loaded in (merge.merged(run, made, "original"), untrained):
        assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
        found = {name: value for name, value in loaded.model.named_buffers() if "inv_freq" in name}
        assert found
        for name, value in found.items():
            assert torch.equal(value, expected[name]), name
            assert value.dtype == torch.float32
