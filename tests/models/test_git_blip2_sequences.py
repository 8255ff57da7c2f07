"""GIT, BLIP-2 and InstructBLIP alike: nothing leaks, the loss is transformers' own, generation is the full forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_backbones import KINDS, PAIRS, backbone_of, examples, fresh, picture, shared, taken

from medvlm.models.backbones.base import IGNORED, Example

NEW = 6
ATTENTIONS = [(name, kind) for name in KINDS for kind in ("sdpa", "eager") if (name, kind) != ("git", "sdpa")]


def end_of(backbone: Any) -> int:
    end: int = getattr(backbone, "end_token_id", backbone.tokenizer.sep_token_id)
    return end


@torch.no_grad()
def logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    found: torch.Tensor = model(**taken(batch), use_cache=False).logits
    return found


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(("name", "attention"), ATTENTIONS)
def test_no_answer_token_is_seen_from_before(name: str, attention: str, padded: bool) -> None:
    model, processor = shared(name)
    model.set_attn_implementation(attention)
    batch = backbone_of(name, processor).collate(examples(*((2, 0) if padded else (0,))))
    before = logits(model, batch)
    # GIT's logits begin with the picture, which has no ids.
    ahead = before.shape[1] - batch["input_ids"].shape[1]
    for place in (batch["labels"][0] != IGNORED).nonzero().flatten().tolist():
        changed = {**batch, "input_ids": batch["input_ids"].clone()}
        changed["input_ids"][0, place - ahead] = (batch["input_ids"][0, place - ahead] + 9) % 200 + 5
        after = logits(model, changed)
        torch.testing.assert_close(after[0, :place], before[0, :place], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(after[0, place], before[0, place], atol=1e-3)
    model.set_attn_implementation("eager" if name == "git" else "sdpa")


@pytest.mark.parametrize("name", KINDS)
def test_padding_and_neighbors_change_nothing(name: str) -> None:
    model, processor = shared(name)
    made = backbone_of(name, processor)
    together = made.collate(examples())
    all_logits = logits(model, together)
    for row in range(len(PAIRS)):
        alone = logits(model, made.collate(examples(row)))[0]
        torch.testing.assert_close(all_logits[row, : len(alone)], alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_is_that_of_transformers(name: str) -> None:
    model, processor = shared(name)
    batch = backbone_of(name, processor).collate(examples())
    loss, sums, counts = backbone_of(name, processor).losses(model, batch)
    # Their GIT takes labels of the text alone.
    labels = batch["labels"][:, -batch["input_ids"].shape[1] :]
    with torch.no_grad():
        theirs = model(**taken(batch), labels=labels).loss
    torch.testing.assert_close(loss.detach(), theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sums.sum() / counts.sum(), theirs, atol=1e-5, rtol=1e-5)
    assert counts.tolist() == [made[1] for made in (backbone_of(name, processor).text_tokens(*pair) for pair in PAIRS)]


@pytest.mark.parametrize("name", KINDS)
def test_the_order_of_a_batch_does_not_matter(name: str) -> None:
    model, processor = shared(name)
    made = backbone_of(name, processor)
    order = [2, 0, 1]
    _, plain, counts = made.losses(model, made.collate(examples()))
    _, turned, others = made.losses(model, made.collate(examples(*order)))
    torch.testing.assert_close(turned, plain[order], atol=1e-4, rtol=1e-5)
    assert others.tolist() == counts[order].tolist()
    said = made.answer(model, made.collate_prompts(examples()), NEW, {"do_sample": False})
    again = made.answer(model, made.collate_prompts(examples(*order)), NEW, {"do_sample": False})
    assert again == [said[place] for place in order]


@torch.no_grad()
def by_hand(model: Any, batch: dict[str, torch.Tensor], end: int) -> tuple[list[int], torch.Tensor]:
    """One whole forward pass a token, no cache, no padding, no `generate`: tokens [n] and logits [n, V]."""
    ids, found = batch["input_ids"], []
    rest = {key: value for key, value in taken(batch).items() if key not in ("input_ids", "attention_mask")}
    for _ in range(NEW):
        last = model(input_ids=ids, **rest, use_cache=False).logits[:, -1]
        found.append(last[0].clone())
        last[:, end] = -torch.inf
        ids = torch.cat([ids, last.argmax(dim=-1, keepdim=True)], dim=1)
    return ids[0, -NEW:].tolist(), torch.stack(found)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(("name", "attention"), ATTENTIONS)
def test_left_padded_generation_is_the_full_forward_alone(name: str, attention: str, use_cache: bool) -> None:
    model, processor = shared(name)
    model.set_attn_implementation(attention)
    made = backbone_of(name, processor)
    end = end_of(made)
    batch = made.collate_prompts(examples())
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "use_cache": use_cache}
    out = model.generate(
        **batch,
        **options,
        eos_token_id=end,
        pad_token_id=made.tokenizer.pad_token_id,
        return_dict_in_generate=True,
        output_logits=True,
    )
    scores = torch.stack(out.logits, dim=1)
    assert batch["attention_mask"].min() == 0
    for row in range(len(PAIRS)):
        tokens, expected = by_hand(model, made.collate_prompts(examples(row)), end)
        assert out.sequences[row, batch["input_ids"].shape[1] :].tolist() == tokens
        torch.testing.assert_close(scores[row], expected, atol=5e-5, rtol=1e-4)
    model.set_attn_implementation("eager" if name == "git" else "sdpa")


@pytest.mark.parametrize("name", KINDS)
def test_generation_begins_with_the_tokens_that_training_saw(name: str) -> None:
    made = backbone_of(name, shared(name)[1])
    training, prompts = made.collate(examples()), made.collate_prompts(examples())
    for row in range(len(PAIRS)):
        seen = prompts["attention_mask"][row] == 1
        ahead = training["labels"].shape[1] - training["input_ids"].shape[1]
        first = int((training["labels"][row] != IGNORED).nonzero()[0]) - ahead
        assert prompts["input_ids"][row][seen].tolist() == training["input_ids"][row, :first].tolist()
        assert seen.tolist() == sorted(seen.tolist())
    for key in ("qformer_input_ids", "qformer_attention_mask"):
        assert (key in training) == (key in prompts) == (name == "instructblip")
        assert key not in training or torch.equal(training[key], prompts[key])


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefix=st.text(max_size=60),
    suffix=st.text(max_size=60),
    most=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_truncation_keeps_the_end_and_the_picture(name: str, prefix: str, suffix: str, most: tuple[int, int]) -> None:
    made = backbone_of(name, shared(name)[1], *most)
    batch = made.collate([Example(picture(), prefix, suffix), Example(picture(), "caption", "x")])
    width = batch["input_ids"].shape[1]
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        last = int(mask.sum()) - 1
        answer = labels[-width:] != IGNORED
        assert ids[last] == end_of(made) == labels[-width:][last]
        # The answer is one run, which ends with the end token, the only one in it.
        assert answer.nonzero().flatten().tolist() == list(range(last + 1 - int(answer.sum()), last + 1))
        assert (ids[answer] == end_of(made)).sum() == 1
        assert 1 <= int(answer.sum()) <= most[1]
        pictures = 0 if name == "git" else int((ids == made.image_token_id).sum())
        assert pictures == (0 if name == "git" else made.image_tokens)
        assert last + 1 - pictures - int(answer.sum()) <= most[0] + 1
    assert torch.equal(batch["logits_to_keep"][:, :-1], batch["labels"][:, 1:] != IGNORED)
    before, after = made.text_tokens(prefix, suffix)
    assert made.image_tokens + before + after == made.true_lengths(batch)[0]


@pytest.mark.parametrize("name", KINDS)
def test_a_text_that_says_a_special_token_has_none(name: str) -> None:
    made = backbone_of(name, shared(name)[1])
    tokenizer = made.tokenizer
    words = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.cls_token, tokenizer.sep_token}
    said = " ".join(sorted(word for word in {*words, "<image>"} if word))
    plain = made.collate([Example(picture(), "what here", "no nodule")])
    batch = made.collate([Example(picture(), f"what {said} here", f"no {said} nodule")])
    special = {tokenizer.convert_tokens_to_ids(word) for word in words if word}
    for token in special:
        assert (batch["input_ids"] == token).sum() == (plain["input_ids"] == token).sum()
    assert (batch["labels"] == end_of(made)).sum() == 1


WORDS = ["a small nodule", "no effusion", "the left lung is clear", "right lower lobe"]


@pytest.mark.parametrize("name", KINDS)
def test_samples_are_learned_word_for_word_and_it_stops(name: str) -> None:
    kind, family = KINDS[name]
    torch.manual_seed(0)
    model, processor = kind.tiny(56, family)
    model.eval()
    made = backbone_of(name, processor)
    # The pictures alone tell the samples apart.
    samples = [Example(picture(seed), "caption", words) for seed, words in enumerate(WORDS)]
    batch = made.collate(samples)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(150):
        loss, _, _ = made.losses(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.02:
            break
    assert made.answer(model, made.collate_prompts(samples), 24, {"do_sample": False}) == WORDS


def test_the_tiny_families_that_there_are() -> None:
    from medvlm.errors import InputError

    for name in ("git", "blip2"):
        with pytest.raises(InputError, match=r"medvlm/tiny-random-other: \w+ has no such family; expected "):
            KINDS[name][0].tiny(None, "other")
    assert {name: type(fresh(name)[0]).__name__ for name in KINDS} == {
        "git": "GitForCausalLM",
        "blip2": "Blip2ForConditionalGeneration",
        "instructblip": "InstructBlipForConditionalGeneration",
    }
