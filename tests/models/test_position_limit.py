"""No example is longer than the decoder has positions: held against decoders that are given one more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from git_llm_tiny import FAMILIES, text_config, vision_config
from transformers import AutoModelForCausalLM

from medvlm.errors import RecipeError
from medvlm.models.git_llm import GitLlmConfig
from medvlm.models.load import check_length, load_base, planned_config
from medvlm.recipe.load import check

IMAGE, PREFIX, POSITIONS = 17, 20, 512


def recipe(suffix: int = 8, new: int = 8, batching: str = "shuffled", **model: Any) -> Any:
    raw = {
        "name": "t",
        "model": {"backbone": "git_llm", "vision_tower": "a", "language_model": "b", "dtype": "float32", **model},
        "data": [{"path": "d"}],
        "text": {"max_prefix_tokens": PREFIX, "max_suffix_tokens": suffix},
        "eval": {"max_new_tokens": new},
        "train": {"batching": batching},
        "adapters": {"projector": "full"},
    }
    return check(raw, "t")


def reads(config: Any, length: int) -> bool:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    try:
        with torch.no_grad():
            model(torch.ones(1, length, dtype=torch.long), use_cache=False)
    except (IndexError, RuntimeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_as_many_as_the_decoder_reads(family: str) -> None:
    text = text_config(family)
    config = GitLlmConfig(vision_config=vision_config(), text_config=text, image_token_id=0)
    most = POSITIONS - IMAGE - 1 - PREFIX
    check_length(recipe(most, most + 1), config, IMAGE)
    assert reads(text, POSITIONS)
    longer = recipe(most + 1, most + 2)
    if reads(text, POSITIONS + 1):
        check_length(longer, config, IMAGE)
        return
    with pytest.raises(RecipeError) as caught:
        check_length(longer, config, IMAGE)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "text.max_suffix_tokens",
        "eval.max_new_tokens",
    ]
    assert "up to 513 tokens, 17 of the picture" in str(caught.value)


def test_packed_rows_count_where_biases_go_by_the_place_in_the_row() -> None:
    def config(family: str) -> Any:
        return GitLlmConfig(vision_config=vision_config(), text_config=text_config(family), image_token_id=0)

    check_length(recipe(300), config("mpt"), IMAGE)
    check_length(recipe(300, batching="packed"), config("opt"), IMAGE)
    with pytest.raises(RecipeError, match=r"train\.pack_tokens: up to 676 tokens"):
        check_length(recipe(300, batching="packed"), config("mpt"), IMAGE)


def test_loading_and_planning_refuse_it(tmp_path: Path) -> None:
    from git_llm_tiny import save_text, save_tower

    parts = {
        "vision_tower": str(save_tower(tmp_path / "tower")),
        "language_model": str(save_text(tmp_path / "text", "gpt2", "gpt2")),
    }
    load_base(recipe(**parts))
    planned_config(recipe(**parts))
    for act in (load_base, planned_config):
        with pytest.raises(RecipeError, match=r"text\.max_suffix_tokens: up to 538 tokens, .* gpt2 has 512 positions"):
            act(recipe(500, **parts))
        # A larger picture has more tokens.
        with pytest.raises(RecipeError, match="577 of the picture"):
            act(recipe(image_size=168, **parts))
