"""Killed with SIGKILL at any step, writing a checkpoint or validating, a run ends as if it had not been."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import at_call, die, in_child, lines, only_run, recipe_file
from safetensors.torch import load_file

from medvlm.cli import run as medvlm
from medvlm.runs import Run
from medvlm.train import checkpoints, setup
from medvlm.train.trainer import SuffixTrainer

STEPS = 12


@pytest.fixture
def two_sets(data_folder: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """Two data sets, the second twice as often."""
    other = tmp_path / "other"
    other.symlink_to(data_folder, target_is_directory=True)
    return [{"path": str(data_folder)}, {"path": str(other), "weight": 2.0}]


def settings(tiny: Path, data: list[dict[str, Any]], **train: Any) -> dict[str, Any]:
    return {
        "name": "t",
        "model": {"id": str(tiny), "dtype": "float32"},
        "adapters": {"language_model": {"kind": "lora", "r": 4, "dropout": 0.3}, "projector": "full"},
        "data": data,
        "train": {"learning_rate": 1e-3, "batch_size": 2, "max_steps": STEPS, "eval_every": 3, "trackers": [], **train},
        "eval": {"max_new_tokens": 4, "batch_size": 4},
    }


CASES: dict[str, dict[str, Any]] = {
    "packed, every update, generated figure, logs of two steps": {
        "batching": "packed",
        "mix": "every_update",
        "gradient_accumulation": 2,
        "best": "rouge_l",
        "best_samples": 3,
        "save_every": 3,
        "log_every": 2,
    },
    "grouped, accumulated, best loss": {
        "batching": "grouped",
        "gradient_accumulation": 3,
        "best": "loss",
        "save_every": 2,
        "keep_checkpoints": 1,
        "loss": "example",
        "label_smoothing": 0.1,
    },
}
SLOW_CASES: dict[str, dict[str, Any]] = {
    "shuffled by the Trainer": {"save_every": 1, "keep_checkpoints": 1},
    "8 bits": {"save_every": 3, "optimizer": "adamw_8bit", "best": "accuracy", "best_samples": 2},
    "workers, grouped in every update": {
        "workers": 1,
        "batching": "grouped",
        "mix": "every_update",
        "gradient_accumulation": 3,
        "save_every": 4,
        "log_every": 3,
    },
    "updates that do not divide the epoch": {"gradient_accumulation": 5, "save_every": 2, "log_every": 5},
    "updates that do not divide the epoch, grouped": {
        "gradient_accumulation": 5,
        "batching": "grouped",
        "mix": "every_update",
        "save_every": 1,
        "log_every": 7,
        "best": "loss",
        "eval_every": 2,
    },
    "checkpointed activations": {"activation_checkpointing": True, "save_every": 5, "log_every": 4},
}


def _trained(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def _same_after_kills(raw: dict[str, Any], tmp_path: Path, chance: random.Random, kills: int) -> None:
    expected, got = tmp_path / "expected", tmp_path / "got"
    for folder in (expected, got):
        folder.mkdir()
    os.chdir(expected)
    path = recipe_file(tmp_path, raw)
    assert medvlm(["finetune", path, "--quiet"]) == 0
    os.chdir(got)
    # 24 places make 12 batches an epoch, whose last update takes what is left.
    batches = 12 * STEPS // -(-12 // raw["train"].get("gradient_accumulation", 1))
    for number in range(kills):
        resume = ["--resume"] if number else []
        prepare = at_call(SuffixTrainer, "training_step", chance.randint(1, batches // kills), lambda *_, **__: die())
        assert in_child(["finetune", path, "--quiet", *resume], prepare) == -signal.SIGKILL
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
    whole, killed = only_run(expected), only_run(got)
    assert lines(killed.path) == lines(whole.path)
    assert lines(killed.path)[-1]["step"] == STEPS
    assert killed.facts()["result"] == whole.facts()["result"]
    kept = [[path.name for path in checkpoints.whole(run.checkpoints)] for run in (killed, whole)]
    assert kept[0] == kept[1]
    first, second = _trained(killed.path), _trained(whole.path)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if number else ()) for number, case in enumerate(CASES)]
)
def test_killed_at_any_step(
    case: str,
    tiny_folder: Path,
    two_sets: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    _same_after_kills(settings(tiny_folder, two_sets, **CASES[case]), tmp_path, random.Random(case), 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", [*CASES, *SLOW_CASES])
def test_killed_at_more_steps(
    case: str,
    seed: int,
    tiny_folder: Path,
    two_sets: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = settings(tiny_folder, two_sets, **(CASES | SLOW_CASES)[case])
    _same_after_kills(raw, tmp_path, random.Random(f"{case} {seed}"), 3)


def _members(folder: Path) -> dict[str, Run]:
    found = [Run(path) for path in sorted((folder / "runs").iterdir()) if not path.is_symlink()]
    members = {str(run.facts()["group"]["member"]): run for run in found}
    assert len(members) == len(found)
    return members


@pytest.mark.slow
def test_a_second_stage_that_was_killed_ends_as_if_it_had_not_been(
    tiny_folder: Path, two_sets: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its first checkpoint, after one, and stopped by hand; the first stage is not trained again."""
    monkeypatch.chdir(tmp_path)
    raw = settings(tiny_folder, two_sets[:1], max_steps=6, save_every=2, eval_every=2, best="loss")
    second = {"name": "two", "data": two_sets, "train": {"learning_rate": 5e-4, "gradient_accumulation": 5}}
    path = recipe_file(tmp_path, {**raw, "stages": [{"name": "one"}, second]})
    expected, got = tmp_path / "expected", tmp_path / "got"
    for folder in (expected, got):
        folder.mkdir()
    os.chdir(expected)
    assert medvlm(["finetune", path, "--quiet"]) == 0
    os.chdir(got)
    # Six batches are the first stage's; of the second's, updates take 5, 5 and 2.
    for resume, call in (([], 6 + 3), (["--resume"], 5 + 5 + 1), (["--resume"], 2 + 5 + 4)):
        prepare = at_call(SuffixTrainer, "training_step", call, lambda *_, **__: die())
        assert in_child(["finetune", path, "--quiet", *resume], prepare) == -signal.SIGKILL
        first = _members(got)["one"].facts()
        assert (first["status"], "resumed" in first) == ("finished", False)
    assert checkpoints.newest(_members(got)["two"].checkpoints) is not None
    prepare = at_call(SuffixTrainer, "training_step", 2, lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    assert in_child(["finetune", path, "--quiet", "--resume"], prepare) == 130
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
    whole, killed = _members(expected), _members(got)
    assert len(killed["two"].facts()["resumed"]) == 4
    assert killed["two"].facts()["start"]["weights"] == whole["two"].facts()["start"]["weights"]
    for name, run in killed.items():
        assert lines(run.path) == lines(whole[name].path)
        assert run.facts()["result"] == whole[name].facts()["result"]
        trained = [_trained(one.path) for one in (run, whole[name])]
        assert trained[0].keys() == trained[1].keys()
        assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])


