"""Few-shot: answered rows of the training split that are shown before a row, and what is refused or left out of them.

Which rows they are depends on the recipe's seed and the id of the row that is asked, so on no order, batch or process:
rows of the same task, never of the same group (patient, article), and never with one of the same pictures, be it stored
otherwise (as `medvlm.data.dedup` tells it; blank pictures and drawings by their pixels). A backbone that takes
`several` pictures sees each example with its own; for others an example is its text in the prefix, written as training
wrote it: prefix, line end, answer (as `medvlm predict --examples` does).
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image as PILImage

from medvlm.cli.common import warn
from medvlm.data import dedup, images
from medvlm.data.mixture import Mixture
from medvlm.data.sample import Image
from medvlm.errors import InputError, RecipeError
from medvlm.io import sha256_bytes
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import Example
from medvlm.recipe.models import Recipe
from medvlm.train.collate import prefix

if TYPE_CHECKING:
    from medvlm.models.load import Loaded

_ALL = 1 << 30
"""More pictures than a sample has."""


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """What a model has room for, pictures included."""

    positions: int
    """Tokens that it takes in all."""
    length: Callable[[Example], int]
    """Tokens of a prompt with its pictures and examples: `Backbone.prompt_length`."""

    def holds(self, asked: Example, answer: int) -> bool:
        """Return True where a prompt and so many tokens of an answer fit."""
        return self.length(asked) + answer <= self.positions


def room_of(loaded: Loaded) -> Room | None:
    """Return a model's room; None where it takes one picture at a time, or does not say how many tokens it takes."""
    backbone, config = loaded.backbone, getattr(loaded.model, "config", None)
    if not backbone.several or config is None:
        return None
    positions = _positions(config)
    return None if positions is None else Room(positions, backbone.prompt_length)


def _positions(config: Any) -> int | None:
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) else None


def stand_in(pictures: int, prefix: str, suffix: str | None = None, shots: Sequence[Example] = ()) -> Example:
    """Return an example of which only the number of its pictures is true, for `Room`."""
    one = PILImage.new("RGB", (1, 1))
    more = (one,) * (pictures - 1)
    return Example(one if pictures else None, prefix, suffix, more_images=more, shots=tuple(shots))


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """The examples of one row, and its prefix."""

    prefix: str
    """Of the row itself; where examples are texts, with them in front."""
    places: list[int]
    """Of the training rows shown, the nearest to the question last."""
    dropped: int
    """How many more had no room."""
    missing: int
    """How many more the training split had no row for."""
    ids: list[str]
    """Of the training rows shown."""
    whole: str
    """All text, examples included, for its length."""


class FewShot:
    """Chooses examples, and writes them.

    Args:
        train: the training rows, as they are trained on.
        recipe: its `prompts`, its budget of text, and its seed.
        count: text -> its tokens.
        room: of the model, where pictures take of it; None asks for none.
    """

    def __init__(self, train: Mixture, recipe: Recipe, count: Callable[[str], int], room: Room | None = None) -> None:
        self.train, self.prompts, self.seed = train, recipe.prompts, recipe.seed
        self.budget = recipe.text.max_prefix_tokens
        self.answer = max(recipe.eval.max_new_tokens, recipe.text.max_suffix_tokens)
        self.count, self.room = count, room
        self.pictured = BACKBONES.get(recipe.model.backbone).several
        self.told = False
        """Whether it was said already what had no room or does not exist."""
        self._marks = functools.lru_cache(_MARKS)(self._marks_of)
        self._pool: dict[str, list[int]] = {}
        seen = set()
        for place, text in enumerate(train.texts()):
            pick = train.picks[place]
            # A weight lists a row several times.
            if pick not in seen:
                seen.add(pick)
                self._pool.setdefault(str(text["task"]), []).append(place)

    def of(self, mixture: Mixture, place: int) -> Chosen:
        """Return the examples for a row of any split: those that fit, the furthest left out first."""
        text, pictures = mixture.text(place), mixture.encoded(place, _ALL)
        places = list(self._drawn(text, pictures))
        missing = self.prompts.shots - len(places)
        shown = [self.train.text(place) for place in places]
        prefixes = [prefix(one, self.prompts) for one in shown]
        texts = [f"{before}\n{one['target']}" for before, one in zip(prefixes, shown, strict=True)]
        shots = [
            stand_in(self._views(place), before, str(one["target"]))
            for place, before, one in zip(places, prefixes, shown, strict=True)
        ]
        own, mine = prefix(text, self.prompts), min(len(pictures), self.prompts.max_images)
        dropped = 0
        while dropped < len(places) and not self._fits(
            [*texts[dropped:], own], stand_in(mine, own, None, shots[dropped:])
        ):
            dropped += 1
        whole = "\n".join([*texts[dropped:], own])
        ids = [str(one["id"]) for one in shown[dropped:]]
        return Chosen(own if self.pictured else whole, places[dropped:], dropped, missing, ids, whole)

    def examples(self, chosen: Chosen) -> tuple[Example, ...]:
        """Return the examples with their pictures; none where they stand in the prefix as texts."""
        return tuple(map(self._example, chosen.places)) if self.pictured else ()

    def _example(self, place: int) -> Example:
        text = self.train.text(place)
        first, *more = self.train.pictures(place, self.prompts.max_images)
        return Example(first, prefix(text, self.prompts), str(text["target"]), more_images=tuple(more))

    def _views(self, place: int) -> int:
        return len(self.train.encoded(place, self.prompts.max_images)) if self.room else 0

    def _fits(self, texts: Sequence[str], asked: Example) -> bool:
        return self.count("\n".join(texts)) <= self.budget and (
            self.room is None or self.room.holds(asked, self.answer)
        )

    def _drawn(self, text: dict[str, Any], pictures: Sequence[bytes]) -> Iterator[int]:
        """Yield the places of the examples, as many as are asked for and there are."""
        chance = random.Random(f"{self.seed}:{text['id']}")
        group, known = text.get("group"), {str(text["id"])}
        own = list(map(_mark, pictures))
        for place in _shuffled(self._pool.get(str(text["task"]), []), chance):
            if len(known) > self.prompts.shots:
                return
            other = self.train.text(place)
            akin = group not in (None, "") and other.get("group") == group
            if akin or str(other["id"]) in known or _alike(own, self._marks(place)):
                continue
            known.add(str(other["id"]))
            yield place

    def _marks_of(self, place: int) -> list[bytes]:
        return list(map(_mark, self.train.encoded(place, _ALL)))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_marks"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._marks = functools.lru_cache(_MARKS)(self._marks_of)


