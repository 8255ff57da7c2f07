"""Settings of the loop: an earlier run to start from, rates by component, optimizers, activation checkpointing."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import lines, only_run, recipe_file
from safetensors.torch import load_file

from medvlm.cli import run as medvlm
from medvlm.models import trained as trained_parts
from medvlm.runs import Run
from medvlm.train.callbacks import mean_loss
from medvlm.train.trainer import SuffixTrainer


def settings(tiny: Path, data: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "t",
        "model": {"id": str(tiny), "dtype": "float32"},
        "adapters": {"language_model": {"kind": "lora", "r": 4}, "projector": "full"},
        "data": [{"path": str(data)}],
        "train": {"learning_rate": 1e-3, "batch_size": 4, "max_steps": 3, "eval_every": 3, "trackers": [], **train},
    }


def trained(tmp_path: Path, raw: dict[str, Any], name: str) -> Path:
    assert medvlm(["finetune", recipe_file(tmp_path, raw), "--quiet"]) == 0
    (tmp_path / "runs").rename(tmp_path / name)
    (path,) = (path for path in (tmp_path / name).iterdir() if not path.is_symlink())
    return path


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_starts_from_what_another_trained(
    kind: str, tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first loss of the second is that of the first's final weights; resumed, it goes on by itself."""
    monkeypatch.chdir(tmp_path)
    raw = settings(tiny_folder, data_folder)
    raw["adapters"] = {"language_model": kind if kind == "full" else {"kind": "lora", "r": 4}, "projector": "full"}
    first = trained(tmp_path, raw, "first")
    raw["model"]["start"] = str(first)
    raw["train"] |= {"learning_rate": 1e-30, "max_steps": 2, "eval_every": 1, "save_every": 1}
    assert medvlm(["finetune", recipe_file(tmp_path, raw), "--quiet"]) == 0
    run = only_run(tmp_path)
    begun = [line["eval_loss"] for line in lines(run.path) if "eval_loss" in line]
    ended = [line["eval_loss"] for line in lines(first) if "eval_loss" in line]
    assert begun == pytest.approx([ended[-1]] * 2, rel=1e-5)
    start = run.facts()["start"]
    assert start["run"] == first.name
    assert len(start["weights"]) == 64
    shutil.rmtree(run.checkpoints / "checkpoint-2")
    expected = lines(run.path)
    run.record(run.facts() | {"status": "running"})
    # The checkpoint holds all that is trained.
    monkeypatch.setattr(trained_parts, "begin_from", None)
    assert medvlm(["finetune", recipe_file(tmp_path, raw), "--resume", "--quiet"]) == 0
    assert lines(run.path) == expected
    assert run.facts()["start"] == start


