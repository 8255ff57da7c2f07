"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Set before any Hugging Face library is imported: the suite never reaches for a network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# As the command line does: other work on the machine then slows the suite by its share only.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The tests run in several processes, and a child forked beside a pool of threads cannot use the pool.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real articles and data sets; tests/realdata.md says how to rebuild it."""
    folder = Path(os.environ.get("MEDVLM_REALDATA") or CHECKOUT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder.name}/: set MEDVLM_REALDATA (see tests/realdata.md)")
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny PaliGemma with random weights, saved as any checkpoint is."""
    import torch

    from medvlm.models import tiny

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    model, processor = tiny.random_model()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def adapter_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the packaged tiny base: a LoRA adapter that changes its answers, and a projector of its own.

    Made with peft and transformers alone. Copy it before you change it.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from medvlm.io import write_json
    from medvlm.models.locate import weights_fingerprint
    from medvlm.recipe.load import check
    from medvlm.recipe.resolve import recipe_hash, write_resolved
    from medvlm.resources import PACKAGE

    base = PACKAGE / "models" / "tiny_base"
    torch.manual_seed(3)
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    pattern = r"model\.language_model\..*\.[a-z]+_proj"
    model = get_peft_model(model, LoraConfig(r=4, target_modules=pattern, modules_to_save=["multi_modal_projector"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            parameter.data += 0.02 * torch.randn_like(parameter)
    run = tmp_path_factory.mktemp("runs") / "adapted"
    model.save_pretrained(run / "adapter")
    AutoProcessor.from_pretrained(base, backend="pil").save_pretrained(run / "adapter")
    recipe = check(
        {
            "name": "adapted",
            "model": {"id": "medvlm/tiny-base", "dtype": "float32"},
            "adapters": {"language_model": {"kind": "lora", "r": 4, "alpha": 8.0}, "projector": "full"},
            "data": [{"path": "data/pmc"}],
            "eval": {"max_new_tokens": 12, "batch_size": 2},
            "text": {"max_prefix_tokens": 64},
        },
        "test",
    )
    write_resolved(recipe, run / "recipe.yaml")
    part = {"path": "data/pmc", "fingerprint": "f" * 64, "rows": 8, "weight": 1.0, "licenses": {"CC0-1.0": 8}}
    facts = {
        "schema": 1,
        "name": "adapted",
        "status": "finished",
        "finished": "2026-01-01T00:00:00+00:00",
        "recipe_hash": recipe_hash(recipe),
        "data": [{**part, "cap": None, "tasks": None, "synthetic": True, "title": "phantoms"}],
        "model": {
            "id": "medvlm/tiny-base",
            "parts": {"model": "medvlm/tiny-base"},
            "revision": None,
            "image_size": 112,
            "checkpoint_image_size": 112,
            "resampled_position_embeddings": False,
            "weights": {"model": weights_fingerprint(base)},
        },
        "result": {"train_loss": 1.0, "steps": 3},
    }
    write_json(run / "run.json", facts)
    write_json(run / "compute.json", {"device": "cpu", "seconds": 1.0, "samples": 8})
    return run