_MARKS = 1 << 14
"""Rows of which a process keeps the marks of their pictures: 1 KB each picture."""


def _mark(data: bytes) -> bytes:
    """Return what a picture is known by however it is stored, or by its bytes where it cannot be read."""
    found = dedup.mark(Image(data, ""))
    if found:
        return found
    try:
        picture = images.decode(data)
    except InputError:
        return sha256_bytes(data).encode()
    return sha256_bytes(repr(picture.size).encode() + picture.tobytes()).encode()


def _alike(ours: Sequence[bytes], theirs: Sequence[bytes]) -> bool:
    """Return True where one of our pictures is, or nearly is, one of theirs."""
    from medvlm.evaluate.near_images import near_places

    if set(ours) & set(theirs):
        return True
    told = [[mark for mark in marks if len(mark) == dedup.MARK_BYTES] for marks in (ours, theirs)]
    return all(told) and len(near_places(*told)) > 0


def _shuffled(places: Sequence[int], chance: random.Random) -> Iterator[int]:
    """Yield all places in random order (Fisher-Yates), at the cost of those that are taken alone."""
    moved: dict[int, int] = {}
    for at in range(len(places)):
        other = chance.randrange(at, len(places))
        taken = moved.get(other, other)
        moved[other] = moved.get(at, at)
        yield places[taken]


def tokens_of(loaded: Loaded) -> Callable[[str], int]:
    """Return what counts the tokens of a text by itself."""
    return functools.partial(_tokens, loaded.processor.tokenizer)


