"""GIT-LLM's inputs: what of a prompt and an answer becomes which token, at every kind of tokenizer; and an overfit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from git_llm_tiny import picture, save_text, save_tower, text_config, tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medvlm.models.backbones.base import IGNORED, Example
from medvlm.models.backbones.git_llm import GitLlmBackbone
from medvlm.models.git_llm import GitLlmProcessor

IMAGE = 17
TOKENIZERS = ["gpt2", "opt", "qwen2", "llama"]
PROMPT = "##Instruction: Describe the picture. ##Question: which side? ##Answer:"


def images() -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})


def backbone(kind: str, prefix: int = 64, suffix: int = 64) -> GitLlmBackbone:
    processor = GitLlmProcessor(images(), tokenizer(kind), image_seq_length=IMAGE)
    return GitLlmBackbone(processor, image_tokens=IMAGE, max_prefix_tokens=prefix, max_suffix_tokens=suffix)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_row_reads_as_the_running_text_does(kind: str) -> None:
    made = backbone(kind)
    batch = made.collate([Example(picture(), PROMPT, "the right lung")])
    ids = batch["input_ids"][0].tolist()
    start = [] if made.tokenizer.bos_token_id is None else [made.tokenizer.bos_token_id]
    running = made.tokenizer(f"{PROMPT} the right lung", add_special_tokens=False)["input_ids"]
    # No token is lost or gained where prompt and answer meet, and the end is there to be learned.
    assert ids == [made.image_token_id] * IMAGE + start + running + [made.tokenizer.eos_token_id]
    learned = batch["labels"][0] != IGNORED
    assert made.decode(batch["labels"][:, learned]) == ["the right lung"]
    assert batch["labels"][0, -1] == made.tokenizer.eos_token_id


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_generation_begins_with_the_tokens_that_training_saw(kind: str) -> None:
    made = backbone(kind)
    examples = [Example(picture(), PROMPT, "the right lung"), Example(picture(), "a", "b")]
    training, prompts = made.collate(examples), made.collate_prompts(examples)
    for row in range(2):
        seen = prompts["attention_mask"][row] == 1
        prompt = prompts["input_ids"][row][seen]
        first_label = int((training["labels"][row] != IGNORED).nonzero()[0])
        assert prompt.tolist() == training["input_ids"][row, :first_label].tolist()
        # Padding lies on the left alone.
        assert seen.tolist() == sorted(seen.tolist())


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefix=st.text(max_size=60),
    suffix=st.text(max_size=60),
    most=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_truncation_keeps_the_end_token_and_every_image_token(
    kind: str, prefix: str, suffix: str, most: tuple[int, int]
) -> None:
    made = _cached_backbone(kind)
    made.max_prefix_tokens, made.max_suffix_tokens = most
    examples = [Example(picture(), prefix, suffix), Example(picture(), "caption", "x")]
    batch = made.collate(examples)
    assert (batch["input_ids"] == made.image_token_id).sum(dim=1).tolist() == [IMAGE, IMAGE]
    assert (batch["input_ids"][:, :IMAGE] == made.image_token_id).all()
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        last = int(mask.sum()) - 1
        assert ids[last] == made.tokenizer.eos_token_id == labels[last]
        answer = int((labels != IGNORED).sum())
        assert 1 <= answer <= most[1]
        assert last + 1 - IMAGE - answer <= most[0] + 1
    assert torch.equal(batch["logits_to_keep"][:, :-1], batch["labels"][:, 1:] != IGNORED)
    counts = made.text_tokens(prefix, suffix)
    assert sum(counts) == int(batch["attention_mask"][0].sum()) - IMAGE


_MADE: dict[str, GitLlmBackbone] = {}


def _cached_backbone(kind: str) -> GitLlmBackbone:
    if kind not in _MADE:
        _MADE[kind] = backbone(kind)
    return _MADE[kind]


def test_a_long_prompt_keeps_the_end_that_leads_into_the_answer() -> None:
    made = backbone("gpt2", prefix=4)
    whole = made.tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    assert made.collate_prompts([Example(picture(), PROMPT)])["input_ids"][0, IMAGE + 1 :].tolist() == whole[-4:]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_text_that_says_image_claims_no_place(kind: str) -> None:
    made = backbone(kind)
    batch = made.collate([Example(picture(), "what is <image> here", "an <image> of a chest")])
    assert int((batch["input_ids"] == made.image_token_id).sum()) == IMAGE


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_text_that_says_an_end_does_not_end(kind: str) -> None:
    made = backbone(kind)
    tokenizer = made.tokenizer
    said = " ".join({tokenizer.eos_token, tokenizer.bos_token or "", tokenizer.pad_token})
    batch = made.collate([Example(picture(), f"what {said} here", f"no {said} nodule")])
    first = IMAGE + (tokenizer.bos_token_id is not None)
    ids = batch["input_ids"][0]
    assert not {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id} & set(ids[first:-1].tolist())
    assert ids[-1] == tokenizer.eos_token_id
    assert (batch["labels"] == tokenizer.eos_token_id).sum() == 1


@pytest.mark.parametrize("reload", [False, True])
def test_a_padding_token_without_an_embedding_is_not_used(tmp_path: Path, reload: bool) -> None:
    from transformers import AutoModelForCausalLM

    made = tokenizer("llama")
    rows = len(made)
    made.add_special_tokens({"pad_token": "[PAD]"})
    assert made.pad_token_id == rows
    AutoModelForCausalLM.from_config(text_config("llama", rows)).save_pretrained(tmp_path / "text")
    made.save_pretrained(tmp_path / "text")
    paths = {"vision_tower": save_tower(tmp_path / "tower"), "language_model": tmp_path / "text"}
    options = {"dtype": torch.float32, "attn_implementation": "sdpa"}
    model, processor = GitLlmBackbone.load(paths, options, 0)
    if reload:
        model.save_pretrained(tmp_path / "both")
        processor.save_pretrained(tmp_path / "both")
        model, processor = GitLlmBackbone.load({"model": tmp_path / "both"}, options, 0)
    made_of = GitLlmBackbone(processor, image_tokens=IMAGE, max_prefix_tokens=32, max_suffix_tokens=32)
    examples = [Example(picture(), "which [PAD] side?", "the right [PAD] lobe"), Example(picture(), "a", "no")]
    for batch in (made_of.collate(examples), made_of.collate_prompts(examples)):
        batch.pop("labels", None)
        assert batch["attention_mask"].min() == 0
        assert torch.isfinite(model(**batch).logits).all()


@pytest.mark.parametrize("name", ["bos_token", "eos_token"])
def test_a_start_or_end_without_an_embedding_is_refused(name: str) -> None:
    from medvlm.errors import InputError

    made = tokenizer("llama")
    rows = len(made)
    made.add_special_tokens({name: "[NEW]"})
    processor = GitLlmProcessor(images(), made)
    with pytest.raises(InputError, match=rf"the tokenizer's {name} has id {rows}, .* embeds only {rows}; set another"):
        processor.fit(rows)


def test_a_tokenizer_without_an_end_is_refused() -> None:
    from medvlm.errors import InputError

    bare = tokenizer("gpt2")
    bare.eos_token = None
    with pytest.raises(InputError, match="the tokenizer has no end token; set eos_token"):
        GitLlmProcessor(images(), bare)


WORDS = [
    "a small nodule",
    "no effusion",
    "the left lung is clear",
    "a red mark",
    "right lower lobe",
    "the heart",
    "x",
    "two",
]


@pytest.mark.parametrize(("text", "kind"), [("opt", "opt"), ("mpt", "gpt2")])
def test_eight_samples_are_learned_word_for_word_and_it_stops(tmp_path: Path, text: str, kind: str) -> None:
    save_tower(tmp_path / "tower")
    save_text(tmp_path / "text", text, kind)
    paths = {"vision_tower": tmp_path / "tower", "language_model": tmp_path / "text"}
    model, processor = GitLlmBackbone.load(paths, {"dtype": torch.float32, "attn_implementation": "sdpa"}, 0)
    made = GitLlmBackbone(processor, image_tokens=IMAGE, max_prefix_tokens=32, max_suffix_tokens=32)
    # The pictures alone tell the samples apart.
    examples = [Example(picture(seed), "caption", words) for seed, words in enumerate(WORDS)]
    batch = made.collate(examples)
    labels = batch.pop("labels")
    model.requires_grad_(True)
    model.vision_tower.requires_grad_(False)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=3e-3)
    model.eval()
    wanted = labels[:, 1:][labels[:, 1:] != IGNORED]
    for _ in range(120):
        loss = torch.nn.functional.cross_entropy(model(**batch).logits, wanted)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.01:
            break
    new = model.generate(**made.collate_prompts(examples), max_new_tokens=24, do_sample=False)
    prompt = made.collate_prompts(examples)["input_ids"].shape[1]
    assert made.decode(new[:, prompt:]) == WORDS
    # Each sample ended by its end token, not by the limit.
    assert (new[:, prompt:] == made.tokenizer.eos_token_id).any(dim=1).all()
