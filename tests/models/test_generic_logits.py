"""What chat models compute of their inputs: nothing of an answer before it is said, the same alone and together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from generic_tiny_models import EACH, FAMILIES, backbone, logits, mixed, picture, untrained
from torch.nn import functional

from medvlm.models.backbones.base import IGNORED, Example

NEAR = 3e-5
"""Logits of random weights have a standard deviation of about 1."""


@pytest.fixture
def attention(request: pytest.FixtureRequest) -> Any:
    family, kind = request.param
    model, _ = untrained(family)
    model.set_attn_implementation(kind)
    yield family
    model.set_attn_implementation("sdpa")


@pytest.mark.parametrize(
    "attention", [(f, k) for f in FAMILIES if f != "idefics3" for k in ("sdpa", "eager")], indirect=True, ids=str
)
@pytest.mark.parametrize("padded", [True, False])
def test_no_token_of_an_answer_is_seen_by_those_before_it(attention: str, padded: bool) -> None:
    model, _ = untrained(attention)
    examples = [Example(picture(), "Describe it.", "a small left nodule in the lung."), *mixed()[3:]]
    batch = backbone(attention).collate(examples if padded else examples[:1])
    before = logits(model, batch)
    places = (batch["labels"][0] != IGNORED).nonzero().flatten().tolist()
    for place in (places[0], places[len(places) // 2], places[-1]):
        ids = batch["input_ids"].clone()
        ids[0, place] = 300 + (ids[0, place] + 7) % 100
        after = logits(model, {**batch, "input_ids": ids})
        assert torch.allclose(before[0, :place], after[0, :place], atol=NEAR), f"token {place} leaks backwards"
        assert not torch.allclose(before[0, place], after[0, place], atol=1e-3)


@pytest.mark.parametrize("family", EACH)
def test_who_sees_whom_in_a_prompt(family: str) -> None:
    model, processor = untrained(family)
    made = backbone(family)
    batch = made.collate([Example(picture(), "Describe it.", "a nodule")])
    before = logits(model, batch)
    image = torch.isin(batch["input_ids"][0], torch.tensor(processor.image_token_ids)).nonzero().flatten().tolist()
    other = made.collate([Example(picture(9), "Describe it.", "a nodule")])
    moved = (before - logits(model, other)).abs().amax(dim=-1)[0]
    # The picture moves all that stands behind it, the answer too, and nothing before it.
    start = image[0]
    assert (moved[:start] < NEAR).all()
    assert (moved[image[-1] :] > 1e-3).all()
    if len(image) > 1:
        # Within a picture Gemma 3 sees both ways: its first token goes by its last.
        values = batch["pixel_values"].clone()
        values.flatten()[-3000:] *= -1
        first = (before - logits(model, {**batch, "pixel_values": values})).abs().amax(dim=-1)[0, start]
        assert first > 1e-4 or family != "gemma3"


@pytest.mark.parametrize("family", EACH)
def test_a_row_is_the_same_alone_and_beside_others_in_any_order(family: str) -> None:
    model, _ = untrained(family)
    made, examples = backbone(family), mixed()
    together = logits(model, made.collate(examples))
    reversed_ = logits(model, made.collate(examples[::-1]))
    for row, example in enumerate(examples):
        alone = logits(model, made.collate([example]))[0]
        assert torch.allclose(together[row, : len(alone)], alone, atol=NEAR)
        assert torch.allclose(reversed_[len(examples) - 1 - row, : len(alone)], alone, atol=NEAR)


@pytest.mark.parametrize("family", EACH)
def test_the_order_of_pictures_and_shots_matters(family: str) -> None:
    model, _ = untrained(family)
    made = backbone(family)
    one = Example(picture(1), "Compare.", "same", more_images=(picture(2),))
    other = Example(picture(2), "Compare.", "same", more_images=(picture(1),))
    first, second = (logits(model, made.collate([example]))[0, -1] for example in (one, other))
    assert not torch.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("family", EACH)
def test_the_loss_is_that_of_transformers(family: str) -> None:
    model, _ = untrained(family)
    made = backbone(family)
    batch = made.collate(mixed())
    inputs = {name: value for name, value in batch.items() if name != "logits_to_keep"}
    with torch.no_grad():
        ours, sums, counts = made.losses(model, batch)
        if family == "idefics":
            # Its own loss reshapes logits by a vocabulary without the added tokens, and fails.
            every = logits(model, batch)[:, :-1].flatten(0, 1)
            theirs = functional.cross_entropy(every, batch["labels"][:, 1:].flatten())
        else:
            theirs = model(**inputs, use_cache=False).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert counts.tolist() == (batch["labels"] != IGNORED).sum(dim=1).tolist()
    assert (sums.sum() / counts.sum()).item() == pytest.approx(theirs.item(), rel=1e-5)


def greedy(model: Any, batch: dict[str, torch.Tensor], steps: int) -> list[int]:
    """Return the likeliest tokens one after the other, each by a whole forward pass without a cache."""
    from medvlm.models.backbones.generic_rows import continued

    found: list[int] = []
    for _ in range(steps):
        found.append(int(logits(model, batch)[0, -1].argmax()))
        batch = continued(batch, found[-1:])
    return found


@pytest.mark.parametrize("family", EACH)
def test_cached_left_padded_generation_is_greedy_decoding_of_each_alone(family: str) -> None:
    model, _ = untrained(family)
    made, examples = backbone(family), mixed()
    batch = made.collate_prompts(examples)
    tokens = model.generate(**batch, max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=made.pad)
    for row, example in enumerate(examples):
        expected = greedy(model, made.collate_prompts([example]), 6)
        assert tokens[row, batch["input_ids"].shape[1] :].tolist() == expected


@pytest.mark.parametrize("family", EACH)
def test_beams_keep_each_row_its_own_pictures(family: str) -> None:
    model, _ = untrained(family)
    made, examples = backbone(family), mixed()
    search = {"do_sample": False, "num_beams": 2}
    together = made.answer(model, made.collate_prompts(examples), 5, search)
    alone = [made.answer(model, made.collate_prompts([example]), 5, search)[0] for example in examples]
    assert together == alone


@pytest.mark.parametrize("family", EACH)
def test_an_answer_ends_with_the_turn(family: str) -> None:
    model, processor = untrained(family)
    made = backbone(family)
    batch = made.collate_prompts(mixed()[:1])
    width = batch["input_ids"].shape[1]
    end = processor.tokenizer(made.chat.end, add_special_tokens=False)["input_ids"][-1]
    said = processor.tokenizer("left", add_special_tokens=False)["input_ids"][-1]

    def forced(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        wanted = end if ids.shape[1] == width + 1 else said
        return torch.full_like(scores, -100.0).index_fill_(1, torch.tensor([wanted]), 0.0)

    from transformers import LogitsProcessorList

    search = {"do_sample": False, "logits_processor": LogitsProcessorList([forced])}
    answer = made.answer(model, batch, 5, search)
    assert answer == [made.decode(torch.tensor([[said]]))[0]]


def test_prompts_without_any_picture_are_answered_too() -> None:
    for family in FAMILIES:
        model, _ = untrained(family)
        made = backbone(family)
        words = [Example(None, "Which side?", "left"), Example(None, "And what else is there to be seen?", "nothing")]
        batch = made.collate(words)
        together = logits(model, batch)
        for row, example in enumerate(words):
            alone = logits(model, made.collate([example]))[0]
            assert torch.allclose(together[row, : len(alone)], alone, atol=NEAR)
        assert len(made.answer(model, made.collate_prompts(words), 3, {"do_sample": False})) == 2
