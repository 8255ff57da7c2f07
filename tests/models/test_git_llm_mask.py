"""GIT's mask: against one drawn pair by pair, against transformers' own GIT, and against leaks in every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from git_llm_tiny import FAMILIES, IMAGE_SIZE, VOCABULARY, model_of, text_config

from medvlm.models.backbones.rows import pack_rows, pad_prompts, pad_rows
from medvlm.models.git_llm import assemble, masks

IMAGE = 17
ATTENTIONS = ["sdpa", "eager"]


def _prompt(model: Any, *tokens: int) -> list[int]:
    return [model.config.image_token_id] * IMAGE + list(tokens)


def _pixels(count: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def _logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    taken = ("input_ids", "inputs_embeds", "attention_mask", "position_ids", "pixel_values")
    logits: torch.Tensor = model(**{name: inputs[name] for name in taken if name in inputs}, use_cache=False).logits
    return logits


def _drawn(image: int, length: int, padding: int = 0) -> torch.Tensor:
    """The article's mask, pair by pair: True where row attends to column."""
    mask = torch.zeros(padding + length, padding + length, dtype=torch.bool)
    for query in range(length):
        for key in range(length):
            sees = key < image if query < image else key <= query
            mask[padding + query, padding + key] = sees
    return mask


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("padding", [0, 3])
def test_the_mask_is_the_article_s(attention: str, padding: int) -> None:
    config = text_config("llama")
    config._attn_implementation = attention
    is_image = torch.zeros(1, padding + 7, dtype=torch.bool)
    is_image[0, padding : padding + 3] = True
    attended = (torch.arange(padding + 7) >= padding).long()[None]
    embeds = torch.zeros(1, padding + 7, 4)
    mask = masks.git_mask(config, embeds, attended, masks.positions(attended, 0, embeds), None, is_image)
    seen = mask if attention == "sdpa" else mask == 0
    assert seen.dtype == torch.bool
    assert torch.equal(seen[0, 0, padding:], _drawn(3, 7, padding)[padding:])


def test_the_mask_is_that_of_transformers_git() -> None:
    from transformers import GitConfig, GitForCausalLM

    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = GitConfig(vision_config={**vision, "image_size": 8, "patch_size": 4}, vocab_size=32, **sizes)
    published = GitForCausalLM(config).eval()
    caught: list[torch.Tensor] = []
    published.git.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: caught.append(kwargs["attention_mask"]), with_kwargs=True
    )
    with torch.no_grad():
        published(input_ids=torch.tensor([[5, 6, 7, 8]]), pixel_values=torch.zeros(1, 3, 8, 8))
    theirs = caught[0] if caught[0].dtype == torch.bool else caught[0] == 0
    assert torch.equal(theirs[0, 0], _drawn(5, 9))


