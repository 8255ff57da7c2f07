"""Packed rows: the loss of unpacked ones, and examples that see nothing of each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medvlm.models import tiny
from medvlm.models.backbones.base import IGNORED, Example
from medvlm.models.backbones.paligemma import PaliGemmaBackbone
from medvlm.train import loss as losses
from medvlm.train.loss import forward_loss

TOKENS = 64


def paligemma(**text: Any) -> tuple[Any, PaliGemmaBackbone]:
    torch.manual_seed(0)
    model, processor = tiny.random_model()
    if text:
        from transformers import Gemma2Config, PaliGemmaForConditionalGeneration

        kept = {k: v for k, v in model.config.text_config.to_dict().items() if k not in ("model_type", "architectures")}
        model.config.text_config = Gemma2Config(**{**kept, **text})
        model = PaliGemmaForConditionalGeneration._from_config(model.config, attn_implementation="eager")
    return model.eval(), PaliGemmaBackbone(processor, image_tokens=TOKENS, max_prefix_tokens=64, max_suffix_tokens=64)


@pytest.fixture(scope="module")
def first() -> tuple[Any, PaliGemmaBackbone]:
    return paligemma()


@pytest.fixture(scope="module")
def second() -> tuple[Any, PaliGemmaBackbone]:
    """PaliGemma 2: Gemma 2's layers, every second with a sliding window."""
    return paligemma(sliding_window=256, query_pre_attn_scalar=32)


def example(seed: int, prefix: str, suffix: str) -> Example:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    return Example(Image.fromarray(pixels), prefix, suffix)


EXAMPLES = [
    example(0, "caption en", "a nodule"),
    example(1, "answer en is there a large effusion on the left?", "no"),
    example(2, "report en", "Findings: a large left pleural effusion, and more. Impression: effusion."),
    example(3, "caption en", "normal chest"),
    example(4, "answer en side?", "left"),
]


def gradient(model: Any, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("per_example", [True, False])
@pytest.mark.parametrize("pack_tokens", [None, 1, 260])
def test_loss_gradients_and_sums_are_those_of_unpacked_rows(
    attention: str, per_example: bool, pack_tokens: int | None, first: tuple[Any, PaliGemmaBackbone]
) -> None:
    model, backbone = first
    model.set_attn_implementation(attention)
    apart = forward_loss(model, backbone.collate(EXAMPLES), per_example=per_example)
    expected = gradient(model, apart[0])
    packed = backbone.collate_packed(EXAMPLES, pack_tokens)
    assert len(packed["input_ids"]) == {None: 3, 1: 5, 260: 2}[pack_tokens]
    together = forward_loss(model, packed, per_example=per_example)
    for ours, theirs in zip(together, apart, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(gradient(model, together[0]), expected, atol=1e-5)
    model.set_attn_implementation("sdpa")


def test_a_ready_mask_reaches_full_and_sliding_layers(second: tuple[Any, PaliGemmaBackbone]) -> None:
    model, backbone = second
    assert set(model.config.text_config.layer_types) == {"full_attention", "sliding_attention"}
    apart = forward_loss(model, backbone.collate(EXAMPLES))
    together = forward_loss(model, backbone.collate_packed(EXAMPLES, 500))
    assert torch.allclose(together[1], apart[1], atol=1e-4)
    assert torch.allclose(together[0], apart[0], atol=1e-5)


def hidden(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the last hidden states [R, T, D] of packed rows, as the loss runs the model."""
    rest = {k: v for k, v in inputs.items() if k not in ("labels", "example_ids", "logits_to_keep")}
    rest["attention_mask"] = losses._attended(model, rest["attention_mask"])
    with torch.no_grad():
        found: torch.Tensor = model.model(**rest, use_cache=False).last_hidden_state
    return found


def leaks(model: Any, backbone: PaliGemmaBackbone, examples: list[Example], pack_tokens: int) -> None:
    """Change each example's picture and each of its text tokens in turn, and look at what moves."""
    packed = backbone.collate_packed(examples, pack_tokens)
    before = hidden(model, packed)
    rows, width = packed["input_ids"].shape
    starts = (packed["position_ids"] == 1) & (packed["input_ids"] == backbone.image_token_id)
    owner = starts.flatten().cumsum(0).view(rows, width)
    owner[packed["input_ids"] == backbone.tokenizer.pad_token_id] = 0
    assert int(owner.max()) == len(examples)
    for number in range(1, len(examples) + 1):
        mine = owner == number
        pixels = packed["pixel_values"].clone()
        pixels[number - 1] = -pixels[number - 1]
        moved = (hidden(model, {**packed, "pixel_values": pixels}) - before).abs().amax(dim=-1) > 1e-5
        assert not bool(moved[~mine].any()), "a picture is seen by another example"
        assert bool(moved[mine].all())
        suffix = mine & (packed["labels"] != IGNORED)
        text = mine & (packed["input_ids"] != backbone.image_token_id)
        for row, place in text.nonzero().tolist():
            ids = packed["input_ids"].clone()
            ids[row, place] = (ids[row, place] + 7) % 200 + 5
            moved = (hidden(model, {**packed, "input_ids": ids}) - before).abs().amax(dim=-1) > 1e-5
            assert not bool(moved[~mine].any()), "a token is seen by another example"
            assert bool(moved[row, place])
            if suffix[row, place]:
                assert not bool(moved[row, :place].any()), "a suffix token is seen by those before it"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_no_example_sees_another_and_no_suffix_token_is_seen_early(
    attention: str, first: tuple[Any, PaliGemmaBackbone]
) -> None:
    model, backbone = first
    model.set_attn_implementation(attention)
    leaks(model, backbone, [EXAMPLES[0], EXAMPLES[4], EXAMPLES[3]], 170)
    model.set_attn_implementation("sdpa")


def test_no_example_of_paligemma_2_sees_another(second: tuple[Any, PaliGemmaBackbone]) -> None:
    leaks(*second, [EXAMPLES[0], EXAMPLES[4]], 300)


@settings(max_examples=25, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 30)), min_size=1, max_size=7),
    room=st.integers(1, 900) | st.none(),
)
def test_any_lengths_give_the_sums_of_each_example_alone(
    first: tuple[Any, PaliGemmaBackbone], pairs: list[tuple[int, int]], room: int | None
) -> None:
    model, backbone = first
    listed = [example(i, "a" * before, "no " * after) for i, (before, after) in enumerate(pairs)]
    with torch.no_grad():
        _, apart, counts = forward_loss(model, backbone.collate(listed))
        _, together, packed_counts = forward_loss(model, backbone.collate_packed(listed, room))
    assert torch.equal(counts, packed_counts)
    assert torch.allclose(apart, together, rtol=1e-5, atol=1e-4)
