"""Checkpoints: which are whole, which are kept, and what lies in one.

A checkpoint is a folder `checkpoint-<step>` with what is trained (`trained.safetensors`), optimizer, schedule and
random states, and the Trainer's own state. `whole.json` is written last, after everything else is on the disk, and
lists every file with its size: a folder without it, or with another size, was cut off and is never gone on with.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from medvlm.errors import InputError
from medvlm.io import disk_errors, write_json
from medvlm.train.spread import full, put

SEAL = "whole.json"
WEIGHTS = "trained.safetensors"


def step_of(checkpoint: Path) -> int:
    """Return the step that a checkpoint was written at."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def is_whole(checkpoint: Path) -> bool:
    """Return True where everything that was to be written lies there."""
    try:
        files = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))["files"]
        return all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def whole(folder: Path) -> list[Path]:
    """Return the whole checkpoints in `folder`, oldest first."""
    return [path for path in _all(folder) if is_whole(path)]


def newest(folder: Path) -> Path | None:
    """Return the newest whole checkpoint, or None to begin again."""
    found = whole(folder)
    return found[-1] if found else None


def seal(checkpoint: Path, counters: dict[str, Any]) -> None:
    """Mark a checkpoint as whole, once all its files are on the disk.

    Args:
        checkpoint: the folder.
        counters: what the run's logs go on from; `counters_of` returns it.
    """
    with disk_errors(checkpoint):
        files = sorted(path for path in checkpoint.iterdir() if path.name != SEAL)
        for path in files:
            _to_disk(path)
        sizes = {path.name: path.stat().st_size for path in files}
        write_json(checkpoint / SEAL, {"step": step_of(checkpoint), "files": sizes, "counters": counters})
        _to_disk(checkpoint)


def counters_of(checkpoint: Path | None) -> dict[str, Any]:
    """Return what `seal` was given; empty where training begins."""
    if checkpoint is None:
        return {}
    found: dict[str, Any] = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))["counters"]
    return found


def keep(folder: Path, last: int, best: int | None) -> None:
    """Remove all but the last so many whole checkpoints and the best; and whatever was cut off.

    Args:
        folder: of the checkpoints.
        last: how many of the newest stay.
        best: step of the one that stays in any case.
    """
    stay = whole(folder)[-last:]
    for path in _all(folder):
        if path not in stay and not (step_of(path) == best and is_whole(path)):
            # Without its seal first, so that a removal cut off leaves nothing that looks whole.
            (path / SEAL).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def last_words(folder: Path) -> str:
    """Return what is left to go on from, for an error's end."""
    found = newest(folder)
    if found is None:
        return "there is no checkpoint yet"
    return f"the last good checkpoint is {found} (--resume goes on from it)"


def save_weights(model: torch.nn.Module, folder: Path, write: bool = True) -> None:
    """Write every parameter that is trained, whole, under its name in `model` and in its own dtype.

    Args:
        model: where it is sharded, all processes must call this.
        folder: of the checkpoint.
        write: this process is the one that writes.
    """
    from safetensors.torch import save_file

    trained = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gathered = full(parameter).detach()
            if write:
                trained[name] = gathered.contiguous()
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained, folder / WEIGHTS, metadata={"format": "pt"})


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Put what `save_weights` wrote back into `model`.

    Raises:
        InputError: other parameters are trained now than then.
    """
    from safetensors.torch import load_file

    stored = load_file(folder / WEIGHTS)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if stored.keys() != trained.keys():
        name = sorted(stored.keys() ^ trained.keys())[0]
        raise InputError(f"{folder}: {name} is trained now or was then, not both; start a new run")
    for name, parameter in trained.items():
        put(parameter, stored[name])


def random_states_in(folder: Path) -> dict[str, Any]:
    """Return the random states that a checkpoint was written with."""
    from transformers.trainer_pt_utils import safe_globals

    with safe_globals():
        found: dict[str, Any] = torch.load(folder / "rng_state.pth", weights_only=True)
    return found


def _all(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if path.name.rsplit("-", 1)[1].isdigit()]
    return sorted(found, key=step_of)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
