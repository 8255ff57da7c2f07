"""The estimate of memory against the peak of real training, and its arithmetic against what bitsandbytes stores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from measured_peak import Counted, trained
from prepared import write_folder

from medvlm.data.sources.phantom.base_grammar import base_samples, vocabulary_corpus
from medvlm.models import tiny
from medvlm.models.load import planned_config
from medvlm.recipe.load import check
from medvlm.train import memory
from medvlm.train.memory_trace import Shape

SCRIPT = Path(__file__).with_name("measured_peak.py")
LORA = {"kind": "lora", "r": 8}
FULL = {"language_model": "full", "projector": "full", "vision_tower": "full"}


BFLOAT16 = {"dtype": "bfloat16"}
NF4 = {"mode": "nf4"}
QLORA: dict[str, Any] = {"model": BFLOAT16, "quantization": NF4, "train": {"activation_checkpointing": True}}
CASES: dict[str, dict[str, Any]] = {
    "lora": {},
    "lora, bfloat16": {"model": BFLOAT16},
    "full, bfloat16": {"model": BFLOAT16, "adapters": FULL},
    "nf4, bfloat16": {"model": BFLOAT16, "quantization": NF4},
    "nf4, bfloat16, checkpointing": QLORA,
    "head and tower, eager": {
        "model": {"attention": "eager"},
        "adapters": {"language_model": LORA, "head": "full", "vision_tower": LORA},
    },
    "checkpointing, batch 1": {"train": {"batch_size": 1, "activation_checkpointing": True}},
    "git-llm, lora": {"model": {"backbone": "git_llm"}, "adapters": {"language_model": LORA, "projector": "full"}},
    "git-llm, nf4, bfloat16": {
        "model": {"backbone": "git_llm", **BFLOAT16},
        "adapters": {"language_model": LORA, "projector": "full"},
        "quantization": NF4,
    },
}


@pytest.fixture(scope="session")
def middling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PaliGemma and a Llama of some 40 M parameters, so that what else there is stays small, and data to train on.

    Each is stored in float32 for training in bfloat16 and the other way round: weights in the stored dtype would be
    mapped from the file, and pages of it that training never needs would count as the process's memory.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, PaliGemmaForConditionalGeneration

    folder = tmp_path_factory.mktemp("middling")
    made = tiny.tokenizer(vocabulary_corpus())
    config: Any = tiny.config(-(-len(made) // 64) * 64, made.image_token_id)
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    config.text_config.update({**text, "head_dim": 64})
    config.vision_config.update({"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6})
    config.vision_config.projection_dim = config.projection_dim = config.hidden_size = 768
    torch.manual_seed(0)
    model = PaliGemmaForConditionalGeneration(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent.parent / "models"))
        from git_llm_tiny import save_text, save_tower

        known = LlamaConfig.from_pretrained(save_text(folder / "known", "llama", "llama"))
        save_tower(folder / "tower")
    ids = {"vocab_size": known.vocab_size, "bos_token_id": known.bos_token_id, "eos_token_id": 2}
    decoder = LlamaForCausalLM(LlamaConfig(**text, **ids, num_hidden_layers=4))
    for trained_in, stored_in in (("bfloat16", torch.float32), ("float32", torch.bfloat16)):
        model.to(stored_in).save_pretrained(folder / f"model_{trained_in}")
        tiny.processor(made).save_pretrained(folder / f"model_{trained_in}")
        shutil.copytree(folder / "known", folder / f"text_{trained_in}")
        decoder.to(stored_in).save_pretrained(folder / f"text_{trained_in}")
    listed = [next(s for s in base_samples(5, i) if s.prompt == "keywords") for i in range(8)]
    write_folder(folder / "data", {"train": listed})
    return folder


def settings(folder: Path, changed: dict[str, Any]) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "name": "t",
        "model": {"dtype": "float32", **changed.get("model", {})},
        "adapters": {"language_model": LORA},
        "data": [{"path": str(folder / "data")}],
        "train": {"learning_rate": 1e-4, "batch_size": 4, "max_steps": 3, "trackers": [], **changed.get("train", {})},
    }
    model = raw["model"]
    if model.get("backbone") == "git_llm":
        model |= {"vision_tower": str(folder / "tower"), "language_model": str(folder / f"text_{model['dtype']}")}
    else:
        model.setdefault("id", str(folder / f"model_{model['dtype']}"))
    return raw | {key: value for key, value in changed.items() if key not in ("model", "train")}


def measured(folder: Path, cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return name -> the peaks of real training, all in one process, and the shape of the largest batch.

    What is freed goes back to the system at once (MALLOC_*), so that the mark is that of memory in use.
    """
    files = {name: f"case{place}.yaml" for place, name in enumerate(cases)}
    for name, file in files.items():
        (folder / file).write_text(json.dumps(settings(folder, cases[name])), encoding="utf-8")
    frugal = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, str(SCRIPT), str(folder), *files.values()]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **frugal}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: found[file] for name, file in files.items()}


