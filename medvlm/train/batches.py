"""Which examples share a batch: shuffled, of like length, or to be packed; the same for every seed and epoch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch

from medvlm.errors import RecipeError
from medvlm.models.backbones.base import Backbone
from medvlm.recipe.models import Recipe
from medvlm.train.collate import Examples

POOL = 50
"""`grouped` sorts so many batches' examples at a time: like lengths within, chance in which examples meet."""

WINDOW = 64
"""Row groups (of at most 100 rows) whose places a stream shuffles among each other."""


class Batches(torch.utils.data.Sampler[list[int]]):
    """A batch sampler that visits every example once an epoch.

    Args:
        lengths: of every example, in tokens (only `grouped` looks at them).
        batch_size: examples in a batch; the last one of an epoch may hold fewer.
        batching: `shuffled` and `packed` keep chance's order (packing happens within a batch); `grouped` sorts pools of
            `POOL` batches by length, then shuffles the batches.
        seed: with the epoch, all that the order depends on.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        batching: Literal["shuffled", "grouped", "packed"],
        seed: int,
    ) -> None:
        self.lengths, self.batch_size, self.batching, self.seed = lengths, batch_size, batching, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Order the next pass as that of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        chance = random.Random(f"{self.seed} {self.epoch}")
        order = list(range(len(self.lengths)))
        chance.shuffle(order)
        if self.batching != "grouped":
            yield from self._cut(order)
            return
        room = POOL * self.batch_size
        pools = (order[start : start + room] for start in range(0, len(order), room))
        batches = [batch for pool in pools for batch in self._cut(sorted(pool, key=lambda i: self.lengths[i]))]
        chance.shuffle(batches)
        # The batch that is not full stays last, so that every epoch has its updates at the same places.
        yield from sorted(batches, key=lambda batch: len(batch) < self.batch_size)

    def _cut(self, order: Sequence[int]) -> Iterator[list[int]]:
        for start in range(0, len(order), self.batch_size):
            yield list(order[start : start + self.batch_size])


class Streamed(torch.utils.data.Sampler[list[int]]):
    """A batch sampler that visits every place once an epoch and reads row groups one window after the other.

    The blocks of an epoch are shuffled, and the places of `WINDOW` blocks at a time among each other. The order depends
    on seed and epoch alone: it is the same for any number of workers, and a resumed run meets the same batches.

    Args:
        blocks: runs of places that are read together, as `Mixture.blocks` gives them.
        batch_size: places in a batch; the last one of an epoch may hold fewer.
        seed: with the epoch, all that the order depends on.
    """

    def __init__(self, blocks: Sequence[range], batch_size: int, seed: int) -> None:
        self.blocks, self.batch_size, self.seed = blocks, batch_size, seed
        self.total = sum(map(len, blocks))
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Order the next pass as that of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.total // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        chance = random.Random(f"{self.seed} {self.epoch}")
        blocks = chance.sample(self.blocks, len(self.blocks))
        waiting: list[int] = []
        for start in range(0, len(blocks), WINDOW):
            places = [place for block in blocks[start : start + WINDOW] for place in block]
            chance.shuffle(places)
            waiting += places
            whole = len(waiting) - len(waiting) % self.batch_size
            for first in range(0, whole, self.batch_size):
                yield waiting[first : first + self.batch_size]
            waiting = waiting[whole:]
        if waiting:
            yield waiting


class Chance(torch.utils.data.Sampler[list[int]]):
    """A batch sampler in the order that the Trainer's own shuffle takes on one device.

    Args:
        count: of examples.
        batch_size: examples in a batch; the last one of an epoch may hold fewer.
        seed: with the epoch, all that the order depends on.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Order the next pass as that of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.count, generator=generator).tolist()
        for start in range(0, self.count, self.batch_size):
            yield order[start : start + self.batch_size]


