"""What a Flamingo's tokens look at: the last picture before them alone, or none; no answer leaks; rows do not mix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flamingo_tiny import CHUNK, FAMILIES, IMAGE, LATENTS, logits_of, model_of, pictures, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.models.backbones.rows import pack_rows
from medvlm.models.flamingo import modeling
from medvlm.models.flamingo.layers import CrossAttention, GatedBlock, Resampler
from medvlm.models.flamingo.processing import by_row

ATTENTIONS = ["sdpa", "eager"]
TOKENS = st.lists(st.sampled_from([IMAGE, 5, 6, 7]), min_size=1, max_size=12)


def last_before(row: list[int]) -> list[int]:
    """The article's phi by its words, token by token: number of the last picture up to it, -1 for none."""
    found, last = [], -1
    for token in row:
        last += token == IMAGE
        found.append(last)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=4))
def test_each_token_looks_at_the_last_picture_before_it(examples: list[list[int]]) -> None:
    width = max(map(len, examples))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in examples])
    places = modeling._places(ids == IMAGE, None, None)
    for row, found in zip(examples, places.tolist(), strict=True):
        assert found[: len(row)] == last_before(row)
    # Packed into one row, each example begins anew, its pictures counted on.
    joint = torch.tensor([[token for row in examples for token in row]])
    restarts = torch.tensor([[number == 0 for row in examples for number in range(len(row))]])
    expected, before = [], 0
    for row in examples:
        expected += [before + place if place >= 0 else -1 for place in last_before(row)]
        before += row.count(IMAGE)
    assert modeling._places(joint == IMAGE, restarts, None)[0].tolist() == expected
    sight = modeling._sight(torch.zeros(len(examples), max(1, width), 3, 4), places)
    assert sight is not None
    for number, row in enumerate(examples):
        for token, place in enumerate(last_before(row)):
            seen = sight.mask[number, 0, token].view(-1, 3)
            assert bool(sight.blind[number, token]) == (place < 0)
            if place >= 0:
                assert seen.all(dim=1).nonzero().flatten().tolist() == [place]
                assert int(seen.sum()) == 3


