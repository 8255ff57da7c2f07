"""What each row of a split is asked: its prefix, its pictures, and the answered examples before it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from medvlm.errors import UsageError
from medvlm.evaluate.shown import Picture, Pictures

if TYPE_CHECKING:
    from medvlm.data.mixture import Mixture
    from medvlm.evaluate.engines import Engine
    from medvlm.models.backbones.base import Example
    from medvlm.recipe.models import Recipe
    from medvlm.train.few_shot import Chosen, FewShot, Room


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """One row, as `Engine.answers` takes it."""

    image: Any
    """Its picture, or a tuple of several."""
    prefix: str
    shots: tuple[Example, ...]
    told: dict[str, Any]
    """What its prediction says besides: `shots`, the ids of the examples; `picture_of`, whose pictures are shown."""


class Questions:
    """Composes what the rows of a split are asked.

    Args:
        mixture: the rows.
        recipe: its `prompts` and budgets.
        engine: counts tokens.
        picture: whose pictures are shown (see `medvlm.evaluate.shown`); the examples always keep their own.
        seed: of the shuffle.
        few_shot: chooses the examples; by default from the recipe's training split.
    """

    def __init__(
        self,
        mixture: Mixture,
        recipe: Recipe,
        engine: Engine,
        picture: Picture = "own",
        seed: int = 0,
        few_shot: FewShot | None = None,
    ) -> None:
        self.mixture, self.recipe = mixture, recipe
        self.pictures = Pictures(mixture, picture, seed, recipe.prompts.max_images)
        self.few_shot = (few_shot or few_shot_of(recipe, engine)) if recipe.prompts.shots else None
        self.room = _room(engine) if recipe.prompts.max_images > 1 else None
        self._checked: set[int] = set()
        self.chosen: dict[int, Chosen] = {}
        """Of each place that was asked about, where examples are shown."""

    def text(self, place: int) -> str:
        """Return all text that the row is asked with, examples included.

        Raises:
            RecipeError: its own pictures have no room.
        """
        if self.room is not None and place not in self._checked:
            from medvlm.train.few_shot import check_room

            check_room(self.recipe, self.room, self.mixture, place)
            self._checked.add(place)
        if self.few_shot is None:
            from medvlm.train.collate import prefix

            return prefix(self.mixture.text(place), self.recipe.prompts)
        if place not in self.chosen:
            self.chosen[place] = self.few_shot.of(self.mixture, place)
        return self.chosen[place].whole

    def of(self, place: int) -> Asked:
        """Return what the row is asked."""
        shown = self.pictures.of(place)
        told = {"picture_of": shown.of} if self.pictures.picture == "shuffled" else {}
        image = shown.images if shown.more else shown.image
        text = self.text(place)
        if self.few_shot is None:
            return Asked(image, text, (), told)
        chosen = self.chosen[place]
        return Asked(image, chosen.prefix, self.few_shot.examples(chosen), told | {"shots": chosen.ids})

    def tell(self) -> None:
        """Print a line where examples had no room, or there are not enough; once for what chooses them."""
        from medvlm.train import few_shot

        if self.few_shot is not None and not self.few_shot.told:
            self.few_shot.told = True
            few_shot.tell(self.recipe, list(self.chosen.values()), "rows")


def few_shot_of(recipe: Recipe, engine: Engine) -> FewShot:
    """Return what chooses examples of the recipe's training split for what answers.

    Raises:
        UsageError: it counts no tokens.
    """
    from medvlm.data.mixture import Mixture
    from medvlm.train.few_shot import FewShot

    count = getattr(engine, "count", None)
    if count is None:
        raise UsageError("prompts.shots: what answers here counts no tokens, so no examples can be fitted in; set 0")
    rows = Mixture(recipe.data, "train", recipe.seed, how=recipe.mixture)
    return FewShot(rows, recipe, count, _room(engine))


def _room(engine: Engine) -> Room | None:
    room = getattr(engine, "room", None)
    return room() if room else None
