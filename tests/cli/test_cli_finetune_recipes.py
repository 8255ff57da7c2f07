"""Every shipped recipe through the real command line: the plan without a network, and some steps with tiny models."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medvlm.cli import run as medvlm
from medvlm.models.backbones import BACKBONES
from medvlm.models.published import PUBLISHED
from medvlm.recipe import load_members
from medvlm.recipe.models import Recipe
from medvlm.resources import shipped
from medvlm.runs import Run

RECIPES = sorted(path.name for path in shipped("recipes").glob("*.yaml"))
QUICK = {"paligemma448.yaml", "git_opt350m.yaml", "tiny.yaml", "tiny_base.yaml"}


def marked(names: list[str], quick: set[str]) -> list[Any]:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", marked(RECIPES, QUICK))
def test_the_plan_needs_no_network(
    name: str, at_shelf: Path, no_network: list[Any], capsys: pytest.CaptureFixture[str], tiny_folder: Path
) -> None:
    # What stage 0 of the packaged base writes lies in a folder of its own.
    local = [f"model.id={tiny_folder}"] if name == "tiny_base.yaml" else []
    assert medvlm(["finetune", f"recipes/{name}", *local, "--dry-run"]) == 0, capsys.readouterr().err
    assert no_network == []
    told = capsys.readouterr().out
    members = load_members(f"recipes/{name}")
    assert len(re.findall(r"^plan of ", told, re.MULTILINE)) == len(members.members)
    for _, recipe in members.members:
        assert f"plan of {recipe.name}" in told
    assert told.count("license: commercial use ") == len(members.members)
    assert not (at_shelf / "runs").exists()


def told_memory(name: str) -> list[str]:
    """Return how many GB a recipe's header says, where it is one number for the whole recipe."""
    text = (shipped("recipes") / name).read_text(encoding="utf-8")
    return re.findall(r"^# Memory: about ([0-9.]+) GB at the peak, by the estimate of --dry-run", text, re.MULTILINE)


NEWER = [name for name in RECIPES if told_memory(name) and not name.startswith(("git_", "paligemma", "tiny"))]
NEWER += ["git_base.yaml", "git_large.yaml"]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the embedded sample as data/pmc."""
    folder = tmp_path_factory.mktemp("embedded")
    with contextlib.chdir(folder):
        assert medvlm(["prepare", "pmc", "--quiet"]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NEWER)
def test_the_header_says_the_memory_of_the_plan(
    name: str, embedded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(embedded)
    (header,) = told_memory(name)
    assert medvlm(["finetune", f"recipes/{name}", "--dry-run"]) == 0, capsys.readouterr().err
    (planned,) = re.findall(r"^memory: ([0-9.]+) GB at the peak", capsys.readouterr().out, re.MULTILINE)
    assert float(header) == pytest.approx(float(planned), rel=0.03)


FAMILIES = {"facebook/opt": "opt", "meta-llama": "llama", "mosaicml": "mpt", "HuggingFaceTB": "llama", "Qwen": "qwen2"}


def family(language_model: str) -> str:
    return next((kind for start, kind in FAMILIES.items() if language_model.startswith(start)), "mistral")


@pytest.fixture(scope="session")
def saved_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Path]:
    """The tiny form of a recipe's architecture, saved as a checkpoint, so that it is loaded as the real one is."""
    made: dict[tuple[str, str | None], Path] = {}

    def folder(recipe: Recipe) -> Path:
        known = PUBLISHED.get(str(recipe.model.id), {})
        family = known.get("model_type") if recipe.model.backbone in ("generic", "blip2", "contrastive") else None
        key = (recipe.model.backbone, family)
        if key not in made:
            torch.manual_seed(0)
            made[key] = tmp_path_factory.mktemp("-".join(map(str, key)))
            for part in BACKBONES.get(recipe.model.backbone).tiny(None, family):
                part.save_pretrained(made[key])  # type: ignore[operator, union-attr]
        return made[key]

    return folder


def tiny_base(
    name: str, tiny: Path, paligemma2: Path, parts: dict[str, Path], saved: Callable[[Recipe], Path]
) -> list[str]:
    """Return overrides that put tiny models of the same classes in the place of a recipe's bases."""
    members = load_members(f"recipes/{name}")
    first = members.members[0][1]
    if first.model.backbone not in ("paligemma", "git_llm"):
        unset = [f"model.{role}=null" for role in ("vision_tower", "language_model") if role in first.model.parts]
        return [f"model.id={saved(first)}", *unset, "model.image_size=null"]
    if first.model.backbone == "paligemma":
        return [f"model.id={paligemma2 if 'paligemma2' in name else tiny}", "model.image_size=112"]
    words = [f"model.vision_tower={parts['tower']}"]
    for member, recipe in members.members:
        prefix = "" if members.kind == "single" else f"{members.kind}.{member}."
        words.append(f"{prefix}model.language_model={parts[family(str(recipe.model.language_model))]}")
    return words


SOME_STEPS = [
    "model.dtype=float32",
    "quantization.compute_dtype=float32",
    "text.max_prefix_tokens=64",
    "text.max_suffix_tokens=24",
    "train.max_steps=2",
    "train.batch_size=2",
    "train.gradient_accumulation=1",
    "train.eval_samples=2",
    "train.workers=0",
    "train.trackers=[]",
    "train.log_every=1",
]
TRAINED_QUICK = {"paligemma448_two_stage.yaml", "git_mpt7b.yaml"}


# Recipes of tiny models are trained as they are: tests/train, tests/test_demo.py, tests/report.
OWN_MODELS = ("tiny", "compare_backbones")


@pytest.mark.parametrize("name", marked([name for name in RECIPES if not name.startswith(OWN_MODELS)], TRAINED_QUICK))
def test_some_steps_with_tiny_models(
    name: str,
    at_shelf: Path,
    tiny_folder: Path,
    paligemma2_folder: Path,
    git_parts: dict[str, Path],
    saved_tiny: Callable[[Recipe], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = tiny_base(name, tiny_folder, paligemma2_folder, git_parts, saved_tiny)
    assert medvlm(["finetune", f"recipes/{name}", *base, *SOME_STEPS, "--quiet"]) == 0, capsys.readouterr().err
    members = load_members(f"recipes/{name}")
    runs = [Run(path) for path in sorted((at_shelf / "runs").iterdir()) if not path.is_symlink()]
    assert len(runs) == len(members.members)
    by_name = {run.facts()["name"]: run for run in runs}
    for member, recipe in members.members:
        facts = by_name[recipe.name].facts()
        assert (facts["status"], facts["result"]["steps"]) == ("finished", 2)
        trained = {part for part, count in facts["census"].items() if count["trainable"]}
        expected = {
            part
            for part in ("vision_tower", "projector", "language_model", "head")
            if recipe.adapters.part(part).kind != "frozen"
        }
        # A language model that is trained whole has its embeddings trained with it.
        assert trained - {"embeddings"} == expected, member
        assert any(count["quantized"] for count in facts["census"].values()) == (recipe.quantization.mode == "nf4")
        lines = (by_name[recipe.name].path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["step"] for line in lines if '"loss"' in line][-1] == 2
