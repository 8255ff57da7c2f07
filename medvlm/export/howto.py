"""The code in a model card that loads the model; tests run it as it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medvlm.models.locate import TINY_BASE
from medvlm.recipe.models import Recipe

_PLAIN = ("paligemma", "git_llm")
"""Backbones whose processor makes of a picture and a prompt what they were trained on. Those of the others put a start
or an end elsewhere, or want a chat's template; medvlm's own code asks these as training did."""

_ASK = """
image = Image.open("image.png").convert("RGB")
inputs = processor(text={prompt}, images=image, return_tensors="pt")
tokens = model.generate(**inputs, max_new_tokens={most}, do_sample=False)
print(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


def code(
    recipe: Recipe, facts: dict[str, Any], place: str, copies: Mapping[str, str], *, whole: bool, adapter: bool
) -> str:
    """Return Python that loads an export and asks it about image.png.

    Args:
        recipe: of the run.
        facts: run.json.
        place: folder or repository of the export.
        copies: role -> name of the parts of the base that lay in a folder; where, only the reader knows.
        whole: it holds a whole model rather than what was trained.
        adapter: it holds PEFT's adapter.
    """
    if recipe.model.backbone in _PLAIN and whole:
        return _whole(recipe, place) + _ask(recipe)
    if recipe.model.backbone in _PLAIN and adapter and needs_only_peft(recipe, facts):
        return _peft(recipe, facts, place, copies) + _ask(recipe)
    return _ours(recipe, place, {} if whole else copies)


def needs_only_peft(recipe: Recipe, facts: dict[str, Any]) -> bool:
    """Return True where base plus adapter is all: nothing was resized, switched off or put together."""
    resized = facts["model"].get("resampled_position_embeddings", False)
    return recipe.model.id is not None and not resized and recipe.model.logit_softcapping


def prompt(recipe: Recipe) -> str:
    """Return an example of a prefix."""
    from medvlm.train.collate import prefix

    tasks = {task for part in recipe.data for task in part.tasks or ["caption"]}
    task = tasks.pop() if len(tasks) == 1 else "caption"
    return prefix({"task": task, "prompt": "is there a pleural effusion?" if task == "vqa" else ""}, recipe.prompts)


def _text(value: str) -> str:
    """Return a text as Python writes it, in double quotes."""
    return json.dumps(value, ensure_ascii=False)


def _ask(recipe: Recipe) -> str:
    # PaliGemma's processor wants the picture's place in the text; GIT-LLM's puts it there.
    place = "<image>" if recipe.model.backbone == "paligemma" else ""
    return _ASK.format(prompt=_text(place + prompt(recipe)), most=recipe.eval.max_new_tokens)


def _imports(recipe: Recipe, *more: str) -> str:
    lines = ["import torch", *more, "from PIL import Image", _TRANSFORMERS]
    if recipe.model.backbone == "git_llm":
        lines += [
            "",
            "import medvlm.models.git_llm  # pip install medvlm; makes the architecture known to transformers",
        ]
    return "\n".join(lines) + "\n\n"


_TRANSFORMERS = "from transformers import AutoModelForImageTextToText, AutoProcessor"


def _whole(recipe: Recipe, place: str) -> str:
    return (
        _imports(recipe)
        + f"place = {_text(place)}\n"
        + f"model = AutoModelForImageTextToText.from_pretrained(place, dtype=torch.{recipe.model.dtype}).eval()\n"
        + 'processor = AutoProcessor.from_pretrained(place, backend="pil")\n'
    )


def _peft(recipe: Recipe, facts: dict[str, Any], place: str, copies: Mapping[str, str]) -> str:
    more = ["from peft import PeftModel"]
    options = [f"dtype=torch.{recipe.model.dtype}"]
    attention = facts["model"].get("attention")
    options += [f"attn_implementation={_text(attention)}"] if attention else []
    options += [f"revision={_text(recipe.model.revision)}"] if recipe.model.revision else []
    base = _text(str(recipe.model.id)) + ("  # your local copy of it" if copies else "")
    setting = ""
    if recipe.model.id == TINY_BASE:
        more += ["from medvlm.models.locate import locate  # this base is part of medvlm"]
        base = f"locate({base}).path"
    if recipe.quantization.mode == "nf4":
        more += ["from transformers import BitsAndBytesConfig"]
        options += ["quantization_config=four_bits"]
        setting = _four_bits(recipe)
    return (
        _imports(recipe, *more)
        + setting
        + f"place = {_text(place)}\nbase = {base}\n"
        + f"model = AutoModelForImageTextToText.from_pretrained(base, {', '.join(options)})\n"
        + "model = PeftModel.from_pretrained(model, place).eval()\n"
        + 'processor = AutoProcessor.from_pretrained(place, backend="pil")\n'
    )


def _four_bits(recipe: Recipe) -> str:
    from medvlm.models.backbones import BACKBONES
    from medvlm.models.quantize import configuration

    made = configuration(recipe.quantization, BACKBONES.get(recipe.model.backbone))
    part = recipe.quantization
    return (
        "four_bits = BitsAndBytesConfig(\n"
        '    load_in_4bit=True,\n    bnb_4bit_quant_type="nf4",\n'
        f"    bnb_4bit_use_double_quant={part.double},\n    bnb_4bit_compute_dtype=torch.{part.compute_dtype},\n"
        f"    bnb_4bit_quant_storage=torch.{part.storage},\n"
        f"    llm_int8_skip_modules=[{', '.join(map(_text, made.llm_int8_skip_modules))}],\n)\n"
    )


def _ours(recipe: Recipe, place: str, copies: Mapping[str, str]) -> str:
    named = ", ".join(f"{_text(role)}: {_text(name)}" for role, name in copies.items())
    bases = f"bases = {{{named}}}  # your local copies of them\n" if copies else ""
    loaded = "load_export(folder, bases)" if copies else "load_export(folder)"
    return (
        "from pathlib import Path\n\nfrom PIL import Image\n\n"
        "from medvlm.evaluate.predict import Predictor\nfrom medvlm.export.load import load_export, recipe_of\n\n"
        f"folder = Path({_text(place)})  # of a repository: huggingface_hub.snapshot_download(its name)\n"
        f"{bases}loaded = {loaded}\n{_CHOICE if recipe.model.backbone == 'contrastive' else ''}"
        "predictor = Predictor(loaded, recipe_of(folder))\n"
        f'print(predictor.answers([Image.open("image.png").convert("RGB")], [{_text(prompt(recipe))}])[0])\n'
    )


# The texts of the training data are no part of an export.
_CHOICE = """\
texts = ["no finding", "a pleural effusion"]  # yours, to choose from
loaded.backbone.restore(loaded.model, {"candidates": {"caption": {"": texts}}})
"""