def _inputs(model: Any, rows: str, changed: int | None = None) -> tuple[dict[str, torch.Tensor], list[tuple[int, int]]]:
    """Two examples as inputs, and where each lies (row, first place); `changed`: a text token of the first to alter."""
    first, second = [21, 22, 23, 24, 25, 26], [31, 32, 33]
    if changed is not None:
        first[changed] += 40
    prompts, answers = [_prompt(model, *first[:2]), _prompt(model, second[0])], [first[2:], second[1:]]
    if rows == "packed":
        packed = pack_rows(prompts, answers, [IMAGE, IMAGE], pad=0, pack_tokens=None)
        assert packed.order == [0, 1]
        return {**packed.inputs, "pixel_values": _pixels(2)}, [(0, 0), (0, IMAGE + 6)]
    whole = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    if rows == "left":
        return {**pad_prompts(whole, 0), "pixel_values": _pixels(2)}, [(0, 0), (1, 3)]
    return {**pad_rows(prompts, answers, 0), "pixel_values": _pixels(2)}, [(0, 0), (1, 0)]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_is_seen_from_before(family: str, attention: str) -> None:
    model = model_of(family, attention)
    alone = _logits(model, {"input_ids": torch.tensor([_prompt(model, 31, 32, 33)]), "pixel_values": _pixels(2)[1:]})
    for rows in ("right", "left", "packed"):
        plain, places = _inputs(model, rows)
        before = _logits(model, plain)
        # An example is the same with others in its row, its batch, and with padding on either side.
        row, start = places[1]
        torch.testing.assert_close(before[row, start : start + IMAGE + 3], alone[0], atol=2e-5, rtol=1e-4)
        row, start = places[0]
        for place in range(6):
            after = _logits(model, _inputs(model, rows, changed=place)[0])
            here = start + IMAGE + place
            torch.testing.assert_close(after[row, start:here], before[row, start:here], atol=1e-5, rtol=1e-4)
            assert not torch.allclose(after[row, here], before[row, here], atol=1e-2), (rows, place)
        other, at = places[1]
        span = slice(at, at + IMAGE + 3)
        torch.testing.assert_close(after[other, span], before[other, span], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_image_sees_itself_whole_and_text_sees_it(family: str) -> None:
    model = model_of(family)
    embeds = torch.randn(1, 24, model.projector.linear.out_features, generator=torch.Generator().manual_seed(1)) * 0.15
    other = embeds.clone()
    other[0, IMAGE - 1] = -other[0, IMAGE - 1]
    is_image = (torch.arange(24) < IMAGE)[None]
    with torch.no_grad():
        before = model.decode(embeds, is_image, use_cache=False).logits[0]
        after = model.decode(other, is_image, use_cache=False).logits[0]
    moved = (before - after).abs().amax(dim=1)
    # Text as far as it reaches: the sliding window of some families is 12 tokens.
    assert (moved[: IMAGE + 5] > 1e-4).all()


def test_a_family_without_a_test_is_probed_and_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from medvlm.errors import InputError

    model = model_of("llama")
    monkeypatch.setattr(assemble, "TESTED", set())
    assemble.check_mask(model)
    monkeypatch.setattr(masks, "git_mask", lambda *args, **kwargs: None)
    with pytest.raises(InputError, match=r"^model\.language_model: llama does not obey GIT's mask; choose another$"):
        assemble.check_mask(model)


def test_every_image_token_needs_its_feature() -> None:
    model = model_of("llama")
    assert model.config.image_token_id > VOCABULARY
    with pytest.raises(ValueError, match="17 image tokens for \\(2, 17\\) image features"):
        model(input_ids=torch.tensor([_prompt(model, 4)]), pixel_values=_pixels(2))


def test_an_image_that_is_missing_is_not_made_up() -> None:
    model = model_of("llama")
    ids = torch.tensor([_prompt(model, 4, 5)])
    with pytest.raises(ValueError, match="17 image tokens and no pixel_values"):
        model(input_ids=ids)
    text = torch.tensor([[4, 5, 6]])
    alone = _logits(model.language_model, {"input_ids": text})
    assert torch.allclose(_logits(model, {"input_ids": text}), alone, atol=1e-5)


@pytest.mark.parametrize(("family", "attention"), [("llama", "sdpa"), ("opt", "eager"), ("mpt", "eager")])
def test_embeddings_alone_need_the_whole_mask(family: str, attention: str) -> None:
    model = model_of(family, attention)
    ids, pixels = torch.tensor([_prompt(model, 4, 5, 6)]), _pixels(1)
    embeds = model.get_input_embeddings()(ids.masked_fill(ids == model.config.image_token_id, 0))
    with torch.no_grad():
        embeds[:, :17] = model.get_image_features(pixels)
    with pytest.raises(ValueError, match=r"give attention_mask as \[B, 1, T, T\]"):
        model(inputs_embeds=embeds)
    mask = torch.ones(20, 20, dtype=torch.bool).tril()
    mask[:17, :17] = True
    found = _logits(model, {"inputs_embeds": embeds, "attention_mask": mask[None, None]})
    expected = _logits(model, {"input_ids": ids, "pixel_values": pixels})
    assert torch.allclose(found, expected, atol=1e-4)