def _half(state: Any, path: Any, *_: Any, **__: Any) -> None:
    """Write a part of a file and die, as a kill in the middle of a write leaves it."""
    Path(path).write_bytes(b"PK half")
    die()


MOMENTS: dict[str, Any] = {
    # Optimizer, schedule, random states: the second checkpoint's first file.
    "a checkpoint's file": at_call(torch, "save", 4, _half),
    "a checkpoint's seal": at_call(checkpoints, "seal", 2, lambda *_, **__: die()),
    "removing an old one": at_call(checkpoints, "keep", 2, lambda *_, **__: die()),
    "validation": at_call(SuffixTrainer, "get_eval_dataloader", 2, lambda *_, **__: die()),
    "generating": at_call(setup, "generated", 1, lambda *_, **__: die()),
}


@pytest.mark.slow
def test_killed_while_writing_or_validating(
    tiny_folder: Path, two_sets: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run is killed at each of these moments in turn, and goes on each time."""
    monkeypatch.chdir(tmp_path)
    raw = settings(tiny_folder, two_sets, best="bleu4", best_samples=2, save_every=2, eval_every=2, keep_checkpoints=1)
    path = recipe_file(tmp_path, raw)
    assert medvlm(["finetune", path, "--quiet"]) == 0
    whole = only_run(tmp_path)
    os.rename(tmp_path / "runs", tmp_path / "first")
    resume: list[str] = []
    for moment, prepare in MOMENTS.items():
        assert in_child(["finetune", path, "--quiet", *resume], prepare) == -signal.SIGKILL, moment
        assert checkpoints.newest(only_run(tmp_path).checkpoints) is not None, moment
        resume = ["--resume"]
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
    killed = only_run(tmp_path)
    assert lines(killed.path) == lines(tmp_path / "first" / whole.path.name)
    assert len(killed.facts()["resumed"]) == len(MOMENTS)