def test_a_component_without_a_rate_stays_where_it_was(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rate of next to nothing for the projector alone; the language model learns."""
    monkeypatch.chdir(tmp_path)
    found = {}
    for rate in (1e-30, 1e-2):
        raw = settings(tiny_folder, data_folder)
        raw["adapters"]["projector"] = {"kind": "full", "learning_rate": rate}
        path = trained(tmp_path, raw, f"rate{rate}")
        found[rate] = load_file(path / "adapter" / "adapter_model.safetensors")
        rates = next(line["learning_rates"] for line in lines(path) if line["step"] == 2)
        assert rates["projector"] == pytest.approx(rates["language_model"] * rate / 1e-3)
    base = load_file(tiny_folder / "model.safetensors")
    name = next(name for name in base if "projector" in name and name.endswith("weight"))
    same = {
        rate: next(v for n, v in tensors.items() if "projector" in n and n.endswith("weight"))
        for rate, tensors in found.items()
    }
    assert torch.equal(same[1e-30], base[name])
    assert not torch.equal(same[1e-2], base[name])
    moved = [v for n, v in found[1e-30].items() if "lora_B" in n]
    assert all(bool(v.any()) for v in moved)


@pytest.mark.parametrize("log_every", [1, 3])
def test_the_rates_in_the_log_are_those_of_the_update(
    log_every: int, tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the formula of a warm-up and a half cosine, at the number of updates made before."""
    monkeypatch.chdir(tmp_path)
    raw = settings(tiny_folder, data_folder, max_steps=10, warmup=0.3, schedule="cosine", log_every=log_every)
    raw["adapters"] |= {"vision_tower": {"kind": "lora", "r": 2, "learning_rate": 5e-2}}
    raw["adapters"]["projector"] = {"kind": "full", "learning_rate": 2e-4}
    logged = [line for line in lines(trained(tmp_path, raw, "rates")) if "loss" in line]
    assert [line["step"] for line in logged] == (list(range(1, 11)) if log_every == 1 else [3, 6, 9, 10])
    for line in logged:
        before = line["step"] - 1
        share = before / 3 if before < 3 else 0.5 * (1 + math.cos(math.pi * (before - 3) / 7))
        assert line["learning_rate"] == pytest.approx(1e-3 * share, rel=1e-9, abs=1e-15)
        assert line["learning_rates"] == pytest.approx(
            {"vision_tower": 5e-2 * share, "projector": 2e-4 * share, "language_model": 1e-3 * share}
        )


def test_steps_fewer_than_a_log_are_logged_at_the_end(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = {}
    for every in (1, 4, 100):
        raw = settings(tiny_folder, data_folder, max_steps=6, log_every=every)
        path = trained(tmp_path, raw, f"every{every}")
        found[every] = {line["step"]: line["loss"] for line in lines(path) if "loss" in line}
        told = Run(path).facts()["result"]["train_loss"]
        assert told == pytest.approx(sum(found[1].values()) / 6, rel=1e-5)
    assert {every: list(losses) for every, losses in found.items()} == {1: [1, 2, 3, 4, 5, 6], 4: [4, 6], 100: [6]}
    assert found[4][6] == pytest.approx((found[1][5] + found[1][6]) / 2, rel=1e-5)


def test_the_mean_of_no_losses_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert mean_loss(path) is None
    path.write_text('{"step": 1, "eval_loss": 2.0}\n', encoding="utf-8")
    assert mean_loss(path) is None


def _gradients(tmp_path: Path, raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    plain = SuffixTrainer._get_grad_norm

    def note(self: SuffixTrainer, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        found.extend(p.grad.clone() for p in model.parameters() if p.grad is not None)
        return plain(self, model, grad_norm)

    with monkeypatch.context() as patch:
        patch.setattr(SuffixTrainer, "_get_grad_norm", note)
        trained(tmp_path, raw, name)
    return found


@pytest.mark.parametrize(
    "components",
    [
        {"language_model": {"kind": "lora", "r": 4}},
        {"language_model": "full", "projector": "full", "vision_tower": "full"},
        {"vision_tower": {"kind": "lora", "r": 4}, "language_model": "frozen"},
    ],
)
def test_activation_checkpointing_changes_no_gradient(
    components: dict[str, Any], tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = settings(tiny_folder, data_folder, max_steps=1, eval_every=1) | {"adapters": components}
    plain = _gradients(tmp_path, raw, monkeypatch, "plain")
    raw["train"]["activation_checkpointing"] = True
    saving = _gradients(tmp_path, raw, monkeypatch, "saving")
    assert len(plain) == len(saving) > 0
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(plain, saving, strict=True))


@pytest.mark.parametrize("name", ["adamw_fused", "adamw_8bit", "paged_adamw_8bit"])
def test_every_optimizer_learns_like_adamw(
    name: str, tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = settings(tiny_folder, data_folder, max_steps=4, weight_decay=0.1, warmup=0.0)
    expected = [line["loss"] for line in lines(trained(tmp_path, raw, "adamw")) if "loss" in line]
    raw["train"]["optimizer"] = name
    got = [line["loss"] for line in lines(trained(tmp_path, raw, name)) if "loss" in line]
    # Small tensors, as most are here, keep 32-bit states in bitsandbytes; 8 bits round the others.
    assert got == pytest.approx(expected, rel=1e-5 if name == "adamw_fused" else 1e-2)
    assert got[-1] < got[0]
