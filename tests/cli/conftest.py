"""What the recipes ask for, in small: prepared data where they look for it, tiny bases of real classes, no network."""

from __future__ import annotations

import dataclasses
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent.parent
sys.path += [str(TESTS / "models")]


def _samples(first: int, count: int) -> list[Any]:
    """Return a caption, a question and a report for each of `count` phantoms."""
    from medvlm.data.sources.phantom.base_grammar import base_samples

    found = []
    for index in range(first, first + count):
        caption = next(sample for sample in base_samples(5, index) if sample.prompt == "keywords")
        answer = ("left lung", "right lung")[index % 2]
        question = dataclasses.replace(caption, id=f"{caption.id}/q", task="vqa", prompt="Where?", target=answer)
        report = dataclasses.replace(
            caption, id=f"{caption.id}/r", task="report", prompt="", target="Findings: a nodule. Impression: nodule."
        )
        found += [dataclasses.replace(caption, prompt=""), question, report]
    return found


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with data/pmc, data/vqa-rad and data/phantom-base: 24 rows for training, 12 held out."""
    from prepared import write_folder

    folder = tmp_path_factory.mktemp("shelf")
    splits = {"train": _samples(0, 8), "validation": _samples(8, 2), "test": _samples(10, 2)}
    for name in ("pmc", "vqa-rad", "phantom-base"):
        write_folder(folder / "data" / name, splits)
    return folder


@pytest.fixture
def at_shelf(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh working directory with the data of `shelf`."""
    (tmp_path / "data").symlink_to(shelf / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every attempt to reach another machine, which fails; HF_HUB_OFFLINE is not set, so that none is hidden."""
    asked: list[Any] = []

    def refuse(*words: Any, **_: Any) -> Any:
        asked.append(words)
        raise OSError("no network in this test")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return asked


@pytest.fixture(scope="session")
def paligemma2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny PaliGemma 2."""
    from paligemma2_tiny import save_paligemma2

    return Path(save_paligemma2(tmp_path_factory.mktemp("paligemma2")))


@pytest.fixture(scope="session")
def git_parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny CLIP, and a tiny language model of every family that the recipes name."""
    from git_llm_tiny import save_text, save_tower

    folder = tmp_path_factory.mktemp("git-parts")
    kinds = {"opt": "opt", "llama": "llama", "mistral": "llama", "mpt": "gpt2", "qwen2": "qwen2"}
    found = {family: save_text(folder / family, family, kind) for family, kind in kinds.items()}
    return {**found, "tower": save_tower(folder / "tower")}
