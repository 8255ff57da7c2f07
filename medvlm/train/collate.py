"""Rows of the mixture as the backbone's examples: the recipe's templates laid over the bare prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from medvlm.data.mixture import Mixture
from medvlm.models.backbones.base import Backbone, Example
from medvlm.recipe.models import PromptsPart

if TYPE_CHECKING:
    from medvlm.data.cache import Caches
    from medvlm.train.few_shot import FewShot


def prefix(text: dict[str, Any], prompts: PromptsPart) -> str:
    """Return the prefix of a row: its task's template, filled."""
    template: str = getattr(prompts, str(text["task"]))
    # Replaced, not formatted: a question may itself hold braces.
    filled = template.replace("{language}", str(text.get("language") or "en"))
    return filled.replace("{prompt}", str(text["prompt"] or "")).strip()


class Examples(torch.utils.data.Dataset[Example]):
    """The mixture's places as examples, for a DataLoader.

    Args:
        mixture: the rows.
        prompts: the recipe's templates.
        places: only these of the mixture, in this order; None is all.
        cache: what is kept of the pictures, if anything: they are then not decoded.
        few_shot: chooses the answered rows that are shown before each; None shows none.
    """

    def __init__(
        self,
        mixture: Mixture,
        prompts: PromptsPart,
        places: Sequence[int] | None = None,
        cache: Caches | None = None,
        few_shot: FewShot | None = None,
    ) -> None:
        self.mixture, self.prompts, self.cache, self.few_shot = mixture, prompts, cache, few_shot
        self.places = range(len(mixture)) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:
        place = self.places[index]
        before, suffix, shots = self._composed(index)
        if self.cache is not None:
            return Example(None, before, suffix, pixels=self.cache.kept(self.mixture, place))
        first, *more = pictures(self.mixture, place, self.prompts.max_images)
        return Example(first, before, suffix, more_images=tuple(more), shots=shots)

    def words(self, index: int) -> tuple[str, str]:
        """Return prefix and suffix of an example without its pictures."""
        before, suffix, _ = self._composed(index, pictured=False)
        return before, suffix

    def _composed(self, index: int, pictured: bool = True) -> tuple[str, str, tuple[Example, ...]]:
        """Return prefix, suffix, and the examples before it; without `pictured` these are texts in the prefix."""
        place = self.places[index]
        text = self.mixture.text(place)
        if self.few_shot is None:
            return prefix(text, self.prompts), str(text["target"]), ()
        chosen = self.few_shot.of(self.mixture, place)
        if not pictured:
            return chosen.whole, str(text["target"]), ()
        return chosen.prefix, str(text["target"]), self.few_shot.examples(chosen)


def pictures(mixture: Mixture, place: int, most: int) -> tuple[Any, ...]:
    """Return a row's first picture, and at most so many in all of its further ones."""
    return (mixture.image(place),) if most == 1 else mixture.pictures(place, most)


class Collator:
    """`backbone.collate`, or with `packed` `backbone.collate_packed`; picklable for worker processes.

    Args:
        backbone: of the model.
        packed: let the examples of a batch share rows.
        pack_tokens: longest such row; None is twice the longest example of the batch.
    """

    def __init__(self, backbone: Backbone, packed: bool = False, pack_tokens: int | None = None) -> None:
        self.backbone, self.packed, self.pack_tokens = backbone, packed, pack_tokens

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return the training inputs of a batch."""
        if self.packed:
            return self.backbone.collate_packed(examples, self.pack_tokens)
        return self.backbone.collate(examples)
