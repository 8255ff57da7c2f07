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
    """

    def __init__(
        self,
        mixture: Mixture,
        prompts: PromptsPart,
        places: Sequence[int] | None = None,
        cache: Caches | None = None,
    ) -> None:
        self.mixture, self.prompts, self.cache = mixture, prompts, cache
        self.places = range(len(mixture)) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:
        place = self.places[index]
        words = self.words(index)
        if self.cache is not None:
            return Example(None, *words, pixels=self.cache.kept(self.mixture, place))
        return Example(self.mixture.image(place), *words)

    def words(self, index: int) -> tuple[str, str]:
        """Return prefix and suffix of an example without its picture."""
        text = self.mixture.text(self.places[index])
        return prefix(text, self.prompts), str(text["target"])


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
