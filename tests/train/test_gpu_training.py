"""Training on a GPU: the CPU's loss and gradients, 4 bits, resuming, liger-kernel, the paged optimizer."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from medvlm.cli import run as medvlm
from medvlm.models import adapters, load
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import Example
from medvlm.recipe.load import check
from medvlm.runs import open_run
from medvlm.train.loss import forward_loss

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def settings(tiny: Path, data: Path, mode: str = "none", **train: Any) -> dict[str, Any]:
    return {
        "name": "gpu",
        "model": {"id": str(tiny), "dtype": "float32"},
        "quantization": {"mode": mode, "compute_dtype": "float32"},
        "adapters": {"language_model": {"kind": "lora", "r": 4}, "projector": "full"},
        "data": [{"path": str(data)}],
        "train": {
            "learning_rate": 1e-3, "batch_size": 4, "max_steps": 6, "save_every": 2, "liger": "off", "trackers": [],
            **train,
        },
    }  # fmt: skip


def wrapped(raw: dict[str, Any]) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return the model of a recipe with adapters that already do something, and a batch, both on the GPU."""
    recipe = check(raw, "t")
    torch.manual_seed(0)
    loaded = load.load_base(recipe)
    model = adapters.apply(loaded.model, recipe.adapters, BACKBONES.get("paligemma"))
    adapters.trainable_in_float32(model)
    draw = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data = torch.randn(parameter.shape, generator=draw).to(parameter) * 0.05
    texts = ("a nodule", "a large left pleural effusion.", "no")
    examples = [Example(Image.new("RGB", (40, 40), (80 * i, 9, 9)), "caption en", t) for i, t in enumerate(texts)]
    inputs = {name: value.to(DEVICE) for name, value in loaded.backbone.collate(examples).items()}
    return model.to(DEVICE), inputs


def step(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss and the gradient of everything trained, on the CPU."""
    model.train()
    model.zero_grad()
    loss = forward_loss(model, inputs)[0]
    loss.backward()
    trained = {name: p.grad.float().cpu() for name, p in model.named_parameters() if p.requires_grad}
    return float(loss.detach()), trained


def assert_close(one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-4)
    assert one[1].keys() == other[1].keys()
    for name, gradient in other[1].items():
        error = (one[1][name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < 1e-3, f"{name}: {error}"


def losses(run: Path) -> dict[int, float]:
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def finetune(folder: Path, raw: dict[str, Any], *options: str) -> dict[int, float]:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(raw), encoding="utf-8")
    assert medvlm(["finetune", str(path), "--quiet", *options]) == 0
    return losses(open_run(None).path)


def test_a_lora_step_is_that_of_the_cpu(tiny_folder: Path) -> None:
    model, inputs = wrapped(settings(tiny_folder, Path("d")))
    on_gpu = step(model, inputs)
    on_cpu = step(model.cpu(), {name: value.cpu() for name, value in inputs.items()})
    assert_close(on_gpu, on_cpu)


def test_a_qlora_step_is_that_of_its_dequantized_weights_on_the_cpu(tiny_folder: Path) -> None:
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    model, inputs = wrapped(settings(tiny_folder, Path("d"), "nf4"))
    on_gpu = step(model, inputs)
    plain, _ = wrapped(settings(tiny_folder, Path("d")))
    plain.load_state_dict({n: p for n, p in model.state_dict().items() if "lora_" in n}, strict=False)
    seen = 0
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
            plain.get_submodule(name).weight.data = weight.float().cpu()
            seen += 1
    assert seen > 10
    on_cpu = step(plain.cpu(), {name: value.cpu() for name, value in inputs.items()})
    assert_close(on_gpu, on_cpu)


@pytest.mark.parametrize("mode", ["none", "nf4"])
def test_a_resumed_run_goes_on_as_if_it_had_not_been_stopped(
    mode: str, tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = settings(tiny_folder, data_folder, mode, keep_checkpoints=3)
    expected = finetune(tmp_path, raw)
    run = open_run(None)
    for later in (4, 6):
        shutil.rmtree(run.checkpoints / f"checkpoint-{later}")
    run.record(run.facts() | {"status": "running"})
    resumed = finetune(tmp_path, raw, "--resume")
    assert sorted(resumed) == list(range(1, 7))
    # Sums on a GPU are taken in an order that may differ from run to run.
    assert resumed == pytest.approx(expected, rel=1e-4)


def test_liger_kernel_changes_no_result(tiny_folder: Path) -> None:
    if importlib.util.find_spec("liger_kernel") is None:
        pytest.skip("needs liger-kernel")
    raw = settings(tiny_folder, Path("d"), liger="on")
    model, inputs = wrapped(raw)
    without = step(model, inputs)
    done = load.speed_up(model, check(raw, "t"))
    assert any("liger-kernel" in text for text in done)
    assert_close(step(model, inputs), without)


def test_the_paged_optimizer_follows_the_plain_one(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = finetune(tmp_path, settings(tiny_folder, data_folder, "nf4", optimizer="adamw"))
    paged = finetune(tmp_path, settings(tiny_folder, data_folder, "nf4", optimizer="paged_adamw_8bit"))
    assert paged[1] == pytest.approx(plain[1], rel=1e-4)
    # States of 8 bits turn an update by a few percent; the loss must go the same way.
    assert paged[6] == pytest.approx(plain[6], rel=0.05)
    assert paged[6] < paged[1]
