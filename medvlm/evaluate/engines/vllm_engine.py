"""A merged or published PaliGemma by vLLM: a batching engine of its own for GPUs, the extra medvlm[vllm].

vLLM's processor puts the image tokens and `<bos>` in front of the prompt's tokens and sees to the line end behind them.
Where the tokenizer adds `<bos>` by itself it expects one more, which PaliGemma was not trained with, so the tokenizer
is given to it with that turned off. What it has read is compared with what the recipe's template composes.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.errors import MedvlmError, MissingExtraError, UsageError
from medvlm.evaluate.generation import decoding
from medvlm.io import sha256_bytes, stable_hash, write_json
from medvlm.models.locate import locate

if TYPE_CHECKING:
    from medvlm.evaluate.engines import FullEngine
    from medvlm.models.backbones.base import Example
    from medvlm.recipe.models import Recipe
    from medvlm.runs import Run

MERGED = "merged"
"""Folder within a run that its merged export is looked for in."""

PASSED = {"repetition_penalty": "repetition_penalty", "min_new_tokens": "min_tokens"}
"""What a model's generation_config.json may set -> vLLM's name of it."""

# What of a checkpoint's folder is about its tokenizer.
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "*.model")


class VllmKind:
    """Answers for merged, whole and published PaliGemma models, greedily or by drawing."""

    def __init__(self) -> None:
        self._last: tuple[str, VllmEngine] | None = None

    def check(self, run: Run, recipe: Recipe, base: bool) -> None:
        """Raise where vLLM is not installed, or cannot answer as transformers would.

        Raises:
            MissingExtraError: no vLLM.
            UsageError: beams, another model than PaliGemma, an adapter that is not merged, settings of the model's own
                that vLLM has no word for.
        """
        if importlib.util.find_spec("vllm") is None:
            raise MissingExtraError("--engine vllm", "vllm")
        if recipe.model.backbone != "paligemma":
            raise UsageError(f"--engine vllm: it does not know {recipe.model.backbone}; use --engine transformers")
        if recipe.eval.num_beams > 1:
            raise UsageError("--engine vllm: no beam search; set eval.num_beams=1, or use --engine transformers")
        left = sorted(decoding(recipe, run=run).get("model_settings", {}).keys() - PASSED.keys())
        if left:
            raise UsageError(
                f"--engine vllm: the model's generation_config.json sets {', '.join(left)}, which it cannot follow; "
                "use --engine transformers"
            )
        model_folder(run, recipe, base)

    def load(self, run: Run, recipe: Recipe, base: bool, seed: int | None) -> FullEngine:
        """Return an engine with the model loaded: the last one where it is the same, since each takes most of a GPU."""
        folder, told = model_folder(run, recipe, base), decoding(recipe, seed, run)
        # Whole parts of the recipe: prompts, budgets, dtype, and how many tokens are generated.
        key = stable_hash([str(folder.resolve()), recipe.model_dump(mode="json"), told, seed])
        if self._last is None or self._last[0] != key:
            # Let go of the GPU's memory before the next model asks for it.
            self._last = None
            gc.collect()
            self._last = key, VllmEngine(folder, recipe, seed, told)
        return self._last[1]


KIND = VllmKind()


def model_folder(run: Run, recipe: Recipe, base: bool) -> Path:
    """Return the folder of a whole model that answers as the run does.

    Raises:
        UsageError: there is none yet; says how to export it.
    """
    merged = run.path / MERGED
    if not base:
        if _is_merged_of(merged, run):
            return merged
        if (run.model / "config.json").is_file():
            return run.model
        if run.facts().get("kind") != "baseline":
            raise UsageError(
                f"--engine vllm: {run.path} holds an adapter, and vLLM needs a whole model; run `medvlm export "
                f"{run.path} --merge --out {merged}` first"
            )
    return _base_folder(recipe)


def _is_merged_of(folder: Path, run: Run) -> bool:
    try:
        told = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return bool(told.get("merged_into")) and told.get("recipe_hash") == run.facts().get("recipe_hash")


def _base_folder(recipe: Recipe) -> Path:
    """Return where the untuned base lies, if it answers there as it does here."""
    path = locate(recipe.model.parts["model"], recipe.model.revision).path
    if path is None or recipe.quantization.mode != "none":
        what = "an untrained architecture" if path is None else f"in {recipe.quantization.mode}"
        raise UsageError(f"--engine vllm: the base is {what} here; use --engine transformers, or leave the base out")
    side = json.loads((path / "config.json").read_text(encoding="utf-8"))["vision_config"].get("image_size", 224)
    if recipe.model.image_size not in (None, side):
        raise UsageError(
            f"--engine vllm: the base takes {side} pixels and the recipe {recipe.model.image_size}; use --engine "
            "transformers, or leave the base out"
        )
    return path


class VllmEngine:
    """Answers by vLLM; each drawn answer depends on seed, picture and prefix, as with transformers, though other draws.

    Args:
        folder: of a whole PaliGemma.
        recipe: for prompts, budgets and decoding.
        seed: of what is drawn; None takes the recipe's.
        told: what `decoding` says, for the model's own settings.

    Raises:
        MissingExtraError: no vLLM.
    """

    def __init__(self, folder: Path, recipe: Recipe, seed: int | None, told: dict[str, Any]) -> None:
        try:
            import vllm
        except ImportError as error:
            raise MissingExtraError("--engine vllm", "vllm") from error
        from transformers import AutoConfig, AutoProcessor

        from medvlm.models.backbones import BACKBONES

        self.vllm: Any = vllm
        self.recipe, self.seed = recipe, recipe.seed if seed is None else seed
        kind = BACKBONES.get(recipe.model.backbone)
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        self.image_tokens = kind.image_tokens_of(config)
        self._words = processor.tokenizer
        self.backbone = kind(
            processor,
            image_tokens=self.image_tokens,
            max_prefix_tokens=recipe.text.max_prefix_tokens,
            max_suffix_tokens=recipe.text.max_suffix_tokens,
        )
        self._settings = {PASSED[name]: value for name, value in told.get("model_settings", {}).items()}
        files = tempfile.mkdtemp()
        # Until the end, for vLLM may read them late.
        weakref.finalize(self, shutil.rmtree, files, ignore_errors=True)
        # Start token and line end stand beside the prefix's budget.
        length = self.image_tokens + recipe.text.max_prefix_tokens + 2 + recipe.eval.max_new_tokens
        self.model: Any = vllm.LLM(
            model=str(folder),
            tokenizer=str(_without_start(folder, Path(files))),
            dtype=recipe.model.dtype,
            seed=self.seed,
            max_model_len=length,
            limit_mm_per_prompt={"image": 1},
        )

    def lengths(self, prefixes: Sequence[str]) -> list[int]:
        """Return how many tokens each prefix takes, after truncation."""
        return [self.backbone.text_tokens(prefix, "")[0] for prefix in prefixes]

    def count(self, text: str) -> int:
        """Return how many tokens a text takes by itself."""
        return len(self._words(text, add_special_tokens=False)["input_ids"])

    def room(self) -> None:
        """PaliGemma takes one picture, which its budget of text does not count."""

    def answers(
        self, images: Sequence[Any], prefixes: Sequence[str], shots: Sequence[Sequence[Example]] = ()
    ) -> list[str]:
        """Return one answer for each picture and prefix.

        Raises:
            MedvlmError: vLLM read another prompt than the recipe's template composes.
            UsageError: several pictures, or examples with pictures.
        """
        if any(map(len, shots)) or any(isinstance(image, tuple) for image in images):
            raise UsageError("--engine vllm: one picture a question, and no examples with pictures; use transformers")
        whole = [self._prompt(prefix) for prefix in prefixes]
        skipped = self.image_tokens + 1
        prompts = [
            {"prompt_token_ids": tokens[skipped:], "multi_modal_data": {"image": image}}
            for tokens, image in zip(whole, images, strict=True)
        ]
        drawn = [self._sampling(image, prefix) for image, prefix in zip(images, prefixes, strict=True)]
        found = self.model.generate(prompts, drawn, use_tqdm=False)
        for tokens, one in zip(whole, found, strict=True):
            if list(one.prompt_token_ids) != tokens:
                raise MedvlmError(
                    "--engine vllm: this version composes PaliGemma's prompt otherwise than it was trained with, so "
                    "its answers would be others; use --engine transformers"
                )
        return [one.outputs[0].text.strip() for one in found]

    def _prompt(self, prefix: str) -> list[int]:
        """Return image tokens, `<bos>`, prefix and line end, as in training and with transformers."""
        import torch

        from medvlm.models.backbones.base import Example

        # Of one row, so that there is no padding; the tokens do not depend on the pixels.
        row = self.backbone.collate_prompts([Example(None, prefix, pixels=torch.zeros(1))])["input_ids"][0]
        tokens: list[int] = row.tolist()
        return tokens

    def _sampling(self, image: Any, prefix: str) -> Any:
        part = self.recipe.eval
        key = f"{self.seed}:{sha256_bytes(image.tobytes())}:{prefix}"
        return self.vllm.SamplingParams(
            temperature=part.temperature,
            top_p=part.top_p,
            max_tokens=part.max_new_tokens,
            seed=int(sha256_bytes(key.encode())[:8], 16),
            skip_special_tokens=True,
            **self._settings,
        )


def _without_start(folder: Path, to: Path) -> Path:
    """Copy the tokenizer's files and turn off that it adds `<bos>` by itself."""
    for pattern in _TOKENIZER:
        for path in folder.glob(pattern):
            shutil.copy(path, to / path.name)
    settings = to / "tokenizer_config.json"
    told = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    write_json(settings, told | {"add_bos_token": False})
    return to
