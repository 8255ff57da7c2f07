"""Two GPUs against one: each way of sharing a model, over NCCL, through the real command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from medvlm.runs import open_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]


def losses(folder: Path, raw: dict[str, Any], *options: str) -> list[float]:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(json.dumps(raw), encoding="utf-8")
    words = [sys.executable, "-m", "medvlm", "finetune", "recipe.yaml", "--quiet", *options]
    subprocess.run(words, cwd=folder, check=True, timeout=600)
    run = open_run(None, folder / "runs")
    lines = [json.loads(text) for text in (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def recipe(tiny: Path, data: Path, batch: int, *, nf4: bool) -> dict[str, Any]:
    return {
        "name": "t",
        "model": {"id": str(tiny), "dtype": "bfloat16" if nf4 else "float32"},
        "quantization": {"mode": "nf4" if nf4 else "none", "storage": "bfloat16"},
        "adapters": {"language_model": {"kind": "lora", "r": 4}, "projector": "full"},
        "data": [{"path": str(data)}],
        "train": {"learning_rate": 1e-3, "batch_size": batch, "max_steps": 4, "trackers": []},
    }


@pytest.mark.parametrize("nf4", [False, True])
@pytest.mark.parametrize("how", ["ddp", "fsdp2", "zero2", "zero3"])
def test_two_gpus_train_as_one_with_the_doubled_batch(
    how: str, nf4: bool, tiny_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    if how.startswith("zero"):
        pytest.importorskip("deepspeed", reason="the extra medvlm[deepspeed] is not installed")
    one = losses(tmp_path / "one", recipe(tiny_folder, data_folder, 4, nf4=nf4))
    shared = recipe(tiny_folder, data_folder, 2, nf4=nf4)
    two = losses(tmp_path / "two", shared, "--devices", "2", "--accelerate-config", how)
    # bfloat16 keeps 8 bits; the tiny losses are about 5.
    assert two == pytest.approx(one, rel=2e-2 if nf4 else 1e-4)