def estimated(folder: Path, changed: dict[str, Any], shape: dict[str, int]) -> memory.Estimate:
    recipe = check(settings(folder, changed), "t")
    return memory.estimate(recipe, memory.prepare(recipe, planned_config(recipe)), Shape(**shape), "cpu")


@pytest.fixture(scope="session")
def peaks(middling: Path) -> dict[str, dict[str, Any]]:
    """What all cases took."""
    return measured(middling, CASES)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's high-water mark")
@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_that_of_pytorch_and_of_the_process(
    middling: Path, peaks: dict[str, dict[str, Any]], name: str
) -> None:
    found = peaks[name]
    estimate = estimated(middling, CASES[name], found["shape"])
    assert estimate.tensors == pytest.approx(found["tensors"], rel=0.1)
    assert estimate.tensors == pytest.approx(found["process"], rel=0.2)
    assert estimate.total == pytest.approx(found["baseline"] + found["process"], rel=0.2)


def test_the_estimate_is_that_of_pytorch_for_4_bits_in_bfloat16_with_checkpointing(
    middling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(middling)
    Path("qlora.yaml").write_text(json.dumps(settings(middling, QLORA)), encoding="utf-8")
    counted = Counted()
    shape = trained("qlora.yaml", counted.before_step)
    assert estimated(middling, QLORA, shape).tensors == pytest.approx(counted.peak(), rel=0.1)


@pytest.mark.parametrize("double", [True, False])
def test_four_bit_bytes_are_those_that_bitsandbytes_stores(double: bool) -> None:
    from bitsandbytes.functional import quantize_4bit

    weight = torch.randn(320, 192)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
    held = [packed, state.absmax, state.code]
    if double:
        held += [state.offset, state.state2.absmax, state.state2.code]
    assert memory.four_bit_bytes(weight.numel(), double) == sum(t.numel() * t.element_size() for t in held)


def test_eight_bit_states_are_a_quarter_and_small_tensors_stay_whole() -> None:
    assert memory.optimizer_bytes(1000, "adamw_8bit") == memory.optimizer_bytes(1000, "adamw") == 8000
    assert memory.optimizer_bytes(2**20, "paged_adamw_8bit") == 2 * 2**20 + 8 * 2**12


def estimate(shape: Shape, **changed: Any) -> memory.Estimate:
    raw = settings(Path("d"), {"model": {"id": "medvlm/tiny-base"}, **changed})
    recipe = check(raw, "t")
    return memory.estimate(recipe, memory.prepare(recipe, planned_config(recipe)), shape, "cpu")


def test_what_settings_change_in_the_estimate() -> None:
    batch = Shape(4, 128, 48, 4)
    plain = estimate(batch)
    assert estimate(Shape(8, 128, 48, 8)).activations == pytest.approx(2 * plain.activations, rel=0.05)
    assert estimate(batch, train={"activation_checkpointing": True}).activations < 0.6 * plain.activations
    assert estimate(batch, quantization={"mode": "nf4", "compute_dtype": "float32"}).weights < 0.8 * plain.weights
    assert estimate(batch, model={"id": "medvlm/tiny-base", "attention": "eager"}).activations > plain.activations
    full = estimate(batch, adapters=FULL)
    assert full.optimizer == 2 * full.gradients == 2 * full.adapters > 20 * plain.optimizer
    accumulating = estimate(batch, adapters=FULL, train={"gradient_accumulation": 2})
    assert accumulating.tensors >= full.tensors
