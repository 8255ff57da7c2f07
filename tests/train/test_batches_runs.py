"""Whole runs by the command line: batching, packing and caches change no loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medvlm.cli import run as medvlm
from medvlm.runs import open_run


def losses(tiny: Path, data: Path, folder: Path, *more: str) -> list[float]:
    raw: dict[str, Any] = {
        "name": "t",
        "model": {"id": str(tiny), "dtype": "float32"},
        "adapters": {"language_model": {"kind": "lora", "r": 4}, "projector": "full"},
        "data": [{"path": str(data)}],
        "train": {"learning_rate": 3e-3, "batch_size": 8, "max_steps": 4, "eval_every": 2, "trackers": []},
    }
    (folder / "recipe.yaml").write_text(json.dumps(raw), encoding="utf-8")
    assert medvlm(["finetune", str(folder / "recipe.yaml"), "--quiet", *more]) == 0
    lines = [json.loads(x) for x in (open_run(None).path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line[key] for line in lines for key in ("loss", "eval_loss") if key in line]


@pytest.fixture(scope="module")
def plain(tiny_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of shuffled rows without any cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("plain")
        patch.chdir(folder)
        return losses(tiny_folder, data_folder, folder)


@pytest.mark.parametrize(
    "setting",
    [
        ["train.batching=grouped", "data.0.cache_pixels=true", "train.workers=2", "train.loss_chunk=3"],
        ["train.batching=packed", "model.attention=eager", "data.0.cache_features=true"],
    ],
)
def test_an_epoch_in_one_batch_has_the_same_losses(
    setting: list[str],
    plain: list[float],
    tiny_folder: Path,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight rows, eight in a batch: whatever their order, an update sees them all."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDVLM_CACHE", str(tmp_path / "cache"))
    assert len(plain) == 6
    assert plain[0] > plain[-1]
    assert losses(tiny_folder, data_folder, tmp_path, *setting) == pytest.approx(plain, abs=1e-4)
    assert list((tmp_path / "cache").glob("*/values"))
