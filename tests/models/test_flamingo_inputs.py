"""Flamingo's rows: what stands where, several pictures, answered examples, truncation, what a text may not claim."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from git_llm_tiny import picture, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.models.backbones.base import IGNORED, Example
from medvlm.models.backbones.flamingo import FlamingoBackbone
from medvlm.models.flamingo import FlamingoProcessor
from medvlm.train.loss import examples_in

KINDS = ["gpt2", "opt", "qwen2", "llama"]
PROMPT, ANSWER = "Question: which side? Answer:", "the right lung"
_MADE: dict[str, FlamingoBackbone] = {}


def backbone(kind: str, prefix: int = 32, suffix: int = 32) -> FlamingoBackbone:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    if kind not in _MADE:
        square = {"height": 28, "width": 28}
        processor = FlamingoProcessor(CLIPImageProcessorPil(size=square, crop_size=square), tokenizer(kind))
        _MADE[kind] = FlamingoBackbone(processor, image_tokens=8, max_prefix_tokens=32, max_suffix_tokens=32)
    made = _MADE[kind]
    made.max_prefix_tokens, made.max_suffix_tokens = prefix, suffix
    return made


def words(made: FlamingoBackbone, text: str) -> list[int]:
    found: list[int] = made.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_start_picture_prompt_line_end_answer_end(kind: str) -> None:
    made = backbone(kind)
    tok, ids = made.tokenizer, made.processor
    batch = made.collate([Example(picture(), PROMPT, ANSWER)])
    start = [] if tok.bos_token_id is None else [tok.bos_token_id]
    before = [*start, ids.image_token_id, *words(made, PROMPT), *words(made, "\n")]
    after = [*words(made, ANSWER), tok.eos_token_id]
    assert batch["input_ids"][0].tolist() == before + after
    assert batch["labels"][0].tolist() == [IGNORED] * len(before) + after
    assert torch.equal(batch["logits_to_keep"][:, :-1], batch["labels"][:, 1:] != IGNORED)
    assert batch["pixel_values"].shape == (1, 1, 3, 28, 28)
    assert made.text_tokens(PROMPT, ANSWER) == (len(before) - 1, len(after))
    prompt = made.collate_prompts([Example(picture(), PROMPT)])
    assert prompt["input_ids"][0].tolist() == before
    own = made.processor(images=picture(), text=PROMPT)
    assert torch.equal(own["input_ids"], prompt["input_ids"])
    assert torch.equal(own["pixel_values"], prompt["pixel_values"])


@pytest.mark.parametrize("kind", KINDS)
def test_answered_examples_come_first_each_with_its_pictures(kind: str) -> None:
    made = backbone(kind)
    ids = made.processor
    shots = (
        Example(picture(1), "caption", "a nodule", more_images=(picture(2),)),
        Example(None, "what is a lung", "an organ"),
    )
    example = Example(picture(3), PROMPT, ANSWER, more_images=(picture(4),), shots=shots)
    batch = made.collate([Example(picture(5), "caption", "no"), example, Example(None, "caption", "none")])
    start = [] if made.tokenizer.bos_token_id is None else [made.tokenizer.bos_token_id]
    image, chunk, line = ids.image_token_id, ids.chunk_token_id, words(made, "\n")
    expected = [
        *start,
        *[image, image, *words(made, "caption"), *line, *words(made, "a nodule"), chunk],
        *[*words(made, "what is a lung"), *line, *words(made, "an organ"), chunk],
        *[image, image, *words(made, PROMPT), *line, *words(made, ANSWER), made.tokenizer.eos_token_id],
    ]
    assert batch["input_ids"][1].tolist() == expected
    # Nothing that is shown has a loss.
    answer = [*words(made, ANSWER), made.tokenizer.eos_token_id]
    assert batch["labels"][1][batch["labels"][1] != IGNORED].tolist() == answer
    assert batch["image_counts"].tolist() == [1, 4, 0]
    assert FlamingoBackbone.images_in(batch) == 5
    values = batch["pixel_values"]
    assert values.shape == (3, 4, 3, 28, 28)
    alone = [made.collate([Example(picture(n), "a", "b")])["pixel_values"][0, 0] for n in range(6)]
    assert torch.equal(values[0, 0], alone[5])
    for place, number in enumerate((1, 2, 3, 4)):
        assert torch.equal(values[1, place], alone[number])
    assert not values[0, 1:].any()
    assert not values[2].any()
    packed = made.collate_packed([Example(picture(5), "caption", "no"), example, Example(None, "caption", "none")], 400)
    assert packed["image_counts"].tolist() == [5]
    assert examples_in(packed) == 3
    # Rows take the longest first.
    assert torch.equal(packed["pixel_values"][0], torch.stack([*alone[1:5], alone[5]]))


def test_a_batch_without_any_picture_has_an_empty_one() -> None:
    made = backbone("opt")
    for batch in (
        made.collate([Example(None, "a", "b"), Example(None, "c", "d")]),
        made.collate_prompts([Example(None, "a"), Example(None, "c")]),
    ):
        assert batch["pixel_values"].shape == (2, 1, 3, 28, 28)
        assert not batch["pixel_values"].any()
        assert batch["image_counts"].tolist() == [0, 0]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(
    prefix=st.text(max_size=40),
    suffix=st.text(max_size=40),
    shot=st.tuples(st.text(max_size=20), st.text(max_size=20)),
    most=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_truncation_keeps_pictures_ends_and_budgets(
    kind: str, prefix: str, suffix: str, shot: tuple[str, str], most: tuple[int, int]
) -> None:
    made = backbone(kind, *most)
    tok, ids = made.tokenizer, made.processor
    example = Example(picture(), prefix, suffix, shots=(Example(picture(1), *shot),))
    batch = made.collate([example, Example(picture(), "a", "b")])
    row = batch["input_ids"][0][batch["attention_mask"][0].bool()].tolist()
    assert row.count(ids.image_token_id) == 2
    assert row.count(ids.chunk_token_id) == 1
    assert row[-1] == tok.eos_token_id
    assert 1 <= int((batch["labels"][0] != IGNORED).sum()) <= most[1]
    chunk = row.index(ids.chunk_token_id)
    line = len(words(made, "\n"))
    assert chunk <= 1 + 1 + most[0] + line + most[1]
    assert len(row) - chunk - 1 <= 1 + most[0] + line + most[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_claims_no_picture_and_ends_nothing(kind: str) -> None:
    made = backbone(kind)
    tok, ids = made.tokenizer, made.processor
    said = f"<image> <|endofchunk|> {tok.eos_token}"
    batch = made.collate([Example(picture(), f"what {said} here", f"no {said} nodule")])
    row = batch["input_ids"][0].tolist()
    assert row.count(ids.image_token_id) == 1
    assert row.count(ids.chunk_token_id) == 0
    assert row[1:].count(tok.eos_token_id) == 1
    assert row[-1] == tok.eos_token_id


def test_the_order_of_a_batch_does_not_matter() -> None:
    made = backbone("llama")
    examples: list[Any] = [Example(picture(n), "a" * n, "b", more_images=(picture(9),) * (n % 2)) for n in range(3)]
    forward, back = made.collate(examples), made.collate(examples[::-1])
    for name, value in forward.items():
        assert torch.equal(value, back[name].flip(0)), name


def test_cached_pictures_and_features_take_the_same_place() -> None:
    made = backbone("llama")
    values = torch.randn(3, 28, 28)
    batch = made.collate([Example(None, "a", "b", pixels=values), Example(None, "a", "b", pixels=values + 1)])
    assert torch.equal(batch["pixel_values"], torch.stack([values, values + 1])[:, None])
    assert batch["image_counts"].tolist() == [1, 1]
    features = torch.randn(17, 64)
    assert torch.equal(made.collate([Example(None, "a", "b", pixels=features)])["pixel_values"], features[None, None])


def test_bytes_of_several_pictures_become_their_values() -> None:
    from medvlm.data import pixels
    from medvlm.models.backbones.rows import finished

    made = backbone("llama")
    fast = pixels.of(made.image_processor)
    assert fast is not None
    kept = torch.stack([torch.from_numpy(fast.bytes_of(picture(n))) for n in range(4)]).reshape(2, 2, 3, 28, 28)
    expected = torch.stack([made.collate([Example(picture(n), "a", "b")])["pixel_values"][0, 0] for n in range(4)])
    assert torch.equal(finished(made.image_processor, kept).flatten(0, 1), expected)
