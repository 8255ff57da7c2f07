"""Checkpoints: only whole ones count, the last and the best stay, and weights come back bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medvlm.errors import InputError
from medvlm.train import checkpoints


def made(folder: Path, step: int, sealed: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_bytes(b"x" * 100)
    if sealed:
        checkpoints.seal(path, {"samples": step})
    return path


def test_only_a_sealed_checkpoint_with_every_file_is_whole(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "none") is None
    first, second, third = made(tmp_path, 2), made(tmp_path, 10), made(tmp_path, 4)
    made(tmp_path, 20, sealed=False)
    assert checkpoints.whole(tmp_path) == [first, third, second]
    (second / "optimizer.pt").write_bytes(b"x" * 99)
    assert checkpoints.newest(tmp_path) == third
    (third / "whole.json").write_text('{"files": ', encoding="utf-8")
    assert checkpoints.newest(tmp_path) == first
    assert checkpoints.counters_of(first) == {"samples": 2}
    assert "checkpoint-2 (--resume" in checkpoints.last_words(tmp_path)
    (first / "optimizer.pt").unlink()
    assert checkpoints.last_words(tmp_path) == "there is no checkpoint yet"


@pytest.mark.parametrize(
    ("last", "best", "left"), [(1, None, [8]), (2, 2, [2, 6, 8]), (2, 8, [6, 8]), (9, 1, [2, 4, 6, 8])]
)
def test_the_last_and_the_best_are_kept(last: int, best: int | None, left: list[int], tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        made(tmp_path, step)
    made(tmp_path, 10, sealed=False)
    (tmp_path / "checkpoint-notes").mkdir()
    checkpoints.keep(tmp_path, last, best)
    assert sorted(int(p.name.split("-")[1]) for p in checkpoints.whole(tmp_path)) == left
    assert len(list(tmp_path.iterdir())) == len(left) + 1


def test_weights_come_back_in_their_own_dtype(tmp_path: Path) -> None:
    """Tied weights count once; what is frozen is neither written nor touched."""
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 3), "c": torch.nn.Linear(3, 3)})
    model["c"].weight = model["a"].weight
    model["a"].half()
    model["b"].requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    checkpoints.save_weights(model, tmp_path / "checkpoint-1")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    checkpoints.load_weights(model, tmp_path / "checkpoint-1")
    after = model.state_dict()
    assert all(torch.equal(after[n], before[n]) != n.startswith("b") for n in before)
    assert after["a.weight"].dtype == torch.float16
    model["b"].requires_grad_(True)
    with pytest.raises(InputError, match=r"b\.bias is trained now or was then"):
        checkpoints.load_weights(model, tmp_path / "checkpoint-1")
