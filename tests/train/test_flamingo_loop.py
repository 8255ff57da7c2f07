"""Flamingo in the loop: trained and scored by the real command line, killed and resumed, and by two processes."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import at_call, die, in_child, lines, only_run, recipe_file
from PIL import Image

from medvlm.cli import run as medvlm
from medvlm.models import adapters
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import Example
from medvlm.models.backbones.flamingo import FlamingoBackbone
from medvlm.train.loss import forward_loss
from medvlm.train.trainer import SuffixTrainer


def settings(data: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "f",
        "model": {"backbone": "flamingo", "id": "medvlm/tiny-random", "dtype": "float32", "image_size": 56},
        "adapters": {"language_model": {"kind": "lora", "r": 4, "dropout": 0.2}, "projector": "full"},
        "data": [{"path": str(data)}],
        "train": {"learning_rate": 3e-3, "batch_size": 2, "max_steps": 8, "save_every": 3, "trackers": [], **train},
        "eval": {"max_new_tokens": 4},
    }


@pytest.mark.slow
def test_killed_and_resumed_with_cached_features(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDVLM_CACHE", str(tmp_path / "cache"))
    raw = settings(data_folder, best="rouge_l", best_samples=2, batching="packed", eval_every=2)
    raw["data"][0]["cache_features"] = True
    path = recipe_file(tmp_path, raw)
    prepare = at_call(SuffixTrainer, "training_step", 6, lambda *_, **__: die())
    assert in_child(["finetune", path, "--quiet"], prepare) == -signal.SIGKILL
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
    killed = only_run(tmp_path)
    os.rename(tmp_path / "runs", tmp_path / "killed")
    assert medvlm(["finetune", path, "--quiet"]) == 0
    assert lines(tmp_path / "killed" / killed.path.name) == lines(only_run(tmp_path).path)


def test_the_loss_falls_the_gates_open_and_answered_examples_go_before(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    monkeypatch.chdir(tmp_path)
    raw = settings(data_folder, max_steps=30)
    raw["adapters"] = {"language_model": "full", "projector": "full", "vision_tower": "full"}
    raw["prompts"] = {"shots": 1, "shots_in": "both"}
    assert medvlm(["finetune", recipe_file(tmp_path, raw), "--quiet"]) == 0
    run = only_run(tmp_path)
    logged = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in logged if "loss" in line]
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0]
    gates = {name: value for name, value in load_file(run.model / "model.safetensors").items() if "_gate" in name}
    assert len(gates) == 4
    assert all(bool(gate.abs() > 1e-3) for gate in gates.values())
    assert medvlm(["eval", str(run.path), "--metrics", "bleu", "--quiet"]) == 0
    assert len(list(run.path.rglob("predictions*.jsonl"))) >= 1


def tuned() -> tuple[Any, FlamingoBackbone]:
    """A tiny Flamingo as training has it, its gates ajar."""
    from medvlm.recipe.load import check

    torch.manual_seed(0)
    model, processor = FlamingoBackbone.tiny(56, None)
    parts = {"language_model": {"kind": "lora", "r": 4}, "projector": "full"}
    raw = {"name": "t", "model": {"backbone": "flamingo", "id": "medvlm/tiny-random"}, "adapters": parts}
    made = adapters.apply(model, check({**raw, "data": [{"path": "d"}]}, "t").adapters, BACKBONES.get("flamingo"))
    for name, parameter in made.named_parameters():
        if name.endswith("_gate"):
            parameter.data.fill_(0.3)
    return made.train(), FlamingoBackbone(processor, image_tokens=16, max_prefix_tokens=16, max_suffix_tokens=8)


def examples() -> list[Example]:
    """The first two have pictures, one and three; the others, which another process has, have none."""
    shown = [Image.new("RGB", (30, 30), color) for color in ("red", "white", "blue", "green")]
    return [
        Example(shown[0], "caption", "a nodule"),
        Example(shown[1], "caption", "no effusion", more_images=(shown[2], shown[3])),
        Example(None, "what is a lung", "an organ"),
        Example(None, "what is a heart", "another organ"),
    ]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    inner = getattr(model, "module", model)
    return {name: value.grad.clone() for name, value in inner.named_parameters() if value.grad is not None}


def one_of_two(rank: int, port: int, out: str) -> None:
    """Train a step as one of two processes that share nothing but gradients."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    model, backbone = tuned()
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    own = examples()[2 * rank : 2 * rank + 2]
    batch = backbone.collate(own)
    labels = int((backbone.collate(examples())["labels"] != -100).sum())
    # Twice: a parameter that was left out of the first pass would be missed in the second.
    for _ in range(2):
        parallel.zero_grad()
        forward_loss(parallel, batch, count=labels)[0].mul(2).backward()  # type: ignore[no-untyped-call]
    if rank == 0:
        torch.save(gradients(parallel), out)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_one_without_pictures_make_the_gradients_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "gradients.pt"
    torch.multiprocessing.start_processes(one_of_two, (port, str(out)), nprocs=2, start_method="spawn")
    found = torch.load(out)
    model, backbone = tuned()
    forward_loss(model, backbone.collate(examples()))[0].backward()  # type: ignore[no-untyped-call]
    expected = gradients(model)
    assert found.keys() == expected.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)
