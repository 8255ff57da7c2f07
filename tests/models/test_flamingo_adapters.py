"""Flamingo adapted, saved, loaded and merged: every way of training it; and it learns, its gates opening."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from git_llm_tiny import picture, save_text, save_tower
from PIL import Image
from saved_run import logits_for, saved

from medvlm.models import adapters, merge, quantize, trained
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import IGNORED, Example
from medvlm.models.load import Loaded, load_base, planned_config
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe
from medvlm.train.collate import Collator
from medvlm.train.loss import forward_loss

KIND = BACKBONES.get("flamingo")
NF4 = {"mode": "nf4", "compute_dtype": "float32"}
FAMILIES = {"llama": "llama", "gpt_neox": "gpt2", "opt": "opt", "gpt2": "gpt2", "mpt": "gpt2"}
"""Untied heads called lm_head and embed_out; tied ones; layers that are transposed."""
WAYS: dict[str, dict[str, Any]] = {
    "frozen": {"language_model": "frozen", "projector": "full"},
    "lora": {"language_model": {"kind": "lora", "r": 4}, "projector": "full"},
    "dora": {"language_model": {"kind": "dora", "r": 4}, "projector": "full"},
    "head": {"language_model": "frozen", "projector": "full", "head": "full"},
    "vision": {"language_model": "frozen", "projector": "full", "vision_tower": {"kind": "lora", "r": 2}},
    "decoder": {"language_model": "full", "projector": "full", "vision_tower": {"kind": "lora", "r": 2}},
    "whole": {"language_model": "full", "projector": "full", "vision_tower": "full", "head": "full"},
}
EXAMPLES = [
    Example(picture(), "a small nodule", "in the left lung", more_images=(picture(2),)),
    Example(picture(1), "", "no", shots=(Example(picture(3), "x", "y"),)),
    Example(None, "what", "nothing"),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    found = {family: save_text(folder / family, family, kind) for family, kind in FAMILIES.items()}
    return {**found, "tower": save_tower(folder / "tower")}


def recipe(parts: dict[str, Path], family: str, way: str, quantized: bool = False) -> Recipe:
    model = {
        "backbone": "flamingo",
        "vision_tower": str(parts["tower"]),
        "language_model": str(parts[family]),
        "dtype": "float32",
    }
    raw: dict[str, Any] = {"name": "t", "model": model, "data": [{"path": "d"}], "adapters": WAYS[way]}
    return check({**raw, "quantization": NF4 if quantized else {"mode": "none"}}, "test")


def wrapped(made: Recipe, seed: int = 5) -> Loaded:
    """Return the model with everything that is trained moved from where it began, gates well open."""
    loaded = load_base(made)
    loaded.model = adapters.apply(loaded.model, made.adapters, KIND)
    adapters.trainable_in_float32(loaded.model)
    torch.manual_seed(seed)
    for name, parameter in loaded.model.named_parameters():
        if parameter.requires_grad:
            parameter.data += (0.7 if name.endswith("_gate") else 0.02) * torch.randn_like(parameter)
    return loaded


def logits(loaded: Loaded) -> torch.Tensor:
    return logits_for(loaded, loaded.backbone.collate(EXAMPLES))


CASES = [
    *(("llama", way, False) for way in WAYS),
    *(("opt", way, False) for way in ("lora", "decoder", "whole")),
    ("gpt_neox", "head", False),
    ("gpt2", "lora", False),
    ("mpt", "lora", False),
    ("llama", "lora", True),
    ("opt", "frozen", True),
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
    trained.begin_from(again.model, run, made, KIND)
    assert torch.allclose(logits(again), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "way"), [("llama", "lora"), ("llama", "frozen"), ("opt", "decoder"), ("gpt2", "lora")]
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


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "opt", "mpt"])
def test_what_is_4_bit_and_what_is_trained(parts: dict[str, Path], family: str) -> None:
    made = recipe(parts, family, "lora", quantized=True)
    loaded = wrapped(made)
    counts = adapters.census(loaded.model, KIND)
    assert counts["vision_tower"].trainable == counts["vision_tower"].quantized == 0
    assert counts["projector"].trainable == counts["projector"].total > 0
    assert counts["projector"].quantized == counts["head"].trainable == counts["head"].quantized == 0
    assert counts["embeddings"].trainable == counts["embeddings"].quantized == 0
    assert counts["language_model"].quantized > 0
    # The plan, made without weights, says the same.
    with torch.device("meta"):
        planned = KIND.build(planned_config(made))
    names = set(quantize.would_be_quantized(planned, KIND))
    planned = adapters.apply(planned, made.adapters, KIND)
    assert adapters.census(planned, KIND, names) == counts


def test_gradients_in_4_bits_are_the_same_before_and_after_generating(parts: dict[str, Path]) -> None:
    made = recipe(parts, "llama", "lora", quantized=True)
    made = made.model_copy(update={"quantization": made.quantization.model_copy(update={"compute_dtype": "bfloat16"})})
    loaded = wrapped(made)

    def gradients() -> dict[str, torch.Tensor]:
        loaded.model.train()
        loaded.model.zero_grad()
        forward_loss(loaded.model, loaded.backbone.collate(EXAMPLES))[0].backward()
        return {n: p.grad.clone() for n, p in loaded.model.named_parameters() if p.grad is not None}

    before = gradients()
    model: Any = loaded.model.eval()
    model.generate(**loaded.backbone.collate_prompts(EXAMPLES), max_new_tokens=3)
    after = gradients()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("way", ["frozen", "lora"])
def test_the_loss_is_transformers_own_padded_and_packed(parts: dict[str, Path], way: str) -> None:
    loaded = wrapped(recipe(parts, "llama", way))
    model: Any = loaded.model.eval()
    batch = loaded.backbone.collate(EXAMPLES)
    with torch.no_grad():
        ours, sums, counts = forward_loss(model, batch)
        whole = {name: value for name, value in batch.items() if name != "logits_to_keep"}
        theirs = model(**whole).loss
        packed = Collator(loaded.backbone, True, None)(EXAMPLES)
        again, packed_sums, packed_counts = forward_loss(model, packed)
    assert float(ours) == pytest.approx(float(theirs), abs=1e-5)
    assert float(again) == pytest.approx(float(ours), abs=1e-5)
    assert counts.tolist() == packed_counts.tolist() == (batch["labels"] != IGNORED).sum(dim=1).tolist()
    torch.testing.assert_close(packed_sums, sums, atol=1e-4, rtol=1e-5)


WORDS = {"black": "no effusion", "white": "a small nodule", "red": "the heart", "blue": "right lobe"}


@pytest.mark.slow
def test_pictures_are_told_apart_by_what_is_new_alone(parts: dict[str, Path]) -> None:
    """Language model and tower stay frozen; the pictures alone tell the samples apart, so that gates must open."""
    made = recipe(parts, "llama", "frozen")
    loaded = load_base(made)
    model: Any = adapters.apply(loaded.model, made.adapters, KIND)
    examples = [Example(Image.new("RGB", (30, 30), color), "caption", words) for color, words in WORDS.items()]
    batch = loaded.backbone.collate(examples)
    gates = {name: p for name, p in model.named_parameters() if name.endswith("_gate")}
    assert len(gates) == 4
    assert not any(bool(gate.any()) for gate in gates.values())
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=5e-3)
    losses = []
    for _ in range(100):
        loss = forward_loss(model, batch)[0]
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        # The frozen head of this language model allows no loss below about 0.07.
        if losses[-1] < 0.12:
            break
    assert losses[-1] < 0.2 < 4 < losses[0]
    assert all(bool(gate.abs() > 1e-3) for gate in gates.values())
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in frozen.items())
    prompts = loaded.backbone.collate_prompts(examples)
    new = model.eval().generate(**prompts, max_new_tokens=24, do_sample=False)[:, prompts["input_ids"].shape[1] :]
    assert loaded.backbone.decode(new) == list(WORDS.values())
    assert (new == loaded.backbone.tokenizer.eos_token_id).any(dim=1).all()
