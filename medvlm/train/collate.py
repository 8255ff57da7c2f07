"""Rows of the mixture as the backbone's examples: the recipe's templates laid over the bare prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from medvlm.data.mixture import Mixture
from medvlm.models.backbones.base import Backbone, Example
from medvlm.recipe.models import PromptsPart


def prefix(text: dict[str, Any], prompts: PromptsPart) -> str:
    """Return the prefix of a row: its task's template, filled."""
    template: str = getattr(prompts, str(text["task"]))
    # Replaced, not formatted: a question may itself hold braces.
    filled = template.replace("{language}", str(text.get("language") or "en"))
    return filled.replace("{prompt}", str(text["prompt"] or "")).strip()


class Examples(torch.utils.data.Dataset[Example]):
    """The mixture's places as examples, for a DataLoader."""

    def __init__(self, mixture: Mixture, prompts: PromptsPart, places: Sequence[int] | None = None) -> None:
        self.mixture, self.prompts = mixture, prompts
        self.places = range(len(mixture)) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:
        place = self.places[index]
        text = self.mixture.text(place)
        return Example(self.mixture.image(place), prefix(text, self.prompts), str(text["target"]))


class Collator:
    """`backbone.collate`, picklable for worker processes."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return the padded training inputs of a batch."""
        return self.backbone.collate(examples)
