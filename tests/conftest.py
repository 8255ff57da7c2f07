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
