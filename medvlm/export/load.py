"""An exported adapter that needs more than peft: resized position embeddings, parts put together, bare components."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medvlm.recipe.resolve import read_resolved
from medvlm.runs import Run

if TYPE_CHECKING:
    from medvlm.models.load import Loaded


class _Exported(Run):
    """An export's folder, where the weights lie at the top."""

    @property
    def adapter(self) -> Path:
        return self.path

    @property
    def model(self) -> Path:
        return self.path / "model"


def load_export(folder: str | Path, bases: Mapping[str, str | Path] | None = None) -> Loaded:
    """Return the base with an exported adapter in place, as in training; `medvlm.evaluate.predict` takes it.

    Args:
        folder: what `medvlm export RUN --out DIR` wrote, without `--merge`.
        bases: role (model, or vision_tower and language_model) -> the folder of a part of the base that is not on the
            Hub; the export's recipe has only its name.

    Raises:
        InputError: no such export, or its weights do not fit.
    """
    from medvlm.models import trained

    path = Path(folder)
    recipe = read_resolved(path / "recipe.yaml")
    keys = {"id" if role == "model" else role: str(place) for role, place in (bases or {}).items()}
    model = recipe.model.model_copy(update=keys)
    return trained.load(_Exported(path), recipe.model_copy(update={"model": model}))
