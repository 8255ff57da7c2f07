"""A Flamingo generates with a cache as without, padded as alone, greedy as by hand, with beams, in several turns."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from flamingo_tiny import CHUNK, FAMILIES, IMAGE, model_of, pictures, rows

NEW = 5
# Nothing ends early, so that lengths agree.
OPEN: dict[str, Any] = {"max_new_tokens": NEW, "min_new_tokens": NEW, "pad_token_id": 0, "eos_token_id": 2}
PROMPTS = [[1, IMAGE, 21, 22, CHUNK, IMAGE, IMAGE, 23], [1, IMAGE, 31, 32], [1, 33, 34, 35]]
OWN = [slice(0, 3), slice(3, 4), slice(4, 4)]


def batch(which: slice = slice(None)) -> dict[str, torch.Tensor]:
    drawn = torch.cat([pictures(4)[own] for own in OWN[which]])
    return rows(PROMPTS[which], drawn, "left")


def scores(model: Any, inputs: dict[str, torch.Tensor], **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """New tokens [B, n] and their raw logits [B, n, V]."""
    made = model.generate(
        **inputs, **OPEN, do_sample=False, return_dict_in_generate=True, output_logits=True, **options
    )
    return made.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(made.logits, dim=1)


@torch.no_grad()
def by_hand(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, one whole forward pass a token, no cache and no `generate`."""
    ids, logits = inputs["input_ids"], []
    shown = {name: inputs[name] for name in ("pixel_values", "image_counts")}
    for _ in range(NEW):
        last = model(input_ids=ids, **shown, use_cache=False).logits[:, -1]
        logits.append(last.clone())
        last[:, 2] = -torch.inf
        ids = torch.cat([ids, last.argmax(dim=-1, keepdim=True)], dim=1)
    return ids[:, inputs["input_ids"].shape[1] :], torch.stack(logits, dim=1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_uncached_and_left_padded_decoding_agree(family: str, attention: str) -> None:
    model = model_of(family, attention)
    together, cached = scores(model, batch())
    _, plain = scores(model, batch(), use_cache=False)
    torch.testing.assert_close(cached, plain, atol=5e-5, rtol=1e-4)
    for row in range(3):
        tokens, logits = by_hand(model, batch(slice(row, row + 1)))
        assert together[row].tolist() == tokens[0].tolist()
        torch.testing.assert_close(cached[row], logits[0], atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["opt", "gemma3_text"])
def test_beams_find_the_likeliest_sequence(family: str) -> None:
    model = model_of(family)
    together, _ = scores(model, batch(), num_beams=3)
    for row in range(3):
        assert together[row].tolist() == beams(model, batch(slice(row, row + 1)), 3, NEW)


@torch.no_grad()
def beams(model: Any, inputs: dict[str, torch.Tensor], count: int, steps: int) -> list[int]:
    """Beam search as it is defined: keep the likeliest sequences, each scored by whole forward passes."""
    start = inputs["input_ids"][0].tolist()
    kept: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(steps):
        grown = []
        for score, tokens in kept:
            ids = torch.tensor([start + tokens])
            logits = model(input_ids=ids, pixel_values=inputs["pixel_values"], use_cache=False).logits[0, -1]
            likely = torch.log_softmax(logits, dim=-1)
            likely[2] = -torch.inf
            grown += [(score + float(likely[token]), [*tokens, token]) for token in likely.topk(count).indices.tolist()]
        kept = sorted(grown, reverse=True)[:count]
    return kept[0][1]


def test_a_static_cache_decodes_the_same() -> None:
    model = model_of("llama")
    dynamic, _ = scores(model, batch())
    static, _ = scores(model, batch(), cache_implementation="static", disable_compile=True)
    assert static.tolist() == dynamic.tolist()


@torch.no_grad()
def test_turn_by_turn_is_as_all_at_once() -> None:
    """Pictures may come later, too: what was seen last stays beside the cache, also in a copy of it."""
    model = model_of("qwen2")
    row = [1, IMAGE, 21, 22, 23, IMAGE, IMAGE, 24, 25, 26]
    drawn = pictures(3)
    expected = model(**rows([row], drawn), use_cache=False).logits
    for cuts in ([0, 3, 10], [0, 1, 4, 6, 9, 10], [0, 5, 10]):
        cache, found = None, []
        for start, end in itertools.pairwise(cuts):
            before, here = row[:start].count(IMAGE), row[start:end].count(IMAGE)
            shown = {"pixel_values": drawn[None, before : before + here]} if here else {}
            ids = torch.tensor([row[start:end]])
            made = model(input_ids=ids, past_key_values=copy.deepcopy(cache), use_cache=True, **shown)
            cache = made.past_key_values
            found.append(made.logits)
        torch.testing.assert_close(torch.cat(found, dim=1), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_keys_of_the_last_picture_are_made_once() -> None:
    model = model_of("llama")
    calls: list[int] = []
    for block in model.projector.blocks:
        block.attention.k_proj.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0].shape[1]))
    scores(model, batch())
    # In the prefill those of all pictures, in the first step after it those of the last, and then no more.
    assert calls == [24] * 2 + [8] * 2


def test_logits_to_keep_and_loss_are_as_the_language_model_s() -> None:
    model = model_of("opt")
    inputs = batch()
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -2:] = inputs["input_ids"][:, -2:].clamp(max=40)
    with torch.no_grad():
        whole = model(**inputs).logits
        mask = torch.rand(whole.shape[:2], generator=torch.Generator().manual_seed(0)) < 0.3
        torch.testing.assert_close(model(**inputs, logits_to_keep=2).logits, whole[:, -2:])
        torch.testing.assert_close(model(**inputs, logits_to_keep=mask).logits, whole[mask])
        loss = model(**inputs, labels=labels).loss
    expected = torch.nn.functional.cross_entropy(whole[:, -3:-1].flatten(0, 1), labels[:, -2:].flatten())
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("family", ["opt", "mpt", "gpt_neox"])
def test_activation_checkpointing_gives_the_same_gradients(family: str) -> None:
    def gradients(checkpointed: bool) -> dict[str, torch.Tensor]:
        model = model_of(family)
        if checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": False})
        # Dropout included: the second forward pass must draw what the first drew.
        torch.manual_seed(0)
        model.train()
        model(**batch()).logits.square().mean().backward()
        return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}

    plain, again = gradients(False), gradients(True)
    assert plain.keys() == again.keys()
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, msg=name)


@torch.no_grad()
def test_the_untrained_form_never_writes_our_own_tokens() -> None:
    from PIL import Image

    from medvlm.models.backbones.base import Example
    from medvlm.models.backbones.flamingo import FlamingoBackbone

    torch.manual_seed(0)
    model, processor = FlamingoBackbone.tiny(28, None)
    backbone = FlamingoBackbone(processor, image_tokens=16, max_prefix_tokens=9, max_suffix_tokens=9)
    own = [processor.image_token_id, processor.chunk_token_id]
    head: Any = model.get_output_embeddings()
    head.weight.zero_()
    # Whatever the hidden state, one of the two is the likeliest.
    head.weight[own[0], 0], head.weight[own[1], 0] = 1.0, -1.0
    inputs = backbone.collate_prompts([Example(Image.new("RGB", (28, 28), "red"), "what?")])
    assert int(model(**inputs).logits[0, -1].argmax()) in own
    written = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert not set(own) & set(written[0, inputs["input_ids"].shape[1] :].tolist())
