"""GIT-LLM in the loop: put together anew, checkpointed activations, cached pictures, killed and resumed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import at_call, die, in_child, lines, only_run, recipe_file

from medvlm.cli import run as medvlm
from medvlm.train.trainer import SuffixTrainer

sys.path.append(str(Path(__file__).resolve().parent.parent / "models"))
from git_llm_tiny import save_text, save_tower


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("git")
    save_tower(folder / "tower", "clip")
    save_text(folder / "llm", "llama", "llama")
    return {"vision_tower": str(folder / "tower"), "language_model": str(folder / "llm")}


def settings(parts: dict[str, str], data: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "g",
        "model": {"backbone": "git_llm", "dtype": "float32", **parts},
        "adapters": {"language_model": {"kind": "lora", "r": 4, "dropout": 0.2}, "projector": "full"},
        "data": [{"path": str(data)}],
        "train": {"learning_rate": 1e-3, "batch_size": 2, "max_steps": 8, "save_every": 3, "trackers": [], **train},
        "eval": {"max_new_tokens": 4},
    }


def test_killed_and_resumed_with_cached_features(
    parts: dict[str, str], data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDVLM_CACHE", str(tmp_path / "cache"))
    raw = settings(parts, data_folder, best="rouge_l", best_samples=2, batching="packed", eval_every=2)
    raw["data"][0]["cache_features"] = True
    path = recipe_file(tmp_path, raw)
    prepare = at_call(SuffixTrainer, "training_step", 6, lambda *_, **__: die())
    assert in_child(["finetune", path, "--quiet"], prepare) == -signal.SIGKILL
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
    killed = only_run(tmp_path)
    os.rename(tmp_path / "runs", tmp_path / "killed")
    assert medvlm(["finetune", path, "--quiet"]) == 0
    assert lines(tmp_path / "killed" / killed.path.name) == lines(only_run(tmp_path).path)


def test_activation_checkpointing_changes_no_gradient_behind_frozen_embeddings(
    parts: dict[str, str], data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found: list[list[torch.Tensor]] = []
    plain = SuffixTrainer._get_grad_norm

    def note(self: SuffixTrainer, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert all(p.grad is not None and bool(p.grad.any()) for n, p in trained.items() if "lora_A" not in n)
        found.append([p.grad.clone() for p in trained.values() if p.grad is not None])
        return plain(self, model, grad_norm)

    monkeypatch.setattr(SuffixTrainer, "_get_grad_norm", note)
    for on in (False, True):
        raw = settings(parts, data_folder, max_steps=1, activation_checkpointing=on)
        assert medvlm(["finetune", recipe_file(tmp_path, raw), "--quiet"]) == 0
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*found, strict=True))