def _tokens(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


LOOKED_AT = 64
"""Of so many training rows it is told how many examples have no room."""


def trained_with(train: Mixture, recipe: Recipe, loaded: Loaded) -> FewShot | None:
    """Return what chooses the examples in training, None where none are shown; says where they have no room.

    Raises:
        RecipeError: a row's own pictures have none.
    """
    places = _looked_at(train)
    room = room_of(loaded)
    for place in places:
        check_room(recipe, room, train, place)
    if not in_training(recipe):
        return None
    made = chooser(train, recipe, loaded)
    tell(recipe, [made.of(train, place) for place in places], "rows looked at")
    return made


def _looked_at(train: Mixture) -> range:
    return range(0, len(train), max(1, len(train) // LOOKED_AT))


def check_pictures(recipe: Recipe, config: Any, train: Mixture) -> None:
    """Make sure, by the model's configuration alone, that pictures and answers of training rows fit into it.

    Raises:
        RecipeError: they do not, whatever the prompts.
    """
    kind = BACKBONES.get(recipe.model.backbone)
    positions = _positions(config) if kind.several else None
    if positions is None:
        return
    each = kind.in_sequence(kind.image_tokens_of(config))
    for place in _looked_at(train):
        check_room(recipe, Room(positions, lambda asked: each * len(asked.images)), train, place)


def chooser(train: Mixture, recipe: Recipe, loaded: Loaded) -> FewShot:
    """Return what chooses the examples for a model."""
    return FewShot(train, recipe, tokens_of(loaded), room_of(loaded))


def check_room(recipe: Recipe, room: Room | None, mixture: Mixture, place: int) -> None:
    """Make sure that a row's own pictures and prompt and an answer fit into a model that is shown several pictures.

    Raises:
        RecipeError: they do not.
    """
    most = recipe.prompts.max_images
    if room is None or most == 1:
        return
    text, pictures = mixture.text(place), len(mixture.encoded(place, most))
    asked = stand_in(pictures, prefix(text, recipe.prompts))
    answer = max(recipe.eval.max_new_tokens, recipe.text.max_suffix_tokens)
    if not room.holds(asked, answer):
        problem = (
            f"prompts.max_images: {most}: the {pictures} pictures of {text['id']}, its prompt and an answer of "
            f"{answer} tokens take at least {room.length(asked) + answer:,}, and this model reads {room.positions:,} "
            "at once; expected fewer pictures, or shorter answers"
        )
        raise RecipeError("recipe", [problem])


def tell(recipe: Recipe, chosen: Sequence[Chosen], what: str) -> None:
    """Print a line where rows are shown fewer examples than were asked for."""
    asked = recipe.prompts.shots * len(chosen)
    dropped, missing = sum(one.dropped for one in chosen), sum(one.missing for one in chosen)
    if dropped:
        warn(
            f"prompts.shots: {dropped:,} of the {asked:,} examples for {len(chosen):,} {what} have no room and are "
            "left out, the furthest first; text.max_prefix_tokens gives more, as far as the model's positions go"
        )
    if missing:
        warn(
            f"prompts.shots: {missing:,} of the {asked:,} examples for {len(chosen):,} {what} do not exist: the "
            "training split has too few rows of the same task from other groups, with other pictures"
        )


def in_training(recipe: Recipe) -> bool:
    """Return True where examples are shown in training, too."""
    return recipe.prompts.shots > 0 and recipe.prompts.shots_in == "both"


def most_pictures(recipe: Recipe) -> int:
    """Return how many pictures a training example shows at most, those of the examples before it included."""
    if not BACKBONES.get(recipe.model.backbone).several:
        return 1
    return recipe.prompts.max_images * (1 + (recipe.prompts.shots if in_training(recipe) else 0))


def lengthened(recipe: Recipe, counts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return tokens of prefix and suffix of each row with the examples that training shows, taken to be of mean length.

    As texts they stay within the budget. With their pictures each is written as the backbone writes a turn, which the
    budget does not count; those that would have no room are counted all the same.

    Args:
        recipe: of the run.
        counts: the same of each row by itself.
    """
    if not in_training(recipe) or not counts:
        return list(counts)
    more = round(recipe.prompts.shots * sum(map(sum, counts)) / len(counts))
    if BACKBONES.get(recipe.model.backbone).several:
        return [(before + more, after) for before, after in counts]
    budget = recipe.text.max_prefix_tokens
    return [(max(before, min(before + more, budget)), after) for before, after in counts]


def check_shown(recipe: Recipe, training: bool = True) -> None:
    """Make sure that the backbone can be shown what `prompts` asks for.

    Args:
        recipe: of the run.
        training: whether rows are trained on, so that caches and packed rows count.

    Raises:
        RecipeError: several pictures for a backbone that takes one; examples for one that does not generate; either
            with packed rows, or with a cache, which keeps one picture a row.
    """
    name, prompts = recipe.model.backbone, recipe.prompts
    kind = BACKBONES.get(name)
    problems = []
    if prompts.max_images > 1 and not kind.several:
        problems.append(
            f"prompts.max_images: {prompts.max_images}: {name} takes one picture; expected 1, or a backbone that takes "
            f"several ({', '.join(taking_several())})"
        )
    if prompts.shots and kind.output != "text":
        problems.append(f"prompts.shots: {prompts.shots}: {name} does not generate its answers; expected 0")
    if training and kind.several and (prompts.max_images > 1 or in_training(recipe)):
        what = "prompts.max_images above 1" if prompts.max_images > 1 else "prompts.shots in training"
        if recipe.train.batching == "packed":
            problems.append(f"train.batching: 'packed': expected shuffled or grouped with {what}")
        problems += [
            f"data.{place}.{key}: expected false with {what}: a cache keeps one picture of a row"
            for place, part in enumerate(recipe.data)
            for key in ("cache_pixels", "cache_features")
            if getattr(part, key)
        ]
    if problems:
        raise RecipeError("recipe", problems)


def taking_several() -> list[str]:
    """Return the names of the backbones that take several pictures."""
    return [name for name in BACKBONES.names() if BACKBONES.get(name).several]
