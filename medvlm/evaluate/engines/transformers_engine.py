"""The model by transformers, with whatever adapters and quantization it was trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medvlm.evaluate.engines import FullEngine
    from medvlm.recipe.models import Recipe
    from medvlm.runs import Run


class TransformersKind:
    """Answers for every run."""

    def check(self, run: Run, recipe: Recipe, base: bool) -> None:
        """Every run can be asked."""

    def load(self, run: Run, recipe: Recipe, base: bool, seed: int | None) -> FullEngine:
        """Return the run's model, or with `base` its base with nothing trained (see `medvlm.evaluate.predict`)."""
        from medvlm.evaluate import predict

        loaded = predict.load_plain(recipe) if base else predict.load_tuned(run, recipe)
        if base and loaded.backbone.output == "match" and (fitted := run.fitted()):
            # The untuned base chooses among the same texts.
            loaded.backbone.restore(loaded.model, fitted)
        return predict.Predictor(loaded, recipe, seed)


KIND = TransformersKind()
