"""GIT-LLM adapted, saved, loaded and merged: every way of training it, over families whose heads differ."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from git_llm_tiny import picture, save_text, save_tower
from saved_run import logits_for, saved

from medvlm.models import adapters, merge, quantize, trained
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import Example
from medvlm.models.load import Loaded, load_base, planned_config
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe
from medvlm.train.loss import forward_loss

NF4 = {"mode": "nf4", "compute_dtype": "float32"}
FAMILIES = {"llama": "llama", "gpt_neox": "gpt2", "opt": "opt", "gpt2": "gpt2", "mpt": "gpt2"}
"""Untied heads called lm_head and embed_out; tied ones; layers that are transposed."""
WAYS: dict[str, dict[str, Any]] = {
    "lora": {"language_model": {"kind": "lora", "r": 4}, "projector": "full"},
    "dora": {"language_model": {"kind": "dora", "r": 4}, "projector": "full"},
    "projector": {"language_model": "frozen", "projector": "full"},
    "head": {"language_model": "frozen", "projector": "full", "head": "full"},
    "vision": {"language_model": "frozen", "projector": "full", "vision_tower": {"kind": "lora", "r": 2}},
    "head_lora": {"language_model": {"kind": "rslora"}, "projector": "full", "head": {"kind": "lora", "r": 2}},
    "decoder": {"language_model": "full", "projector": "full", "vision_tower": {"kind": "lora", "r": 2}},
    "decoder_head": {"language_model": "full", "projector": "full", "head": "full", "vision_tower": "lora"},
    "whole": {"language_model": "full", "projector": "full", "vision_tower": "full", "head": "full"},
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    found = {family: save_text(folder / family, family, kind) for family, kind in FAMILIES.items()}
    return {**found, "tower": save_tower(folder / "tower")}


def recipe(parts: dict[str, Path], family: str, way: str, quantized: bool = False) -> Recipe:
    model = {
        "backbone": "git_llm",
        "vision_tower": str(parts["tower"]),
        "language_model": str(parts[family]),
        "dtype": "float32",
    }
    raw: dict[str, Any] = {"name": "t", "model": model, "data": [{"path": "d"}], "adapters": WAYS[way]}
    return check({**raw, "quantization": NF4 if quantized else {"mode": "none"}}, "test")


def wrapped(made: Recipe, seed: int = 5) -> Loaded:
    """Return the model with everything that is trained moved from where it began."""
    loaded = load_base(made)
    loaded.model = adapters.apply(loaded.model, made.adapters, BACKBONES.get("git_llm"))
    adapters.trainable_in_float32(loaded.model)
    torch.manual_seed(seed)
    for parameter in loaded.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    return loaded


def batch(loaded: Loaded) -> dict[str, torch.Tensor]:
    return loaded.backbone.collate(
        [Example(picture(), "a small nodule", "in the left lung"), Example(picture(1), "", "no")]
    )


def logits(loaded: Loaded) -> torch.Tensor:
    return logits_for(loaded, batch(loaded))


CASES = [
    *(("llama", way, False) for way in WAYS),
    *(("opt", way, False) for way in ("lora", "head", "head_lora", "decoder", "whole")),
    ("gpt_neox", "lora", False),
    ("gpt_neox", "head", False),
    ("gpt_neox", "decoder_head", False),
    ("gpt2", "lora", False),
    ("mpt", "lora", False),
    ("llama", "lora", True),
    ("llama", "dora", True),
    ("gpt_neox", "head_lora", True),
    ("opt", "lora", True),
    ("mpt", "lora", True),
]


@pytest.mark.parametrize(("family", "way", "quantized"), CASES)
def test_the_same_logits_from_disk_and_in_a_run_that_goes_on(
    parts: dict[str, Path], tmp_path: Path, family: str, way: str, quantized: bool
) -> None:
    made = recipe(parts, family, way, quantized)
    loaded = wrapped(made)
    expected = logits(loaded)
    run = saved(loaded, made, tmp_path / "run")
    assert torch.allclose(logits(trained.load(run, made)), expected, atol=1e-5)
    again = wrapped(made, seed=6)
    assert not torch.allclose(logits(again), expected, atol=1e-3)
    trained.begin_from(again.model, run, made, BACKBONES.get("git_llm"))
    assert torch.allclose(logits(again), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "way"),
    [("llama", "lora"), ("opt", "head_lora"), ("gpt_neox", "decoder_head"), ("opt", "decoder"), ("gpt2", "lora")],
)
def test_merged(parts: dict[str, Path], tmp_path: Path, family: str, way: str) -> None:
    made = recipe(parts, family, way)
    loaded = wrapped(made)
    run = saved(loaded, made, tmp_path / "run")
    found = merge.merged(run, made, "original")
    assert torch.allclose(logits(found), logits(loaded), atol=1e-4)
    found.model.save_pretrained(tmp_path / "merged")  # type: ignore[operator]
    again = type(found.model).from_pretrained(tmp_path / "merged")  # type: ignore[attr-defined]
    assert torch.allclose(logits(Loaded(again, None, found.backbone, {})), logits(found), atol=1e-6)


def test_both_merges_of_a_4_bit_run(parts: dict[str, Path], tmp_path: Path) -> None:
    made = recipe(parts, "llama", "lora", quantized=True)
    loaded = wrapped(made)
    expected = logits(loaded)
    run = saved(loaded, made, tmp_path / "run")
    small, large = (
        float((logits(merge.merged(run, made, into)) - expected).abs().max() / expected.std())
        for into in ("dequantized", "original")
    )
    assert small < 1e-3 < 0.01 < large < 3, (small, large)


LOADS = """
import sys, torch
import medvlm.models.git_llm
from transformers import AutoModelForImageTextToText
merged, inputs, out = sys.argv[1:]
with torch.no_grad():
    torch.save(AutoModelForImageTextToText.from_pretrained(merged).eval()(**torch.load(inputs)).logits, out)
