"""An export in medvlm's hands: what needs more than peft (resized, put together, bare components), or any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.models.backbones import BACKBONES
from medvlm.recipe.models import QuantizationPart, Recipe
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

    def fitted(self) -> dict[str, Any]:
        # The texts that a model matches are training data, and no part of an export.
        matches = BACKBONES.get(self.recipe().model.backbone).output == "match"
        return {"candidates": {}} if matches else super().fitted()


def recipe_of(folder: str | Path) -> Recipe:
    """Return the recipe of an export as it is to be loaded: a whole model is not quantized, whatever its base was.

    Raises:
        InputError: no such export.
    """
    path = Path(folder)
    recipe = read_resolved(path / "recipe.yaml")
    return recipe.model_copy(update={"quantization": QuantizationPart()}) if _is_whole(path) else recipe


def load_export(folder: str | Path, bases: Mapping[str, str | Path] | None = None) -> Loaded:
    """Return an exported model; `medvlm.evaluate.predict` takes it.

    A model that answers with the training text that matches best comes without texts, which no export has: give its
    backbone some by `restore`.

    Args:
        folder: what `medvlm export RUN --out DIR` wrote: an adapter, which is put into its base as in training, or a
            whole model.
        bases: role (model, or vision_tower and language_model) -> the folder of a part of the base that is not on the
            Hub; the export's recipe has only its name. A whole model needs none.

    Raises:
        InputError: no such export, or its weights do not fit.
    """
    from medvlm.models import trained

    path, recipe = Path(folder), recipe_of(folder)
    if _is_whole(path):
        from medvlm.models.load import load_base
        from medvlm.models.locate import Located

        loaded = load_base(recipe, {"model": Located(recipe.model.label, path)})
        trained.restore_fitted(loaded, _Exported(path))
        return loaded
    keys = {"id" if role == "model" else role: str(place) for role, place in (bases or {}).items()}
    model = recipe.model.model_copy(update=keys)
    return trained.load(_Exported(path), recipe.model_copy(update={"model": model}))


def _is_whole(path: Path) -> bool:
    return (path / "config.json").is_file()
