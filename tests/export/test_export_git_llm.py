"""GIT-LLM: predicted with and exported like any other, loaded through medvlm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import answer_of, code_of, picture, run_here

from medvlm.cli import run as cli
from medvlm.io import write_json
from medvlm.models import adapters, trained
from medvlm.models.backbones import BACKBONES
from medvlm.models.load import load_base
from medvlm.models.locate import weights_fingerprint
from medvlm.recipe.load import check
from medvlm.recipe.resolve import write_resolved


@pytest.fixture
def git_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of a tiny tower and a tiny LLaMA, its adapter and projector moved from where they began."""
    from git_llm_tiny import save_text, save_tower

    monkeypatch.chdir(tmp_path)
    parts = {"vision_tower": Path("tower"), "language_model": Path("llm")}
    save_tower(parts["vision_tower"], "clip")
    save_text(parts["language_model"], "llama", "llama")
    values: dict[str, Any] = {
        "name": "git",
        "model": {"backbone": "git_llm", "dtype": "float32", **{role: str(path) for role, path in parts.items()}},
        "adapters": {"language_model": {"kind": "lora", "r": 4, "modules": ["q_proj", "v_proj"]}, "projector": "full"},
        "prompts": {"vqa": "##Question: {prompt} ##Answer:"},
        "data": [{"path": "data", "tasks": ["vqa"]}],
        "eval": {"max_new_tokens": 8},
    }
    recipe = check(values, "test")
    loaded = load_base(recipe)
    torch.manual_seed(1)
    model = adapters.apply(loaded.model, recipe.adapters, BACKBONES.get("git_llm"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    run = Path("runs/git")
    run.mkdir(parents=True)
    trained.save(model, loaded.processor, run)
    write_resolved(recipe, run / "recipe.yaml")
    part = {"path": "data", "fingerprint": "f" * 64, "rows": 2, "licenses": {"CC0-1.0": 2}, "title": "two"}
    weights = {role: weights_fingerprint(path) for role, path in parts.items()}
    named = {role: str(path) for role, path in parts.items()}
    facts = {"name": "git", "status": "finished", "recipe_hash": "h", "data": [part]}
    write_json(run / "run.json", {**facts, "model": {"parts": named, "weights": weights}, "license": {}})
    picture()
    return run


PREFIX = "##Question: is there a pleural effusion? ##Answer:"


def test_predict(git_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--prompt", "is there a pleural effusion?", "--format", "json", "-q"]
    assert cli(["predict", str(git_run), "image.png", *asked]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["prefix"], row["prediction"]) == (PREFIX, answer_of(git_run, PREFIX))
    assert row["prediction"]
    assert cli(["predict", str(git_run), "image.png", *asked, "--temperature", "1", "--seed", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["decoding"]["seed"] == 3
    assert cli(["predict", str(git_run), "image.png", *asked, "--beams", "3"]) == 0


@pytest.mark.parametrize(("flags", "said"), [([], "load_export"), (["--merge"], "import medvlm.models.git_llm")])
def test_the_code_of_the_card_answers_as_the_run_does(
    git_run: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    assert cli(["export", str(git_run), "--out", "exported", "-q", *flags]) == 0
    code = code_of(Path("exported/README.md"))
    assert said in code
    assert run_here(code, capsys) == answer_of(git_run, PREFIX)
