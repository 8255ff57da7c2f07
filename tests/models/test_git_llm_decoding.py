"""GIT-LLM's generation: with a cache as without, padded as alone, greedy as by hand, with beams and by drawing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from git_llm_tiny import FAMILIES, IMAGE_SIZE, VOCABULARY, model_of

from medvlm.models.backbones.rows import pad_prompts

IMAGE = 17
NEW = 6
# Nothing ends early, so that lengths agree.
OPEN: dict[str, Any] = {"max_new_tokens": NEW, "min_new_tokens": NEW, "pad_token_id": 0, "eos_token_id": 2}
PROMPTS = [[21, 22, 23, 24, 25], [31, 32]]


def _pixels() -> torch.Tensor:
    return torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(5))


def _batch(model: Any, which: slice = slice(None)) -> dict[str, torch.Tensor]:
    prompts = [[model.config.image_token_id] * IMAGE + prompt for prompt in PROMPTS[which]]
    return {**pad_prompts(prompts, 0), "pixel_values": _pixels()[which]}


def _scores(model: Any, batch: dict[str, torch.Tensor], **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """New tokens [B, n] and their raw logits [B, n, V]."""
    made = model.generate(**batch, **OPEN, do_sample=False, return_dict_in_generate=True, output_logits=True, **options)
    return made.sequences[:, batch["input_ids"].shape[1] :], torch.stack(made.logits, dim=1)


@torch.no_grad()
def _by_hand(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, one whole forward pass a token, no cache and no `generate`."""
    ids, logits = batch["input_ids"], []
    for _ in range(NEW):
        last = model(input_ids=ids, pixel_values=batch["pixel_values"], use_cache=False).logits[:, -1]
        logits.append(last.clone())
        last[:, 2] = -torch.inf
        ids = torch.cat([ids, last.argmax(dim=-1, keepdim=True)], dim=1)
    return ids[:, batch["input_ids"].shape[1] :], torch.stack(logits, dim=1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_uncached_and_left_padded_decoding_agree(family: str, attention: str) -> None:
    model = model_of(family, attention)
    together, cached = _scores(model, _batch(model))
    _, plain = _scores(model, _batch(model), use_cache=False)
    torch.testing.assert_close(cached, plain, atol=5e-5, rtol=1e-4)
    for row in range(2):
        alone = _batch(model, slice(row, row + 1))
        tokens, logits = _by_hand(model, alone)
        assert together[row].tolist() == tokens[0].tolist()
        torch.testing.assert_close(cached[row], logits[0], atol=5e-5, rtol=1e-4)


def test_a_static_cache_decodes_the_same() -> None:
    model = model_of("llama")
    dynamic, _ = _scores(model, _batch(model))
    static, _ = _scores(model, _batch(model), cache_implementation="static", disable_compile=True)
    assert static.tolist() == dynamic.tolist()


@torch.no_grad()
def _beams(model: Any, batch: dict[str, torch.Tensor], beams: int, steps: int) -> list[int]:
    """Beam search as it is defined: keep the likeliest sequences, each scored by whole forward passes."""
    start = batch["input_ids"][0].tolist()
    kept: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(steps):
        grown = []
        for score, tokens in kept:
            ids = torch.tensor([start + tokens])
            logits = model(input_ids=ids, pixel_values=batch["pixel_values"], use_cache=False).logits[0, -1]
            likely = torch.log_softmax(logits, dim=-1)
            likely[2] = -torch.inf
            grown += [(score + float(likely[token]), [*tokens, token]) for token in likely.topk(beams).indices.tolist()]
        kept = sorted(grown, reverse=True)[:beams]
    return kept[0][1]


@pytest.mark.parametrize("family", ["opt", "mpt", "gemma3_text"])
def test_beams_find_the_likeliest_sequence(family: str) -> None:
    model = model_of(family)
    together, _ = _scores(model, _batch(model), num_beams=3)
    for row in range(2):
        assert together[row].tolist() == _beams(model, _batch(model, slice(row, row + 1)), 3, NEW)


def test_drawing_follows_the_seed_and_never_draws_the_placeholder() -> None:
    model = model_of("mpt")
    options = {**OPEN, "do_sample": True, "temperature": 3.0, "top_p": 0.95, "max_new_tokens": 40}
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(model.generate(**_batch(model), **options)[:, IMAGE + 5 :].tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    assert max(max(row) for row in drawn[0]) < VOCABULARY


def test_logits_to_keep_takes_a_number_an_index_and_a_mask() -> None:
    model = model_of("opt")
    batch = _batch(model)
    with torch.no_grad():
        whole = model(**batch).logits
        mask = torch.rand(whole.shape[:2], generator=torch.Generator().manual_seed(0)) < 0.3
        index = torch.tensor([2, 19])
        torch.testing.assert_close(model(**batch, logits_to_keep=2).logits, whole[:, -2:])
        torch.testing.assert_close(model(**batch, logits_to_keep=index).logits, whole[:, index])
        torch.testing.assert_close(model(**batch, logits_to_keep=mask).logits, whole[mask])


def test_softcapping_of_logits_stays() -> None:
    model = model_of("gemma2")
    cap = model.config.text_config.final_logit_softcapping
    with torch.no_grad():
        capped = model(**_batch(model)).logits
        model.config.text_config.final_logit_softcapping = None
        plain = model(**_batch(model)).logits
    torch.testing.assert_close(capped, cap * torch.tanh(plain / cap))


def test_the_loss_is_the_mean_over_labels() -> None:
    model = model_of("llama")
    batch = _batch(model)
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, -2:] = batch["input_ids"][:, -2:]
    with torch.no_grad():
        made = model(**batch, labels=labels)
    expected = torch.nn.functional.cross_entropy(made.logits[:, -3:-1].flatten(0, 1), labels[:, -2:].flatten())
    torch.testing.assert_close(made.loss, expected)


@pytest.mark.parametrize("family", ["opt", "mpt", "gpt_neox"])
def test_activation_checkpointing_gives_the_same_gradients(family: str) -> None:
    def gradients(checkpointed: bool) -> list[torch.Tensor]:
        model = model_of(family)
        if checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": False})
        # Dropout included: the second forward pass must draw what the first drew.
        torch.manual_seed(0)
        model.train()
        model(**_batch(model)).logits.square().mean().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, again)
