"""A trained model as a run on disk, and the logits that it gives for a batch of training inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from medvlm.models import trained
from medvlm.models.load import Loaded
from medvlm.recipe.models import Recipe
from medvlm.recipe.resolve import write_resolved
from medvlm.runs import Run


def saved(loaded: Loaded, made: Recipe, folder: Path) -> Run:
    folder.mkdir()
    trained.save(loaded.model, loaded.processor, folder)
    write_resolved(made, folder / "recipe.yaml")
    return Run(folder)


@torch.no_grad()
def logits_for(loaded: Loaded, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits [B, T, V] of all positions."""
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "logits_to_keep")}
    found: torch.Tensor = loaded.model.eval()(**inputs).logits
    return found
