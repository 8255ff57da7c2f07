"""How answers are decoded, as scores and predictions record it: by the recipe, and by the model's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.errors import AccessError, InputError
from medvlm.models.locate import is_local, locate
from medvlm.recipe.models import Recipe

if TYPE_CHECKING:
    from medvlm.runs import Run

NEUTRAL: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "max_time": None,
    "stop_strings": None,
    "bad_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "remove_invalid_values": False,
    "guidance_scale": None,
    "watermarking_config": None,
}
"""What a model's generation_config.json can set that changes greedy answers, and its value that changes nothing.

From transformers' GenerationConfig and the logits processors that `generate` makes of it. Its temperature, top_k, top_p
and the like do nothing here, since the recipe decides how tokens are drawn; its end tokens are the model's own."""

NEUTRAL_BEAMS: dict[str, Any] = {"length_penalty": 1.0, "early_stopping": False, "renormalize_logits": False}
"""As `NEUTRAL`, for beam search alone."""


def decoding(recipe: Recipe, seed: int | None = None, run: Run | None = None) -> dict[str, Any]:
    """Return how answers are decoded.

    Args:
        recipe: its `eval` decides.
        seed: of what is drawn; None takes the recipe's.
        run: the run that answers, for what its own model sets; None is the recipe's base.

    Returns:
        max_new_tokens, do_sample, num_beams; temperature, top_p and seed where tokens are drawn; `model_settings` where
        the model's generation_config.json sets more that acts.
    """
    part = recipe.eval
    facts: dict[str, Any] = {
        "max_new_tokens": part.max_new_tokens,
        "do_sample": part.temperature > 0,
        "num_beams": part.num_beams,
    }
    if part.temperature > 0:
        seed = recipe.seed if seed is None else seed
        facts |= {"temperature": part.temperature, "top_p": part.top_p, "seed": seed}
    settings = acting(_stored(recipe, run), part.num_beams)
    return facts | ({"model_settings": settings} if settings else {})


def asking(recipe: Recipe) -> dict[str, Any]:
    """Return what rows are shown in evaluation besides one picture and their prompt; nothing where it is no more.

    Returns:
        max_images where it is above 1; shots and shots_seed (which decides on them) where there are examples.
    """
    prompts = recipe.prompts
    facts: dict[str, Any] = {"max_images": prompts.max_images} if prompts.max_images > 1 else {}
    return facts | ({"shots": prompts.shots, "shots_seed": recipe.seed} if prompts.shots else {})


def acting(settings: dict[str, Any], num_beams: int = 1) -> dict[str, Any]:
    """Return those of a generation configuration's settings that change what is generated, sorted by name."""
    neutral = NEUTRAL | (NEUTRAL_BEAMS if num_beams > 1 else {})
    return {
        name: settings[name]
        for name in sorted(neutral)
        # None is how a configuration says that it leaves something to the default.
        if settings.get(name) is not None and settings[name] != neutral[name]
    }


def _stored(recipe: Recipe, run: Run | None) -> dict[str, Any]:
    """Return the generation configuration beside the weights, empty where there is none on this machine."""
    if run is not None and (run.model / "config.json").is_file():
        return _read(run.model)
    # Of a model that is put together from parts none of their settings hold.
    name = recipe.model.parts.get("model")
    if name is None or not is_local(name):
        return {}
    try:
        path = locate(name, recipe.model.revision).path
    except (AccessError, InputError):
        # Whoever loads the weights says so.
        return {}
    return _read(path) if path is not None else {}


def _read(folder: Path) -> dict[str, Any]:
    try:
        settings = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}
