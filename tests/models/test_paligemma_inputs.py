"""PaliGemma's inputs against Hugging Face's own processor, and the prefix-LM mask against leaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from medvlm.models import tiny
from medvlm.models.backbones.base import Example
from medvlm.models.backbones.paligemma import IGNORED, PaliGemmaBackbone

TOKENS = 64


@pytest.fixture(scope="module")
def bare() -> tuple[Any, Any]:
    torch.manual_seed(0)
    model, processor = tiny.random_model()
    return model.eval(), processor


def backbone_of(processor: Any, prefix: int = 64, suffix: int = 64) -> PaliGemmaBackbone:
    return PaliGemmaBackbone(processor, image_tokens=TOKENS, max_prefix_tokens=prefix, max_suffix_tokens=suffix)


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (90, 70, 3), dtype=np.uint8))


PAIRS = [
    ("caption en", "A small nodule."),
    ("answer en Is there a nodule?", "yes"),
    ("report en", "Findings: no\nend."),
]


def test_same_inputs_as_the_processor_of_transformers(bare: tuple[Any, Any]) -> None:
    _, processor = bare
    images = [picture(i) for i in range(len(PAIRS))]
    ours = backbone_of(processor).collate([Example(i, p, s) for i, (p, s) in zip(images, PAIRS, strict=True)])
    for row, (image, (prefix, suffix)) in enumerate(zip(images, PAIRS, strict=True)):
        theirs = processor(images=image, text=f"<image>{prefix}", suffix=suffix)
        length = len(theirs["input_ids"][0])
        for name in ("input_ids", "token_type_ids", "labels"):
            assert ours[name][row, :length].tolist() == list(theirs[name][0]), name
        assert ours["attention_mask"][row].sum() == length
        assert np.array_equal(ours["pixel_values"][row].numpy(), np.asarray(theirs["pixel_values"][0]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefix=st.text(max_size=80),
    suffix=st.text(max_size=200),
    most=st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
def test_truncation_keeps_eos_and_every_image_token(
    bare: tuple[Any, Any], prefix: str, suffix: str, most: tuple[int, int]
) -> None:
    _, processor = bare
    made = backbone_of(processor, *most)
    batch = made.collate([Example(picture(), prefix, suffix), Example(picture(), "caption en", "x")])
    assert (batch["input_ids"] == made.image_token_id).sum(dim=1).tolist() == [TOKENS, TOKENS]
    for ids, mask, types, labels in zip(
        batch["input_ids"], batch["attention_mask"], batch["token_type_ids"], batch["labels"], strict=True
    ):
        last = int(mask.sum()) - 1
        assert ids[last] == processor.tokenizer.eos_token_id == labels[last]
        # The loss lies on the suffix and nowhere else.
        assert torch.equal(labels != IGNORED, types == 1)
        assert int((types == 1).sum()) <= most[1]
        assert last + 1 - TOKENS - int((types == 1).sum()) <= most[0] + 2
    # One logit is kept for each label, at the position before it.
    assert torch.equal(batch["logits_to_keep"][:, :-1], batch["labels"][:, 1:] != IGNORED)


def _logits(model: Any, batch: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "logits_to_keep")}
    with torch.no_grad():
        logits: torch.Tensor = model(**{**inputs, "input_ids": ids}, use_cache=False).logits
    return logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [True, False])
def test_no_suffix_token_is_seen_by_those_before_it(bare: tuple[Any, Any], attention: str, padded: bool) -> None:
    model, processor = bare
    model.set_attn_implementation(attention)
    examples = [Example(picture(), "caption en", "a small left nodule in the lung.")]
    if padded:
        examples.append(
            Example(picture(1), "answer en which side of the chest is it on?", "left and right, a longer one")
        )
    batch = backbone_of(processor).collate(examples)
    before = _logits(model, batch, batch["input_ids"])
    suffix = (batch["token_type_ids"][0] == 1).nonzero().flatten().tolist()
    for place in suffix:
        ids = batch["input_ids"].clone()
        ids[0, place] = (ids[0, place] + 7) % 200 + 5
        after = _logits(model, batch, ids)
        assert torch.allclose(before[0, :place], after[0, :place], atol=1e-5), f"token {place} leaks backwards"
        assert not torch.allclose(before[0, place], after[0, place], atol=1e-5)
    model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_prefix_sees_all_of_itself(bare: tuple[Any, Any], attention: str) -> None:
    model, processor = bare
    model.set_attn_implementation(attention)
    batch = backbone_of(processor).collate([Example(picture(), "answer en left or right?", "left")])
    before = _logits(model, batch, batch["input_ids"])
    last_of_prefix = int((batch["token_type_ids"][0] == 0).sum()) - 1
    ids = batch["input_ids"].clone()
    ids[0, last_of_prefix - 1] += 1
    after = _logits(model, batch, ids)
    # The first image token sees a later prompt token, because the prefix attends in both directions.
    assert not torch.allclose(before[0, 0], after[0, 0], atol=1e-6)
    model.set_attn_implementation("sdpa")


def test_cached_left_padded_decoding_equals_uncached_alone(bare: tuple[Any, Any]) -> None:
    model, processor = bare
    made = backbone_of(processor)
    examples = [Example(picture(i), p) for i, p in enumerate(["caption en", "answer en is there a large nodule?"])]
    together = model.generate(**made.collate_prompts(examples), max_new_tokens=12, do_sample=False)
    for row, example in enumerate(examples):
        alone = made.collate_prompts([example])
        width = alone["input_ids"].shape[1]
        plain = model.generate(**alone, max_new_tokens=12, do_sample=False, use_cache=False)
        new = together[row, together.shape[1] - 12 :][: plain.shape[1] - width]
        assert new.tolist() == plain[0, width:].tolist()


def test_a_text_that_says_image_claims_no_place(bare: tuple[Any, Any]) -> None:
    _, processor = bare
    made = backbone_of(processor)
    batch = made.collate([Example(picture(), "what is <image> here", "an <image> of a chest")])
    assert int((batch["input_ids"] == made.image_token_id).sum()) == TOKENS


def test_a_text_that_says_an_end_does_not_end(bare: tuple[Any, Any]) -> None:
    made = backbone_of(bare[1])
    said = "<eos> x <bos> <pad> <loc0012><seg003>"
    ids = made.collate([Example(picture(), f"what {said}", f"no {said} nodule")])["input_ids"][0].tolist()
    tokenizer = made.tokenizer
    places = tokenizer.convert_tokens_to_ids(["<loc0012>", "<seg003>"])
    assert [ids.count(place) for place in places] == [2, 2]
    assert ids[TOKENS] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert not {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id} & set(ids[TOKENS + 1 : -1])


def test_resizing_gives_the_new_number_of_image_tokens() -> None:
    torch.manual_seed(0)
    model, processor = tiny.random_model()
    assert PaliGemmaBackbone.resize(model, processor, 448)
    made = PaliGemmaBackbone(processor, image_tokens=1024, max_prefix_tokens=16, max_suffix_tokens=16)
    batch = made.collate([Example(picture(), "caption en", "a nodule")])
    assert batch["pixel_values"].shape[-2:] == (448, 448)
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    assert torch.isfinite(model(**inputs).logits).all()
