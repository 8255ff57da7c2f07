"""The figure by which the best checkpoint is chosen: texts generated from a fixed sample of validation rows, scored."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy
import torch

from medvlm.recipe.models import Recipe

if TYPE_CHECKING:
    from medvlm.data.mixture import Mixture
    from medvlm.evaluate.predict import Predictor
    from medvlm.train.few_shot import FewShot

_SCORES = {"bleu4": ("bleu", "bleu_4"), "rouge_l": ("rouge", "rouge_l"), "cider": ("cider", "cider")}


def sample(count: int, limit: int, seed: int) -> list[int]:
    """Return at most `limit` of the first `count` numbers, the same for every call with this seed, in order."""
    places = list(range(count))
    return places if count <= limit else sorted(random.Random(seed).sample(places, limit))


def random_states() -> dict[str, Any]:
    """Return the states of every source of chance that training draws from, in the Trainer's own form."""
    states = {"python": random.getstate(), "numpy": numpy.random.get_state(), "cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put back what `random_states` returned."""
    random.setstate(states["python"])
    numpy.random.set_state(states["numpy"])
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Put random states and every module's mode back afterwards, so that training goes on as if nothing had been."""
    modes = [(module, module.training) for module in model.modules()]
    states: tuple[Any, ...] = (random.getstate(), numpy.random.get_state(), torch.get_rng_state())
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)
        for module, mode in modes:
            module.training = mode


def accuracy(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Return the share of predictions that say their reference, letter case, punctuation and blanks apart."""
    pairs = zip(predictions, references, strict=True)
    return sum(_plain(prediction) == _plain(reference) for prediction, reference in pairs) / len(predictions)


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.casefold()).split())


def figure(name: str, predictions: Sequence[str], references: Sequence[str]) -> float:
    """Return the value of `train.best`'s figure `name`: higher is better."""
    if name == "accuracy":
        return accuracy(predictions, references)
    from medvlm.evaluate.metrics import score

    metric, key = _SCORES[name]
    return float(score([metric], predictions, [[reference] for reference in references]).values[key])


def greedy(recipe: Recipe) -> Recipe:
    """Return the recipe with decoding that draws nothing, whatever `medvlm eval` will do."""
    decoding = {"num_beams": 1, "temperature": 0.0, "top_p": 1.0}
    return recipe.model_copy(update={"eval": recipe.eval.model_copy(update=decoding)})


def generated(
    predictor: Predictor, mixture: Mixture, places: Sequence[int], recipe: Recipe, few_shot: FewShot | None = None
) -> list[str]:
    """Return the model's answer to each place of the validation rows.

    Args:
        predictor: of the model.
        mixture: the validation rows.
        places: which of them.
        recipe: for prompts and batch size.
        few_shot: chooses the examples before each; by default from the training split, which is opened for it.
    """
    from medvlm.evaluate.questions import Questions

    questions = Questions(mixture, recipe, predictor, few_shot=few_shot)
    answers: list[str] = []
    for start in range(0, len(places), recipe.eval.batch_size):
        asked = [questions.of(place) for place in places[start : start + recipe.eval.batch_size]]
        images, prefixes, shots = ([getattr(one, name) for one in asked] for name in ("image", "prefix", "shots"))
        answers += predictor.answers(images, prefixes, shots)
    return answers