"""


@pytest.mark.slow
def test_a_merged_one_loads_after_one_import(parts: dict[str, Path], tmp_path: Path) -> None:
    made = recipe(parts, "llama", "lora")
    loaded = wrapped(made)
    run = saved(loaded, made, tmp_path / "run")
    merge.merged(run, made, "original").model.save_pretrained(tmp_path / "merged")  # type: ignore[operator]
    inputs = {k: v for k, v in batch(loaded).items() if k not in ("labels", "logits_to_keep")}
    torch.save(inputs, tmp_path / "inputs.pt")
    script = tmp_path / "loads.py"
    script.write_text(LOADS, encoding="utf-8")
    arguments = [tmp_path / "merged", tmp_path / "inputs.pt", tmp_path / "out.pt"]
    subprocess.run([sys.executable, str(script), *map(str, arguments)], check=True, cwd=tmp_path)
    assert torch.allclose(torch.load(tmp_path / "out.pt"), logits(loaded), atol=1e-4)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_what_is_4_bit_and_what_is_trained(parts: dict[str, Path], family: str) -> None:
    made = recipe(parts, family, "lora", quantized=True)
    loaded = wrapped(made)
    counts = adapters.census(loaded.model, BACKBONES.get("git_llm"))
    assert counts["vision_tower"].trainable == counts["vision_tower"].quantized == 0
    assert counts["projector"].trainable == counts["projector"].total
    assert counts["head"].trainable == counts["head"].quantized == 0
    assert counts["embeddings"].trainable == counts["embeddings"].quantized == 0
    head = loaded.model.get_output_embeddings()
    assert type(head) is torch.nn.Linear
    # The plan, made without weights, says the same.
    with torch.device("meta"):
        planned = BACKBONES.get("git_llm").build(planned_config(made))
    names = set(quantize.would_be_quantized(planned, BACKBONES.get("git_llm")))
    planned = adapters.apply(planned, made.adapters, BACKBONES.get("git_llm"))
    assert adapters.census(planned, BACKBONES.get("git_llm"), names) == counts


def test_census_by_hand(parts: dict[str, Path]) -> None:
    loaded = wrapped(recipe(parts, "llama", "lora", quantized=True))
    config = loaded.model.config
    t, v, inner = config.text_config.hidden_size, config.vision_config.hidden_size, config.text_config.intermediate_size
    groups = config.text_config.num_key_value_heads * config.text_config.head_dim
    vocabulary, rank = config.text_config.vocab_size, 4
    counts = adapters.census(loaded.model, BACKBONES.get("git_llm"))
    layer = 2 * t * t + 2 * t * groups + 3 * t * inner
    assert counts["language_model"].quantized == 2 * layer
    assert counts["language_model"].trainable == 2 * rank * (2 * (t + t) + 2 * (t + groups) + 3 * (t + inner))
    assert counts["language_model"].total == 2 * layer + counts["language_model"].trainable + 2 * 2 * t + t
    assert counts["head"].total == counts["embeddings"].total == vocabulary * t
    assert counts["projector"].total == v * t + t + 2 * t


def test_gradients_in_4_bits_are_the_same_before_and_after_generating(parts: dict[str, Path]) -> None:
    made = recipe(parts, "llama", "lora", quantized=True)
    made = made.model_copy(update={"quantization": made.quantization.model_copy(update={"compute_dtype": "bfloat16"})})
    loaded = wrapped(made)

    def gradients() -> dict[str, torch.Tensor]:
        loaded.model.train()
        loaded.model.zero_grad()
        forward_loss(loaded.model, batch(loaded))[0].backward()
        return {n: p.grad.clone() for n, p in loaded.model.named_parameters() if p.grad is not None}

    before = gradients()
    model: Any = loaded.model.eval()
    model.generate(**loaded.backbone.collate_prompts([Example(picture(), "which side?")]), max_new_tokens=3)
    after = gradients()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