@pytest.mark.parametrize("attention", ATTENTIONS)
@torch.no_grad()
def test_a_block_is_the_article_s_arithmetic(attention: str) -> None:
    """One token at a time, head by head, over the latents of its picture alone."""
    model = model_of("llama", attention)
    block: GatedBlock = model.projector.blocks[0]
    torch.manual_seed(1)
    hidden, latents = torch.randn(2, 6, 64), torch.randn(2, 3, LATENTS, 64)
    places = torch.tensor([[-1, 0, 0, 1, 2, 2], [-1, -1, -1, 0, 0, 0]])
    sight = modeling._sight(latents, places)
    assert sight is not None
    found, _ = block(hidden, sight.latents, sight.mask, sight.blind)
    inner = block.attention
    for row in range(2):
        for token in range(6):
            value = hidden[row, token]
            place = int(places[row, token])
            attended = torch.zeros(64)
            if place >= 0:
                normed = torch.nn.functional.layer_norm(value, (64,), block.norm.weight, block.norm.bias)
                query = (inner.q_proj.weight @ normed).view(4, 16)
                keys = (latents[row, place] @ inner.k_proj.weight.T).view(LATENTS, 4, 16)
                values = (latents[row, place] @ inner.v_proj.weight.T).view(LATENTS, 4, 16)
                heads = []
                for head in range(4):
                    weights = torch.softmax(keys[:, head] @ query[head] / 4.0, dim=0)
                    heads.append(weights @ values[:, head])
                attended = inner.o_proj.weight @ torch.cat(heads)
            value = value + torch.tanh(block.attention_gate) * attended
            part = block.feed_forward
            wide = part.up_proj.weight @ torch.nn.functional.layer_norm(value, (64,), part.norm.weight, part.norm.bias)
            value = value + torch.tanh(block.feed_forward_gate) * (part.down_proj.weight @ wide.clamp(min=0) ** 2)
            torch.testing.assert_close(found[row, token], value, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_without_a_picture_the_attention_adds_exactly_nothing() -> None:
    model = model_of("llama")
    block = model.projector.blocks[0]
    block.feed_forward_gate.zero_()
    hidden = torch.randn(2, 5, 64)
    sight = modeling._sight(torch.randn(2, 2, LATENTS, 64), torch.tensor([[-1, -1, 0, 0, 1], [-1] * 5]))
    assert sight is not None
    found, _ = block(hidden, sight.latents, sight.mask, sight.blind)
    assert torch.equal(found[0, :2], hidden[0, :2])
    assert torch.equal(found[1], hidden[1])
    assert not torch.isclose(found[0, 2:], hidden[0, 2:]).all(dim=1).any()


@torch.no_grad()
def test_the_resampler_makes_as_many_latents_of_any_number_of_features() -> None:
    model = model_of("llama")
    made: Resampler = model.projector.resampler
    short, long = torch.randn(2, 5, 64), torch.randn(1, 40, 64)
    assert made(short).shape == (2, LATENTS, 64)
    assert made(long).shape == (1, LATENTS, 64)
    # Each picture for itself, and features have no order of their own.
    torch.testing.assert_close(made(short)[1:], made(short[1:]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made(short), made(short[:, torch.tensor([3, 1, 4, 0, 2])]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(made(short)[0], made(short)[1], atol=1e-2)
    layer = made.layers[0]
    latents = made.latents.expand(2, -1, -1)
    own = layer.norm_latents(latents)
    seen = torch.cat([layer.norm_features(short), own], dim=1)
    attention: CrossAttention = layer.attention
    query, (key, value) = attention._split(attention.q_proj(own)), attention.keys_values(seen)
    weights = (query @ key.transpose(-1, -2) / 4.0).softmax(dim=-1)
    expected = latents + attention.o_proj((weights @ value).transpose(1, 2).flatten(2))
    expected = expected + layer.feed_forward(expected)
    torch.testing.assert_close(layer(latents, short), expected, atol=1e-4, rtol=1e-4)


def shown(changed: int | None = None) -> tuple[list[list[int]], torch.Tensor]:
    prompts = [[1, 4, IMAGE, 21, 22, CHUNK, IMAGE, 23, 24, 25, 26], [1, IMAGE, 31, 32], [1, 33, 34]]
    if changed is not None:
        prompts[0][changed] += 40
    return prompts, pictures(3)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_and_no_picture_is_seen_from_before(family: str, attention: str) -> None:
    model = model_of(family, attention)
    whole, drawn = shown()
    for side in ("right", "left"):
        before = logits_of(model, rows(whole, drawn, side))
        width = before.shape[1]
        starts = [0 if side == "right" else width - len(row) for row in whole]
        for place in (1, 3, 8, 10):
            after = logits_of(model, rows(shown(place)[0], drawn, side))
            here = starts[0] + place
            torch.testing.assert_close(after[0, starts[0] : here], before[0, starts[0] : here], atol=1e-5, rtol=1e-4)
            assert not torch.allclose(after[0, here], before[0, here], atol=1e-2)
            for row in (1, 2):
                end = starts[row] + len(whole[row])
                torch.testing.assert_close(
                    after[row, starts[row] : end], before[row, starts[row] : end], atol=1e-5, rtol=1e-4
                )
        for number, (row, token) in enumerate(((0, 2), (0, 6), (1, 1))):
            other = drawn.clone()
            other[number] = -other[number]
            moved = (logits_of(model, rows(whole, other, side)) - before).abs().amax(dim=2)
            for one, start in enumerate(starts):
                ahead = token if one == row else len(whole[one])
                assert bool((moved[one, start : start + ahead] < 1e-5).all())
            assert bool((moved[row, starts[row] + token : starts[row] + len(whole[row])] > 1e-4).all())


@pytest.mark.parametrize("family", FAMILIES)
def test_an_example_is_the_same_alone_padded_packed_and_in_any_order(family: str) -> None:
    model = model_of(family)
    whole, drawn = shown()
    own = [drawn[:2], drawn[2:], drawn[:0]]
    alone = [logits_of(model, rows([row], mine))[0] for row, mine in zip(whole, own, strict=True)]
    for order in ([0, 1, 2], [2, 0, 1]):
        batch = rows([whole[one] for one in order], torch.cat([own[one] for one in order]))
        found = logits_of(model, batch)
        for row, one in enumerate(order):
            torch.testing.assert_close(found[row, : len(whole[one])], alone[one], atol=2e-5, rtol=1e-4)
    if family == "bloom":
        return
    packed = pack_rows([row[:3] for row in whole], [row[3:] or [0] for row in whole], [0] * 3, pad=0, pack_tokens=40)
    assert packed.order == [0, 1, 2]
    inputs = {name: packed.inputs[name] for name in ("input_ids", "attention_mask", "position_ids")}
    found = logits_of(model, {**inputs, "pixel_values": by_row(drawn, [3]), "image_counts": torch.tensor([3])})[0]
    start = 0
    for row, expected in zip(whole, alone, strict=True):
        torch.testing.assert_close(found[start : start + len(row)], expected, atol=2e-5, rtol=1e-4)
        start += max(len(row), 4)


def test_pictures_and_their_tokens_must_agree() -> None:
    model = model_of("llama")
    inputs = rows([[IMAGE, 4, IMAGE], [IMAGE, 5, 6]])
    with pytest.raises(ValueError, match=r"rows of \[2, 1\] image tokens and of \[1, 2\] pictures"):
        model(**inputs | {"image_counts": torch.tensor([1, 2])})
    with pytest.raises(ValueError, match=r"rows of \[2, 1\] image tokens and of \[1, 1\] pictures"):
        model(**inputs | {"pixel_values": inputs["pixel_values"][:, :1], "image_counts": None})
    with pytest.raises(ValueError, match="give either input_ids or inputs_embeds"):
        model()


@pytest.mark.parametrize(
    "prompts", [[[IMAGE, 4, IMAGE, 5], [6, 7, 8, 9]], [[4, 5, 6], [7, 8, 9]]], ids=["some", "none"]
)
def test_every_new_parameter_takes_part_in_every_pass(prompts: list[list[int]]) -> None:
    model: Any = model_of("opt").train()
    model(**rows(prompts)).logits.square().mean().backward()
    unused = [name for name, value in model.projector.named_parameters() if value.grad is None]
    assert unused == []
    if sum(row.count(IMAGE) for row in prompts) == 0:
        attention = [value.grad for name, value in model.projector.named_parameters() if "resampler" in name]
        assert not any(bool(gradient.any()) for gradient in attention)