class InOrder(torch.utils.data.Sampler[list[int]]):
    """A batch sampler that goes through the examples as they stand, as validation does."""

    def __init__(self, count: int, batch_size: int) -> None:
        self.count, self.batch_size = count, batch_size

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, self.count, self.batch_size):
            yield list(range(start, min(self.count, start + self.batch_size)))


class Shared(torch.utils.data.Sampler[list[int]]):
    """One device's share of every update, so that all devices together visit each example once an epoch.

    What an update holds does not depend on the devices that share it: a run may go on with another number of them, and
    meets the same updates. A device left without an example in the last pass of an epoch gets one that does not count,
    as `~index`: all take part in every pass, or the others would wait for ever.

    Args:
        batches: of the whole run, all devices together; `count` of them are an update.
        count: batches an update.
        batch_size: most examples on one device in one pass.
        rank: which device this is.
        devices: how many share an update.
    """

    def __init__(
        self, batches: torch.utils.data.Sampler[list[int]], count: int, batch_size: int, rank: int, devices: int
    ) -> None:
        self.batches, self.count, self.batch_size, self.rank, self.devices = batches, count, batch_size, rank, devices

    def set_epoch(self, epoch: int) -> None:
        """Order the next pass as that of this epoch."""
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return sum(self._passes(sum(map(len, update))) for update in self._updates())

    def __iter__(self) -> Iterator[list[int]]:
        for update in self._updates():
            places = [place for batch in update for place in batch]
            for together in even_parts(places, self._passes(len(places))):
                own = even_parts(together, self.devices)[self.rank]
                yield list(own) or [~together[0]]

    def _updates(self) -> Iterator[list[list[int]]]:
        update: list[list[int]] = []
        for batch in self.batches:
            update.append(batch)
            if len(update) == self.count:
                yield update
                update = []
        if update:
            yield update

    def _passes(self, places: int) -> int:
        return -(-places // (self.batch_size * self.devices))


def even_parts(places: Sequence[int], count: int) -> list[Sequence[int]]:
    """Return `count` stretches of `places`, in order, whose lengths differ by one at most."""
    size = len(places)
    bounds = [number * size // count for number in range(count + 1)]
    return [places[start:stop] for start, stop in pairwise(bounds)]


def lengths(examples: Examples, backbone: Backbone) -> list[int]:
    """Return the tokens of every example, image tokens apart (all have the same): prefix and suffix after truncation.

    Every text is tokenized once, however many examples share it.
    """
    prefixes: dict[str, int] = {}
    suffixes: dict[str, int] = {}
    found = []
    for index in range(len(examples)):
        prefix, suffix = examples.words(index)
        if prefix not in prefixes:
            prefixes[prefix] = backbone.text_tokens(prefix, "")[0]
        if suffix not in suffixes:
            suffixes[suffix] = backbone.text_tokens("", suffix)[1]
        found.append(prefixes[prefix] + suffixes[suffix])
    return found


def check_packing(recipe: Recipe, config: Any, image_tokens: int) -> None:
    """Raise where packed rows would not be what the same examples are alone.

    A PaliGemma 2 example could be longer than a sliding window, which its packed rows do not hold; and layers that are
    no attention, or attend in chunks, take no mask that keeps examples apart.

    Raises:
        RecipeError: says what to set.
    """
    if recipe.train.batching != "packed":
        return
    text = config.get_text_config()
    others = set(getattr(text, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if others:
        problem = f"train.batching: packed: {text.model_type} has layers of {', '.join(sorted(others))}"
        raise RecipeError("recipe", [f"{problem}, which would see other examples; expected grouped or shuffled"])
    window = getattr(text, "sliding_window", None)
    # `<bos>` and the line end apart from the budgets.
    longest = image_tokens + recipe.text.max_prefix_tokens + recipe.text.max_suffix_tokens + 2
    if recipe.model.backbone == "paligemma" and window is not None and longest > int(window):
        problem = (
            f"train.batching: packed: an example of up to {longest} tokens is longer than the model's attention window "
            f"of {window}; expected grouped or shuffled, or a smaller model.image_size"
        )
        raise RecipeError("recipe", [problem])
