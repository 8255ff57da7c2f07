"""Disk full, not a number, out of memory: the reason, the last good checkpoint, what to set; weights stay good."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import at_call, in_child, lines, only_run, recipe_file
from safetensors.torch import load_file

from medvlm.cli import run as medvlm
from medvlm.recipe.load import check
from medvlm.train import checkpoints
from medvlm.train import loss as next_token
from medvlm.train.failures import smaller
from medvlm.train.trainer import SuffixTrainer


def settings(tiny: Path, data: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "t",
        "model": {"id": str(tiny), "dtype": "float32"},
        "adapters": {"language_model": {"kind": "lora", "r": 4}},
        "data": [{"path": str(data)}],
        "train": {"learning_rate": 1e-3, "batch_size": 4, "max_steps": 6, "save_every": 2, "trackers": [], **train},
    }


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_a_number_never_reaches_the_weights(
    what: str, tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    plain, calls, models = next_token.forward_loss, [0], []

    def spoiled(model: torch.nn.Module, inputs: Any, **kwargs: Any) -> Any:
        loss, sums, counts = plain(model, inputs, **kwargs)
        if model.training:
            calls[0] += 1
            models[:] = [model]
        if calls[0] == 4:
            loss = loss * torch.nan if what == "loss" else loss + 0 * (loss - loss.detach()).sqrt()
        return loss, sums, counts

    monkeypatch.setattr(next_token, "forward_loss", spoiled)
    assert medvlm(["finetune", recipe_file(tmp_path, settings(tiny_folder, data_folder)), "--quiet"]) == 3
    run = only_run(tmp_path)
    error = capsys.readouterr().err
    assert f"step 4: the {what} is not a number; lower train.learning_rate" in error
    assert f"the last good checkpoint is {run.path.relative_to(tmp_path)}/checkpoints/checkpoint-2" in error
    assert run.facts()["status"] == "failed"
    assert max(line["step"] for line in lines(run.path)) == 3
    assert all(bool(p.isfinite().all()) for p in models[0].parameters() if p.is_floating_point())


def _out_of_memory(number: int) -> Exception:
    return [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ][number]


@pytest.mark.parametrize("number", range(3))
def test_out_of_memory_says_what_to_set(
    number: int, tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)

    def fail(*_: Any, **__: Any) -> None:
        raise _out_of_memory(number)

    monkeypatch.setattr(SuffixTrainer, "training_step", SuffixTrainer.training_step)
    at_call(SuffixTrainer, "training_step", 3, fail)()
    path = recipe_file(tmp_path, settings(tiny_folder, data_folder, gradient_accumulation=1))
    assert medvlm(["finetune", path, "--quiet"]) == 7
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert "out of memory; set train.batch_size=2 with train.gradient_accumulation=2 (the same update)" in error
    assert "train.activation_checkpointing=true, train.loss_chunk=64" in error
    assert error.endswith("checkpoint-2 (--resume goes on from it)")


def test_what_is_set_already_is_not_proposed(tiny_folder: Path) -> None:
    raw = settings(tiny_folder, Path("d"), batch_size=1, activation_checkpointing=True, loss_chunk=32)
    raw["train"]["optimizer"] = "adamw_8bit"
    raw["model"]["image_size"] = 224
    assert smaller(check(raw, "t")) == "set quantization.mode=nf4, or a smaller model.image_size than 224"
    raw["train"]["batch_size"] = 3
    assert "train.batch_size=1 with train.gradient_accumulation=3" in smaller(check(raw, "t"))


def test_a_contrast_is_not_cut_into_smaller_ones_as_the_same() -> None:
    model = {"id": "medvlm/tiny-random-clip", "backbone": "contrastive"}
    told = smaller(check({"name": "t", "model": model, "data": [{"path": "d"}], "train": {"batch_size": 8}}, "t"))
    assert "same update" not in told
    assert "nf4" not in told
    assert "train.batch_size=4 (each pair told from fewer others: another, easier task)" in told


def _full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _small_files() -> None:
    """Let no file of this process grow beyond 20 kB."""
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.mark.parametrize(
    "prepare",
    [
        # The second checkpoint's schedule cannot be written any more; or nothing can, not even the first's weights.
        pytest.param(at_call(torch, "save", 5, _full_disk), id="full"),
        pytest.param(at_call(checkpoints, "seal", 2, _full_disk), id="full at the seal"),
    ],
)
def test_a_full_disk_leaves_no_half_checkpoint(
    prepare: Callable[[], None],
    tiny_folder: Path,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = recipe_file(tmp_path, settings(tiny_folder, data_folder))
    assert in_child(["finetune", path, "--quiet"], prepare) == 7
    run = only_run(tmp_path)
    assert [folder.name for folder in run.checkpoints.iterdir()] == ["checkpoint-2"]
    facts = run.facts()
    assert facts["status"] == "failed"
    assert "no space left on the disk" in facts["error"]
    assert facts["error"].endswith("checkpoint-2 (--resume goes on from it)")
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
    assert max(line["step"] for line in lines(run.path)) == 6
    assert load_file(run.adapter / "adapter_model.safetensors")


def test_a_limit_on_file_size_leaves_no_half_checkpoint(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = recipe_file(tmp_path, settings(tiny_folder, data_folder))
    assert in_child(["finetune", path, "--quiet"], _small_files) == 7
    run = only_run(tmp_path)
    assert run.facts()["status"] == "failed"
    assert "no space left on the disk" in run.facts()["error"]
    assert not list(run.checkpoints.iterdir())
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
