"""What is recorded of decoding is what acts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from predict_rows_kit import recipe_of
from transformers import GenerationConfig

from medvlm.evaluate.generation import NEUTRAL, NEUTRAL_BEAMS, acting, decoding
from medvlm.evaluate.predict import Predictor, load_plain
from medvlm.io import write_json
from medvlm.models.locate import TINY_BASE, locate
from medvlm.recipe.models import Recipe
from medvlm.runs import Run


@pytest.fixture(scope="module")
def tiny() -> Any:
    return load_plain(recipe_of()).model


def with_settings(folder: Path, **settings: object) -> Recipe:
    """Return a recipe of a copy of the tiny base whose generation_config.json sets more."""
    shutil.copytree(str(locate(TINY_BASE).path), folder)
    told = json.loads((folder / "generation_config.json").read_text())
    write_json(folder / "generation_config.json", told | settings)
    recipe = recipe_of(max_new_tokens=12)
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"id": str(folder)})})


def test_what_the_models_files_set_is_recorded_and_acts(tmp_path: Path) -> None:
    plain = recipe_of(max_new_tokens=12)
    changed = with_settings(tmp_path / "base", repetition_penalty=5.0, top_k=7, no_repeat_ngram_size=0)
    assert "model_settings" not in decoding(plain)
    assert decoding(changed) == decoding(plain) | {"model_settings": {"repetition_penalty": 5.0}}
    loaded = load_plain(changed)
    assert acting(loaded.model.generation_config.to_dict()) == {"repetition_penalty": 5.0}  # type: ignore[union-attr]
    picture = Image.new("RGB", (40, 40), (90, 90, 90))
    answers = [Predictor(load_plain(r), r).answers([picture], ["caption en"]) for r in (plain, changed)]
    assert answers[0] != answers[1]


def test_a_whole_model_of_a_run_has_settings_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / "config.json", {})
    write_json(tmp_path / "model" / "generation_config.json", {"min_new_tokens": 3})
    assert decoding(recipe_of(), run=Run(tmp_path))["model_settings"] == {"min_new_tokens": 3}
    assert "model_settings" not in decoding(recipe_of())


def test_settings_of_beams_count_with_beams_only(tmp_path: Path) -> None:
    recipe = with_settings(tmp_path / "base", length_penalty=2.0)
    assert "model_settings" not in decoding(recipe)
    beams = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"num_beams": 2})})
    assert decoding(beams)["model_settings"] == {"length_penalty": 2.0}


def test_the_defaults_of_transformers_are_neutral() -> None:
    defaults = GenerationConfig._get_default_generation_params()
    assert acting(defaults, num_beams=2) == {}
    assert {name for name in NEUTRAL | NEUTRAL_BEAMS if not hasattr(GenerationConfig(), name)} == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repetition_penalty", 2.0),
        ("no_repeat_ngram_size", 2),
        ("min_length", 90),
        ("min_new_tokens", 4),
        ("bad_words_ids", [[5]]),
        ("suppress_tokens", [5]),
        ("begin_suppress_tokens", [5]),
        ("forced_bos_token_id", 5),
        ("forced_eos_token_id", 1),
        ("remove_invalid_values", True),
        ("exponential_decay_length_penalty", [2, 1.5]),
        ("sequence_bias", [[[5], 1.0]]),
        ("guidance_scale", 1.5),
        ("encoder_repetition_penalty", 1.5),
        ("encoder_no_repeat_ngram_size", 2),
    ],
)
def test_each_such_setting_makes_transformers_change_scores(tiny: Any, name: str, value: object) -> None:
    """Of every setting that is said to act, transformers makes a logits processor under greedy search."""

    def processors(**settings: object) -> list[str]:
        config = GenerationConfig(eos_token_id=1, max_length=99, **settings)
        tiny._prepare_special_tokens(config, device="cpu")
        ids = torch.tensor([[4, 5]])
        given = {"generation_config": config, "input_ids_seq_length": 2, "encoder_input_ids": ids}
        return [type(one).__name__ for one in tiny._get_logits_processor(**given)]

    assert processors() == []
    assert len(processors(**{name: value})) == 1
    assert acting({name: value}) == {name: value}
