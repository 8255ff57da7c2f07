"""What answers: the model by transformers or by vLLM, in this process or in several through Ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from medvlm.errors import MissingExtraError, UsageError
from medvlm.registry import Registry

if TYPE_CHECKING:
    from medvlm.models.backbones.base import Example
    from medvlm.recipe.models import Recipe
    from medvlm.runs import Run
    from medvlm.train.few_shot import Room


class Engine(Protocol):
    """Answers prompts about pictures.

    It may also have `lengths(prefixes) -> list[int]`, their tokens, by which rows are sorted; `count(text) -> int` and
    `room()`, as `FullEngine`; and `each(batches)`, which yields the numbers and answers of batches in any order, where
    several are answered at a time.
    """

    def answers(
        self, images: Sequence[Any], prefixes: Sequence[str], shots: Sequence[Sequence[Example]] = ()
    ) -> list[str]:
        """Return one answer for each question.

        Args:
            images: of each its picture, or a tuple of several, where the backbone takes `several`.
            prefixes: of each.
            shots: of each the examples shown before it; empty where there are none at all.
        """
        ...


class FullEngine(Engine, Protocol):
    """What `load` returns: it also says by what recipe it answers, and counts tokens for who composes prompts."""

    recipe: Recipe

    def count(self, text: str) -> int:
        """Return how many tokens a text takes by itself."""
        ...

    def lengths(self, prefixes: Sequence[str]) -> list[int]:
        """Return how many tokens each prefix takes, after truncation."""
        ...

    def room(self) -> Room | None:
        """Return what the model has room for; None where nothing is to be counted but the text."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Pictures and prefixes to be answered together, as `Engine.answers` takes them."""

    number: int
    images: list[Any]
    prefixes: list[str]
    shots: Sequence[Sequence[Example]] = ()

    def asked(self) -> tuple[Any, ...]:
        """Return the arguments of `answers`."""
        return (self.images, self.prefixes, self.shots) if self.shots else (self.images, self.prefixes)


def lengths(engine: Engine, prefixes: Sequence[str]) -> list[int]:
    """Return how long each prefix is, in tokens where the engine counts them, else in characters."""
    count = getattr(engine, "lengths", None)
    return list(count(prefixes)) if count else [len(prefix) for prefix in prefixes]


def answered(engine: Engine, batches: Iterable[Batch]) -> Iterator[tuple[int, list[str]]]:
    """Yield number and answers of each batch that is done: in turn, or as the engine does them."""
    each = getattr(engine, "each", None)
    yield from each(batches) if each else _in_turn(engine, batches)


def _in_turn(engine: Engine, batches: Iterable[Batch]) -> Iterator[tuple[int, list[str]]]:
    for batch in batches:
        yield batch.number, engine.answers(*batch.asked())


class Kind(Protocol):
    """How an engine comes to be, as the registry holds it: a module."""

    def check(self, run: Run, recipe: Recipe, base: bool) -> None:
        """Make sure that it can answer for this run, before anything heavy is loaded."""
        ...

    def load(self, run: Run, recipe: Recipe, base: bool, seed: int | None) -> FullEngine:
        """Load the model."""
        ...


ENGINES: Registry[Kind] = Registry(
    "--engine",
    {
        "transformers": "medvlm.evaluate.engines.transformers_engine:KIND",
        "vllm": "medvlm.evaluate.engines.vllm_engine:KIND",
    },
)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """Who answers, as the command line says it."""

    name: str = "transformers"
    workers: int = 1
    """Copies of the model, each in a process of its own, on a GPU of its own where there are any; 1 is this process."""
    ray_address: str | None = None
    """Of a running Ray cluster; None starts one here where there are several workers."""

    @property
    def spread(self) -> bool:
        """Return True where Ray is used."""
        return self.workers > 1 or self.ray_address is not None


def check(choice: Choice, run: Run, recipe: Recipe, base: bool = False) -> None:
    """Make sure that an engine can be had and can answer for this run, before any work is done.

    Args:
        choice: who answers.
        run: whose model is asked.
        recipe: its own, with the decoding that is meant.
        base: ask the run's base, with nothing trained.

    Raises:
        UsageError: no such engine, or one that cannot answer for this run; says what to do.
        MissingExtraError: its package, or Ray, is not installed.
    """
    import importlib.util

    if choice.workers < 1:
        raise UsageError(f"--workers {choice.workers}: expected 1 or more")
    if choice.spread and importlib.util.find_spec("ray") is None:
        raise MissingExtraError("--workers above 1", "ray")
    ENGINES.get(choice.name).check(run, recipe, base)


def load(choice: Choice, run: Run, recipe: Recipe, base: bool = False, seed: int | None = None) -> FullEngine:
    """Return what answers for a run, its model loaded; with several workers, they load it.

    Args:
        choice: who answers.
        run: whose model is asked.
        recipe: its own, with the decoding that is meant.
        base: ask the run's base, with nothing trained.
        seed: of what is drawn; None takes the recipe's.

    Raises:
        UsageError, MissingExtraError: as `check`.
        AccessError: there is no Ray cluster at the address.
        InputError: the weights are gone or damaged.
    """
    check(choice, run, recipe, base)
    if choice.spread:
        from medvlm.evaluate.engines.ray_actors import Actors

        return Actors(choice, run, recipe, base, seed)
    return ENGINES.get(choice.name).load(run, recipe, base, seed)
