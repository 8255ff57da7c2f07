"""How far a merged model, as it was saved, is from base plus adapter: measured on rows that were evaluated."""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError
from medvlm.evaluate.predict import Predictor
from medvlm.models.load import load_base
from medvlm.models.trained import restore_fitted
from medvlm.recipe.models import EvalPart, QuantizationPart, Recipe
from medvlm.runs import Run

if TYPE_CHECKING:
    import torch

    from medvlm.data.mixture import Mixture
    from medvlm.models.backbones.base import Example

ROWS = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """Between the logits and greedy answers of two models."""

    rows: int
    largest_logit: float
    """Largest absolute difference of a logit, over all tokens at all positions of the rows' targets."""
    same_answers: int
    split: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as it stands in export.json."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a split that was evaluated."""

    mixture: Mixture
    split: str
    places: list[int]


def rows_of(run: Run, recipe: Recipe, most: int = ROWS) -> Rows:
    """Return some rows of a split that was evaluated, evenly spread.

    Raises:
        InputError: nothing was evaluated, or the data is gone or has changed.
    """
    from medvlm.data.mixture import Mixture

    evaluated = [s for s in ("test", "validation", "train") if (run.evaluation(s) / "predictions.jsonl").is_file()]
    if not evaluated:
        raise InputError("not evaluated")
    split = evaluated[0]
    lines = (run.evaluation(split) / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    names = [str(json.loads(line)["id"]) for line in lines]
    names = [names[place * len(names) // min(most, len(names))] for place in range(min(most, len(names)))]
    mixture = Mixture(recipe.data, split, recipe.seed, weighted=False, how=recipe.mixture)
    for old, new in zip(run.facts()["data"], mixture.facts(), strict=True):
        if old["fingerprint"] != new["fingerprint"]:
            raise InputError(f"{new['path']} has changed since")
    places = {str(text["id"]): place for place, text in enumerate(mixture.texts())}
    found = [places[name] for name in names if name in places]
    if not found:
        raise InputError(f"no row of the {split} split was evaluated")
    return Rows(mixture, split, found)


def examples_of(rows: Rows, predictor: Predictor) -> list[Example]:
    """Return the rows as they were evaluated, all pictures and few-shot examples included, with their targets."""
    from medvlm.evaluate.questions import Questions
    from medvlm.models.backbones.base import Example

    questions = Questions(rows.mixture, predictor.recipe, predictor)
    found = []
    for place in rows.places:
        asked = questions.of(place)
        first, *more = asked.image if isinstance(asked.image, tuple) else (asked.image,)
        target = str(rows.mixture.text(place)["target"])
        found.append(Example(first, asked.prefix, target, more_images=tuple(more), shots=asked.shots))
    return found


@dataclasses.dataclass(slots=True)
class Told:
    """What a model makes of some rows: logits [n, V] of each at its target's tokens, and its greedy answers."""

    logits: list[torch.Tensor]
    answers: list[str]


def tell(predictor: Predictor, examples: Sequence[Example]) -> Told:
    """Return logits and answers, one row at a time, so that no padding comes in."""
    return Told(
        [_logits(predictor, example) for example in examples],
        [predictor.answers([one.images], [one.prefix], [one.shots])[0] for one in examples],
    )


def _logits(predictor: Predictor, example: Example) -> torch.Tensor:
    import torch

    from medvlm.models.backbones.base import IGNORED

    backbone = predictor.loaded.backbone
    inputs = backbone.collate([example])
    labels = inputs.pop("labels")
    # Of one picture and its text a model that matches has one number.
    inputs.pop("pictures", None)
    if backbone.output == "text":
        inputs["logits_to_keep"] = (labels[0, 1:] != IGNORED).nonzero()[:, 0]
    inputs = {name: value.to(predictor.device) for name, value in inputs.items()}
    with torch.inference_mode(), predictor.precision():
        seen = predictor.model(**inputs)
    found = seen.logits_per_image if backbone.output == "match" else seen.logits[0]
    return found.float().cpu()  # type: ignore[no-any-return]


def compare(run: Run, recipe: Recipe, first: Told, merged: Path, examples: Sequence[Example], split: str) -> Difference:
    """Return how the model saved in `merged` differs from what `first` told."""
    whole = plain(recipe)
    loaded = load_base(whole, trained=str(merged))
    restore_fitted(loaded, run)
    second = tell(Predictor(loaded, whole), examples)
    pairs = zip(first.logits, second.logits, strict=True)
    largest = max(float((a[..., : b.shape[-1]] - b[..., : a.shape[-1]]).abs().max()) for a, b in pairs)
    same = sum(a == b for a, b in zip(first.answers, second.answers, strict=True))
    return Difference(len(examples), largest, same, split)


def greedy(recipe: Recipe) -> Recipe:
    """Return the recipe with greedy decoding."""
    part = EvalPart(batch_size=1, max_new_tokens=recipe.eval.max_new_tokens)
    return recipe.model_copy(update={"eval": part})


def plain(recipe: Recipe) -> Recipe:
    """Return the recipe without quantization and with greedy decoding."""
    return greedy(recipe).model_copy(update={"quantization": QuantizationPart()})


def release() -> None:
    """Give memory back before the next model is loaded."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
