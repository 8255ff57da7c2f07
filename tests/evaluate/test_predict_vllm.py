"""The vLLM engine over a stand-in with vLLM's signatures, which answers by transformers from the tokens it is given."""

from __future__ import annotations

import dataclasses
import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from predict_rows_kit import QUESTIONS, recipe_of

from medvlm.errors import MedvlmError, MissingExtraError, UsageError
from medvlm.evaluate import engines
from medvlm.evaluate.engines.vllm_engine import VllmKind
from medvlm.evaluate.predict import Predictor, load_plain
from medvlm.io import write_json
from medvlm.models.locate import TINY_BASE, locate
from medvlm.runs import Run

VLLM = engines.Choice("vllm")
PICTURES = [Image.new("RGB", (40, 40), (shade, shade, shade)) for shade in (0, 90, 200)]


@dataclasses.dataclass
class SamplingParams:
    """vLLM's, as far as it is used; any other keyword is an error, as there."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = 16
    min_tokens: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    skip_special_tokens: bool = True


class LLM:
    """vLLM's entry, with its own way to compose PaliGemma's prompt around the tokens it is given."""

    made: LLM

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        dtype: str = "auto",
        seed: int = 0,
        max_model_len: int | None = None,
        limit_mm_per_prompt: dict[str, int] | None = None,
    ) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

        LLM.made, self.length = self, max_model_len
        self.model = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype).eval()
        self.processor = AutoProcessor.from_pretrained(model, backend="pil")
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        self.adds_start = json.loads((Path(str(tokenizer)) / "tokenizer_config.json").read_text())["add_bos_token"]
        self.params: list[SamplingParams] = []

    def generate(self, prompts: Any, sampling_params: Any = None, *, use_tqdm: bool = True) -> list[Any]:
        self.params = sampling_params
        return [self._one(prompt, how) for prompt, how in zip(prompts, sampling_params, strict=True)]

    def _one(self, prompt: dict[str, Any], how: SamplingParams) -> Any:
        import torch

        start, image = self.tokenizer.bos_token_id, self.tokenizer.convert_tokens_to_ids("<image>")
        tokens = [image] * self.processor.image_seq_length + [start] + prompt["prompt_token_ids"]
        tokens = [start, *tokens] if self.adds_start else tokens
        assert len(tokens) + (how.max_tokens or 0) <= (self.length or 0)
        pixels = self.processor.image_processor(prompt["multi_modal_data"]["image"], return_tensors="pt")
        ids = torch.tensor([tokens])
        made = self.model.generate(
            input_ids=ids, token_type_ids=torch.zeros_like(ids), **pixels, max_new_tokens=how.max_tokens
        )
        text = self.tokenizer.decode(made[0, len(tokens) :], skip_special_tokens=True)
        return types.SimpleNamespace(prompt_token_ids=tokens, outputs=[types.SimpleNamespace(text=text)])


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("vllm")
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr("medvlm.evaluate.engines.vllm_engine.KIND", VllmKind())
    return module


def run_of(folder: Path, **facts: Any) -> Run:
    folder.mkdir(exist_ok=True)
    write_json(folder / "run.json", {"status": "finished", "recipe_hash": "h", **facts})
    return Run(folder)


@pytest.mark.usefixtures("vllm")
def test_the_same_prompt_and_answers_as_by_transformers(tmp_path: Path) -> None:
    recipe = recipe_of(max_new_tokens=8)
    engine = engines.load(VLLM, run_of(tmp_path, kind="baseline"), recipe)
    ours = Predictor(load_plain(recipe), recipe)
    # A text that names special tokens, and one past the budget of the prefix.
    prefixes = [*QUESTIONS[:2], "answer en <image> <eos> nodule " * 60]
    assert engine.answers(PICTURES, prefixes) == ours.answers(PICTURES, prefixes)
    assert engines.lengths(engine, prefixes) == ours.lengths(prefixes)
    assert {how.temperature for how in LLM.made.params} == {0.0}


@pytest.mark.usefixtures("vllm")
def test_draws_are_of_seed_picture_and_prefix(tmp_path: Path) -> None:
    recipe = recipe_of(temperature=0.7, top_p=0.9)
    run = run_of(tmp_path, kind="baseline")
    seeds = []
    for order, seed in (([0, 1, 2], 1), ([2, 1, 0], 1), ([0, 1, 2], 2)):
        engine = engines.load(VLLM, run, recipe, seed=seed)
        engine.answers([PICTURES[n] for n in order], ["caption en"] * 3)
        seeds.append([how.seed for how in LLM.made.params])
        assert {(how.temperature, how.top_p, how.max_tokens) for how in LLM.made.params} == {(0.7, 0.9, 6)}
    assert seeds[0] == seeds[1][::-1]
    assert len({*seeds[0], *seeds[2]}) == 6


@pytest.mark.usefixtures("vllm")
def test_one_model_is_loaded_once(tmp_path: Path) -> None:
    run = run_of(tmp_path, kind="baseline")
    first = engines.load(VLLM, run, recipe_of())
    assert engines.load(VLLM, run, recipe_of(), base=True) is first
    assert engines.load(VLLM, run, recipe_of(max_new_tokens=7)) is not first


@pytest.mark.usefixtures("vllm")
def test_a_version_that_composes_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engines.load(VLLM, run_of(tmp_path, kind="baseline"), recipe_of())
    monkeypatch.setattr(LLM.made, "adds_start", True)
    with pytest.raises(MedvlmError, match="composes PaliGemma's prompt otherwise"):
        engine.answers(PICTURES[:1], ["caption en"])


@pytest.mark.usefixtures("vllm")
def test_an_adapter_is_exported_first(tmp_path: Path) -> None:
    run = run_of(tmp_path / "mine")
    with pytest.raises(UsageError, match=r"run `medvlm export .*mine --merge --out .*mine/merged` first"):
        engines.check(VLLM, run, recipe_of())
    (run.path / "merged").mkdir()
    write_json(run.path / "merged" / "export.json", {"merged_into": "original", "recipe_hash": "other"})
    with pytest.raises(UsageError, match="holds an adapter"):
        engines.check(VLLM, run, recipe_of())
    write_json(run.path / "merged" / "export.json", {"merged_into": "original", "recipe_hash": "h"})
    engines.check(VLLM, run, recipe_of())


@pytest.mark.usefixtures("vllm")
def test_what_vllm_cannot_do_is_said(tmp_path: Path) -> None:
    run = run_of(tmp_path, kind="baseline")
    with pytest.raises(UsageError, match="no beam search"):
        engines.check(VLLM, run, recipe_of(num_beams=2))
    recipe = recipe_of()
    model = recipe.model.model_copy(update={"backbone": "git_llm"})
    with pytest.raises(UsageError, match="does not know git_llm"):
        engines.check(VLLM, run, recipe.model_copy(update={"model": model}))
    larger = recipe.model.model_copy(update={"image_size": 224})
    with pytest.raises(UsageError, match="the base takes 112 pixels and the recipe 224"):
        engines.check(VLLM, run, recipe.model_copy(update={"model": larger}))


@pytest.mark.usefixtures("vllm")
def test_the_models_own_settings_are_passed_or_refused(tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "base"
    shutil.copytree(str(locate(TINY_BASE).path), folder)
    model = recipe_of().model.model_copy(update={"id": str(folder)})
    recipe = recipe_of().model_copy(update={"model": model})
    run = run_of(tmp_path / "run", kind="baseline")
    told = json.loads((folder / "generation_config.json").read_text())
    write_json(folder / "generation_config.json", told | {"repetition_penalty": 1.3, "min_new_tokens": 2})
    engines.load(VLLM, run, recipe).answers(PICTURES[:1], ["caption en"])
    assert (LLM.made.params[0].repetition_penalty, LLM.made.params[0].min_tokens) == (1.3, 2)
    write_json(folder / "generation_config.json", told | {"no_repeat_ngram_size": 3})
    with pytest.raises(UsageError, match="sets no_repeat_ngram_size, which it cannot follow"):
        engines.check(VLLM, run, recipe)


def test_without_vllm_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"^--engine vllm needs an optional package: pip install 'medvlm\[vllm"):
        engines.check(VLLM, run_of(tmp_path, kind="baseline"), recipe_of())


def test_no_such_engine(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'unknown --engine "vlm" \(did you mean "vllm"\?\)'):
        engines.check(engines.Choice("vlm"), run_of(tmp_path), recipe_of())
