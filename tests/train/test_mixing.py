"""Every update holds every data set; every place is seen once an epoch; sums by data set are exact."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medvlm.errors import RecipeError
from medvlm.recipe.models import DataPart
from medvlm.train.mixing import EveryUpdate, PartLosses, part_names


def mixture(*paths: str) -> Any:
    return SimpleNamespace(parts=[DataPart(path=path) for path in paths])


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    batch=st.integers(1, 8),
    accumulation=st.integers(1, 6),
    epoch=st.integers(0, 3),
    grouped=st.booleans(),
)
def test_every_update_holds_its_share(
    sizes: list[int], batch: int, accumulation: int, epoch: int, grouped: bool
) -> None:
    parts = [part for part, size in enumerate(sizes) for _ in range(size)]
    update, total = batch * accumulation, len(parts)
    assume(all(update * size >= total for size in sizes))
    tokens = [(7 * place) % 11 for place in range(total)] if grouped else None
    sampler = EveryUpdate(parts, [str(n) for n in range(len(sizes))], batch, accumulation, 3, tokens)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert batches == list(sampler)
    assert len(batches) == len(sampler) == -(-total // batch)
    assert all(len(one) == batch for one in batches[:-1])
    assert sorted(place for one in batches for place in one) == list(range(total))
    seen = Counter[int]()
    for start in range(0, len(batches), accumulation):
        places = [place for one in batches[start : start + accumulation] for place in one]
        counts = Counter(parts[place] for place in places)
        seen += counts
        for part, size in enumerate(sizes):
            if len(places) == update:
                assert counts[part] >= update * size // total >= 1
            # Never far from the share of all that was seen so far.
            assert abs(seen[part] - sum(seen.values()) * size / total) <= len(sizes)
    sampler.set_epoch(epoch + 1)
    assert grouped or total < 20 or list(sampler) != batches


def test_an_update_too_small_for_all_says_what_to_set() -> None:
    with pytest.raises(
        RecipeError, match=r"of 4 samples would hold 0\.36 of b; raise train.gradient_accumulation to 6"
    ):
        EveryUpdate([0] * 10 + [1], ["a", "b"], 2, 2, 0)


@pytest.mark.parametrize("per_example", [True, False])
def test_sums_by_data_set_go_on_where_they_were_stored(per_example: bool) -> None:
    chance = torch.Generator().manual_seed(0)
    batches = [
        ((0, 1, 0), torch.rand(3, generator=chance), torch.randint(1, 9, (3,), generator=chance)) for _ in range(4)
    ]
    whole = PartLosses(mixture("a", "b", "c"), per_example)
    for one in batches:
        whole.add(*one)
        whole.fold()
    first, second = PartLosses(mixture("a", "b", "c"), per_example), PartLosses(mixture("a", "b", "c"), per_example)
    for number, one in enumerate(batches):
        (first if number < 2 else second).add(*one)
        if number == 1:
            second.restore(first.stored())
    slow: dict[str, list[float]] = {"a": [], "b": []}
    weights: dict[str, list[float]] = {"a": [], "b": []}
    for parts, sums, counts in batches:
        for part, value, count in zip(parts, sums.tolist(), counts.tolist(), strict=True):
            slow["ab"[part]].append(value / count if per_example else value)
            weights["ab"[part]].append(1 if per_example else count)
    assert whole.means() == (means := second.means())
    assert means == pytest.approx({name: sum(slow[name]) / sum(weights[name]) for name in slow})
    assert second.means() == {}


@pytest.mark.parametrize("per_example", [True, False])
def test_examples_without_a_loss_are_not_counted(per_example: bool) -> None:
    losses = PartLosses(mixture("a", "b"), per_example)
    assert losses.mean() is None
    losses.add((0, 1), torch.zeros(2), torch.zeros(2, dtype=torch.long))
    assert losses.mean() is None
    losses.add((0, 0), torch.tensor([0.5, 0.0]), torch.tensor([1, 0]))
    assert losses.mean() == 0.5
    assert losses.means() == {"a": 0.5}


def test_a_path_listed_twice_has_two_names() -> None:
    assert part_names(mixture("a", "b")) == ["a", "b"]
    assert len(set(part_names(mixture("a", "b", "a")))) == 3
