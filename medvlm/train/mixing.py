"""Which data set each example is from, what a batch holds, and batches in which every data set has its share."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import AutoConfig

from medvlm.data.mixture import Mixture
from medvlm.errors import RecipeError
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import Example
from medvlm.models.load import planned_config
from medvlm.recipe.models import Recipe
from medvlm.train.batches import check_packing
from medvlm.train.collate import Collator, Examples
from medvlm.train.devices import Devices
from medvlm.train.few_shot import check_shown


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What a batch holds; counted beside the model's inputs, by the process that decodes the images."""

    parts: tuple[int, ...]
    """Number of each example's data set in the mixture."""
    tokens: int
    """Without padding, image tokens included."""
    labels: int
    flops: int

    @property
    def samples(self) -> int:
        """Return the number of examples."""
        return len(self.parts)


class Numbered(torch.utils.data.Dataset[tuple[Example, int]]):
    """`Examples`, each with the number of the data set it is from; at `~index` the same, not to be counted."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Example, int]:
        if index < 0:
            return self.examples[~index], FILLER
        return self.examples[index], self.part(index)

    def part(self, index: int) -> int:
        """Return the number of the data set that an example is from."""
        return self.examples.mixture.picks[self.examples.places[index]].part


class CountingCollator:
    """A collator whose batches also say what they hold, under `HELD`.

    Args:
        collator: makes the model's inputs.
        flops: operations of training on such inputs.
    """

    def __init__(self, collator: Collator, flops: Callable[[Mapping[str, torch.Tensor]], int] | None = None) -> None:
        self.collator, self.flops = collator, flops

    def __call__(self, numbered: Sequence[tuple[Example, int]]) -> dict[str, Any]:
        """Return the inputs of a batch and what it holds."""
        inputs: dict[str, Any] = dict(self.collator([example for example, _ in numbered]))
        backbone = self.collator.backbone
        if numbered[0][1] == FILLER:
            if backbone.output == "match":
                # No other row is held against it.
                inputs[FILLER_ONLY] = True
            return {**inputs, HELD: Held((), 0, 0, 0)}
        held = Held(
            parts=tuple(part for _, part in numbered),
            tokens=sum(backbone.true_lengths(inputs)),
            labels=backbone.labels_in(inputs),
            flops=self.flops(inputs) if self.flops else 0,
        )
        return {**inputs, HELD: held}


FILLER = -1
"""Data set of an example that does not count: it keeps a device in step that has none left (see `batches.Shared`)."""
FILLER_ONLY = "filler"
"""Key beside the inputs of such an example, where a batch is its own contrast."""
HELD = "held"
"""Key of a batch's `Held`, beside the model's inputs."""


class EveryUpdate(torch.utils.data.Sampler[list[int]]):
    """Batches such that each optimizer update holds every data set in proportion of its places in the epoch.

    The places of an epoch are those of the mixture, each once; only their order differs from a plain shuffle's. The
    order depends on seed and epoch alone, so that a resumed run meets the same batches.

    Args:
        parts: number of the data set of each place.
        names: of the data sets, for errors.
        batch_size: places a batch.
        accumulation: batches an update.
        seed: of the order.
        lengths: tokens of each place; given, places of like length share a batch of the update.

    Raises:
        RecipeError: an update is too small to hold every data set.
    """

    def __init__(
        self,
        parts: Sequence[int],
        names: Sequence[str],
        batch_size: int,
        accumulation: int,
        seed: int,
        lengths: Sequence[int] | None = None,
    ) -> None:
        self.batch_size, self.update_size = batch_size, batch_size * accumulation
        self.seed, self.epoch, self.lengths = seed, 0, lengths
        self.total = len(parts)
        check_shares(parts, names, batch_size, accumulation)
        self.places: dict[int, list[int]] = {}
        for place, part in enumerate(parts):
            self.places.setdefault(part, []).append(place)

    def __len__(self) -> int:
        return -(-self.total // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        chance = random.Random(f"{self.seed}-{self.epoch}")
        waiting = {part: chance.sample(own, len(own)) for part, own in sorted(self.places.items())}
        for counts in self._counts():
            update = [waiting[part].pop() for part, count in counts.items() for _ in range(count)]
            chance.shuffle(update)
            if self.lengths is not None:
                update.sort(key=self.lengths.__getitem__)
            for start in range(0, len(update), self.batch_size):
                yield update[start : start + self.batch_size]

    def _counts(self) -> Iterator[dict[int, int]]:
        """Yield how many places of each data set every update of an epoch takes.

        Each takes the whole part of its share; what is then free goes to those furthest behind theirs.
        """
        shares = {part: len(own) / self.total for part, own in sorted(self.places.items())}
        given = dict.fromkeys(shares, 0)
        for start in range(0, self.total, self.update_size):
            size = min(self.update_size, self.total - start)
            counts = {part: min(int(size * share), self._left(part, given)) for part, share in shares.items()}
            while sum(counts.values()) < size:
                behind = {
                    part: (start + size) * share - given[part] - counts[part]
                    for part, share in shares.items()
                    if self._left(part, given) > counts[part]
                }
                counts[max(behind, key=behind.__getitem__)] += 1
            for part, count in counts.items():
                given[part] += count
            yield counts

    def _left(self, part: int, given: Mapping[int, int]) -> int:
        return len(self.places[part]) - given[part]


def check_shares(parts: Sequence[int], names: Sequence[str], batch_size: int, accumulation: int) -> None:
    """Raise where an update is too small to hold every data set; arguments as of `EveryUpdate`.

    Raises:
        RecipeError: says what to set.
    """
    size = batch_size * accumulation
    for part, own in Counter(parts).items():
        share = size * own / len(parts)
        if share < 1:
            needed = -(-len(parts) // (own * batch_size))
            problem = (
                f"train.mix: every_update: an update of {size} samples would hold {share:.2f} of {names[part]}; raise "
                f"train.gradient_accumulation to {needed}, or that data set's weight"
            )
            raise RecipeError("recipe", [problem])


def check_mixture(recipe: Recipe, train: Mixture, validation: Mixture, devices: int | None = 1) -> None:
    """Raise where the recipe cannot be trained on these rows, before any weights are loaded.

    Args:
        recipe: what to do.
        train, validation: its rows.
        devices: how many share an update; None for a run that goes on, whose updates are what they were.

    Raises:
        RecipeError: an update is too small for all data sets, or a batch for a contrast; the best checkpoint is to be
            chosen by validation rows, and there are none; packed rows could be longer than the model's attention
            window.
        AccessError, InputError: packed, and the base's dimensions are not at hand.
    """
    part = recipe.train
    if part.best != "none" and not len(validation):
        raise RecipeError("recipe", [f"train.best: {part.best!r}: there are no validation rows; expected none"])
    check_abilities(recipe)
    if BACKBONES.get(recipe.model.backbone).output == "class":
        # Which checks the recipe, before there is a folder of the run.
        planned_config(recipe)
    if BACKBONES.get(recipe.model.backbone).output == "match" and devices is not None and part.batch_size * devices < 2:
        problem = f"train.batch_size: {part.batch_size}: a pair alone has no other to be told from; expected 2 or more"
        raise RecipeError("recipe", [problem])
    if part.mix == "every_update" and devices is not None:
        owners = [pick.part for pick in train.picks]
        check_shares(owners, part_names(train), part.batch_size * devices, part.gradient_accumulation)
    if part.batching == "packed" and recipe.model.backbone == "paligemma":
        values = dict(planned_config(recipe))
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        check_packing(recipe, config, BACKBONES.get(recipe.model.backbone).image_tokens_of(config))


def check_abilities(recipe: Recipe) -> None:
    """Raise where the recipe asks for what its backbone has not.

    Raises:
        RecipeError: packed rows, cached pictures, 4-bit weights; every one of them. Several pictures or few-shot
            examples, as `few_shot.check_shown` says.
    """
    name = recipe.model.backbone
    kind = BACKBONES.get(name)
    problems = []
    if recipe.train.batching == "packed" and not kind.packs:
        problems.append(f"train.batching: 'packed': {name} keeps examples apart by rows; expected shuffled or grouped")
    if recipe.quantization.mode != "none" and kind.quantizable is None:
        problems.append(f"quantization.mode: '{recipe.quantization.mode}': {name} has no 4-bit form; expected none")
    for place, part in enumerate(recipe.data):
        problems += [
            f"data.{place}.{key}: {name} takes its pictures from no cache; expected false"
            for key in ("cache_pixels", "cache_features")
            if getattr(part, key) and not kind.caches
        ]
    if problems:
        raise RecipeError("recipe", problems)
    check_shown(recipe)


class PartLosses:
    """Sums of losses by data set since the last log, exact enough to be stored and gone on with.

    Args:
        mixture: names the data sets.
        per_example: mean over examples of each one's mean over tokens, else mean over tokens.
    """

    def __init__(self, mixture: Mixture, per_example: bool) -> None:
        self.names, self.per_example = part_names(mixture), per_example
        self.sums = [0.0] * len(self.names)
        self.counts = [0] * len(self.names)
        self._pending: list[tuple[tuple[int, ...], torch.Tensor, torch.Tensor]] = []

    def add(self, parts: tuple[int, ...], sums: torch.Tensor, counts: torch.Tensor) -> None:
        """Add a batch: the data set of each example, the sum of its token losses [E], and their number [E]."""
        self._pending.append((parts, sums, counts))

    def fold(self) -> None:
        """Add up what was added; called once a step, since it waits for the device."""
        for parts, sums, counts in self._pending:
            for part, value, count in zip(parts, sums.tolist(), counts.tolist(), strict=True):
                # An example without a loss, whose answer a classifier does not know, is not one of loss 0.
                if count:
                    self.sums[part] += value / count if self.per_example else value
                    self.counts[part] += 1 if self.per_example else count
        self._pending.clear()

    def join(self, here: Devices) -> None:
        """Sum up what all devices have added, in the first one; the others begin anew. All must call it."""
        self.fold()
        if here.count == 1:
            return
        sums, counts = here.sums(self.sums), here.total(self.counts)
        size = len(self.names)
        self.sums, self.counts = (sums, counts) if here.first else ([0.0] * size, [0] * size)

    def share(self, here: Devices) -> None:
        """Give every device what all of them have added. All must call it."""
        self.join(here)
        self.sums, self.counts = here.from_first(lambda: (self.sums, self.counts))

    def stored(self) -> dict[str, Any]:
        """Return the sums as JSON takes them; floats come back as they were."""
        self.fold()
        return {"sums": self.sums, "counts": self.counts}

    def restore(self, stored: Mapping[str, Any] | None) -> None:
        """Go on from what `stored` returned."""
        if stored:
            self.sums, self.counts = list(stored["sums"]), list(stored["counts"])

    def means(self) -> dict[str, float]:
        """Return path -> mean for data sets that were seen since the last call, and begin anew."""
        self.fold()
        found = {
            name: value / count for name, value, count in zip(self.names, self.sums, self.counts, strict=True) if count
        }
        self.sums, self.counts = [0.0] * len(self.names), [0] * len(self.names)
        return found

    def mean(self) -> float | None:
        """Return the mean over all that was added since the last `means`; None where nothing had a loss."""
        self.fold()
        return sum(self.sums) / sum(self.counts) if any(self.counts) else None


def part_names(mixture: Mixture) -> list[str]:
    """Return a name for each data set: its path, with its tasks where one path is listed more than once."""
    paths = [part.path for part in mixture.parts]
    return [
        path if paths.count(path) == 1 else f"{path} ({number}: {', '.join(part.tasks or ['all'])})"
        for number, (path, part) in enumerate(zip(paths, mixture.parts, strict=True))
    ]
