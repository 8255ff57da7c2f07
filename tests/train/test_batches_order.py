"""Batches: every example once an epoch, the same for the same seed, and like lengths together where asked."""

from __future__ import annotations

import random
from typing import Any, ClassVar, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.errors import RecipeError
from medvlm.models import tiny
from medvlm.models.backbones.paligemma import PaliGemmaBackbone
from medvlm.recipe.load import check
from medvlm.recipe.models import PromptsPart
from medvlm.train.batches import Batches, check_packing, lengths
from medvlm.train.collate import Examples

Batching = Literal["shuffled", "grouped", "packed"]


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 500), max_size=300),
    batch=st.integers(1, 9),
    batching=st.sampled_from(["shuffled", "grouped", "packed"]),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_an_epoch_visits_every_example_once(
    sizes: list[int], batch: int, batching: Batching, seed: int, epoch: int
) -> None:
    made = Batches(sizes, batch, batching, seed)
    made.set_epoch(epoch)
    found = list(made)
    assert sorted(i for listed in found for i in listed) == list(range(len(sizes)))
    assert len(found) == len(made) == -(-len(sizes) // batch)
    assert all(len(listed) == batch for listed in found[:-1])
    assert list(made) == found
    again = Batches(sizes, batch, batching, seed)
    again.set_epoch(epoch)
    assert list(again) == found


@pytest.mark.parametrize("batching", ["shuffled", "grouped", "packed"])
def test_epochs_and_seeds_differ_in_order_and_in_company(batching: Batching) -> None:
    sizes = [random.Random(i).randrange(10, 400) for i in range(1000)]

    def batches(seed: int, epoch: int) -> list[list[int]]:
        made = Batches(sizes, 4, batching, seed)
        made.set_epoch(epoch)
        return list(made)

    first = batches(0, 0)
    for other in (batches(0, 1), batches(1, 0)):
        assert other != first
        shared = {frozenset(listed) for listed in first} & {frozenset(listed) for listed in other}
        assert len(shared) < 25


def test_grouping_saves_most_of_the_padding() -> None:
    chance = random.Random(3)
    sizes = [chance.randrange(10, 400) for _ in range(2000)]

    def padding(batching: Batching) -> int:
        return sum(max(sizes[i] for i in b) * len(b) - sum(sizes[i] for i in b) for b in Batches(sizes, 8, batching, 0))

    assert padding("grouped") < 0.1 * padding("shuffled")


def test_a_data_loader_takes_the_batches_of_the_epoch_it_is_told() -> None:
    """As the Trainer does: through accelerate's loader."""
    from accelerate import Accelerator

    made = Batches([1] * 10, 3, "shuffled", 0)
    loader = Accelerator(cpu=True).prepare(torch.utils.data.DataLoader(list(range(10)), batch_sampler=made))  # type: ignore[arg-type]
    seen = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        seen.append([batch.tolist() for batch in loader])
    assert seen[0] != seen[1]
    assert seen[0] == seen[2]
    assert sorted(i for batch in seen[0] for i in batch) == list(range(10))


class Texts:
    """As much of a mixture as lengths look at."""

    rows: ClassVar[list[dict[str, str]]] = [
        {"task": "caption", "prompt": "", "target": "a nodule"},
        {"task": "vqa", "prompt": "is there a nodule?", "target": "yes"},
        {"task": "caption", "prompt": "", "target": "a very long caption of a chest, " * 9},
        {"task": "caption", "prompt": "", "target": "a nodule"},
    ]

    def __len__(self) -> int:
        return len(self.rows)

    def text(self, place: int) -> dict[str, Any]:
        return self.rows[place]

    def image(self, place: int) -> Any:
        from PIL import Image

        return Image.new("RGB", (30, 30))


def test_lengths_are_those_of_the_collated_rows() -> None:
    _, processor = tiny.random_model()
    backbone = PaliGemmaBackbone(processor, image_tokens=64, max_prefix_tokens=16, max_suffix_tokens=24)
    examples = Examples(Texts(), PromptsPart(), [2, 0, 1, 3])  # type: ignore[arg-type]
    inputs = backbone.collate([examples[i] for i in range(4)])
    assert lengths(examples, backbone) == (inputs["attention_mask"].sum(dim=1) - 64).tolist()


def test_packing_past_the_window_of_sliding_layers_is_refused() -> None:
    from transformers import Gemma2Config

    def recipe(batching: str) -> Any:
        return check({"name": "t", "model": {"id": "x"}, "data": [{"path": "d"}], "train": {"batching": batching}}, "t")

    config = Gemma2Config(sliding_window=4096)
    check_packing(recipe("packed"), config, 1024)
    check_packing(recipe("shuffled"), config, 4096)
    with pytest.raises(RecipeError, match=r"train\.batching: packed: .* attention window of 4096"):
        check_packing(recipe("packed"), config, 4096)


@pytest.mark.parametrize("kind", ["conv", "linear_attention", "chunked_attention"])
def test_packing_for_layers_that_take_no_mask_is_refused(kind: str) -> None:
    from transformers import LlamaConfig

    def recipe(batching: str) -> Any:
        return check({"name": "t", "model": {"id": "x"}, "data": [{"path": "d"}], "train": {"batching": batching}}, "t")

    config = LlamaConfig(num_hidden_layers=2)
    check_packing(recipe("packed"), config, 16)
    config.layer_types = ["full_attention", kind]
    check_packing(recipe("shuffled"), config, 16)
    with pytest.raises(RecipeError, match=rf"train\.batching: packed: llama has layers of {kind}, .* expected grouped"):
        check_packing(recipe("packed"), config, 16)
