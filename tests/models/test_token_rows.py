"""Rows of tokens: packing against the examples alone, and against the fewest rows that could do."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.models.backbones.base import IGNORED
from medvlm.models.backbones.rows import first_fit, pack_rows, pad_prompts, pad_rows

EXAMPLES = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(sizes=EXAMPLES, room=st.one_of(st.none(), st.integers(1, 40)), prefix_lm=st.booleans())
def test_packed_examples_are_those_alone_and_blind_to_each_other(
    sizes: list[tuple[int, int, int]], room: int | None, prefix_lm: bool
) -> None:
    # Every token is its own number, so that each can be found again.
    count = iter(range(100, 1000))
    prefixes = [[next(count) for _ in range(image + prompt)] for image, prompt, _ in sizes]
    suffixes = [[next(count) for _ in range(answer)] for _, _, answer in sizes]
    blocks = [image + prompt if prefix_lm else image for image, prompt, _ in sizes]
    packed = pack_rows(prefixes, suffixes, blocks, pad=0, pack_tokens=room, first_position=1)
    inputs = packed.inputs
    assert sorted(packed.order) == list(range(len(sizes)))
    lengths = [len(prefix) + len(suffix) for prefix, suffix in zip(prefixes, suffixes, strict=True)]
    assert inputs["input_ids"].shape[1] <= max(room or 2 * max(lengths), max(lengths))
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    row_of, place_of = {}, {}
    for row, places in enumerate(ids.tolist()):
        for place, token in enumerate(places):
            if token:
                row_of[token], place_of[token] = row, place
            else:
                assert mask[row, 0, place].nonzero().flatten().tolist() == [place]
    for number, (prefix, suffix) in enumerate(zip(prefixes, suffixes, strict=True)):
        tokens = prefix + suffix
        row = row_of[tokens[0]]
        for at, token in enumerate(tokens):
            place = place_of[token]
            assert inputs["position_ids"][row, place] == at + 1
            label = token if at >= len(prefix) else IGNORED
            assert inputs["labels"][row, place] == label
            assert inputs["example_ids"][row, place] == (number if at >= len(prefix) else -1)
            seen = tokens[: blocks[number]] if at < blocks[number] else tokens[: at + 1]
            assert sorted(ids[row][mask[row, 0, place]].tolist()) == sorted(seen)
            followed = at + 1 >= len(prefix) and at + 1 < len(tokens)
            assert bool(inputs["logits_to_keep"][row, place]) == followed
    order = [number for row in range(len(ids)) for number in packed.order if row_of[prefixes[number][0]] == row]
    assert order == packed.order


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=12), room=st.integers(20, 60))
def test_first_fit_fills_and_stays_within_its_bound(lengths: list[int], room: int) -> None:
    rows = first_fit(lengths, room)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    assert all(sum(lengths[number] for number in row) <= room for row in rows)
    assert len(rows) <= 11 / 9 * _fewest(lengths, room) + 6 / 9


def _fewest(lengths: list[int], room: int) -> int:
    """The fewest rows, by trying."""
    best = len(lengths)

    def place(left: list[int], free: list[int]) -> None:
        nonlocal best
        if len(free) >= best or len(free) + math.ceil((sum(left) - sum(free)) / room) >= best:
            return
        if not left:
            best = len(free)
            return
        for row in range(len(free)):
            if left[0] <= free[row] and free[row] not in free[:row]:
                place(left[1:], [*free[:row], free[row] - left[0], *free[row + 1 :]])
        place(left[1:], [*free, room - left[0]])

    place(sorted(lengths, reverse=True), [])
    return best


def test_an_example_longer_than_the_row_has_one_alone() -> None:
    packed = pack_rows([[1, 2], [3]], [[4, 5, 6], [7]], [0, 0], pad=0, pack_tokens=3)
    assert packed.inputs["input_ids"].tolist() == [[1, 2, 4, 5, 6], [3, 7, 0, 0, 0]]


def test_padding_lies_right_for_training_and_left_for_prompts() -> None:
    rows = pad_rows([[1, 2], [3]], [[4, 5], [6]], 9)
    assert rows["input_ids"].tolist() == [[1, 2, 4, 5], [3, 6, 9, 9]]
    assert rows["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert rows["labels"].tolist() == [[IGNORED, IGNORED, 4, 5], [IGNORED, 6, IGNORED, IGNORED]]
    assert rows["logits_to_keep"].tolist() == [[False, True, True, False], [True, False, False, False]]
    prompts = pad_prompts([[1, 2], [3]], 9)
    assert torch.equal(prompts["input_ids"], torch.tensor([[1, 2], [9, 3]]))
    assert torch.equal(prompts["attention_mask"], torch.tensor([[1, 1], [0, 1]]))
