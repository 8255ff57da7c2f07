"""Trains recipes in a process of its own and prints two peaks of memory of each.

Each is trained three times. The first time leaves behind what libraries keep from then on: modules, compiled kernels,
scratch. The second time the system's high-water mark of the process is read, above that. The third time PyTorch's own
count of allocated bytes is kept, as `torch.cuda.max_memory_allocated` does; last for all recipes, as counting leaves
memory behind too.

Usage: python measured_peak.py WORKING_FOLDER RECIPE... Linux only.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

STEPS = 3


def status(key: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def trim() -> None:
    """Give back to the system what is free, holes in the heap included."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def living() -> int:
    """Return the bytes of all tensors that there are."""
    gc.collect()
    # Not isinstance, which would ask lazily loaded modules for their class.
    found = [thing.untyped_storage() for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in found}.values())


class Counted:
    """PyTorch's count of bytes: what was made before the first step, and every allocation and release from then on."""

    def __init__(self) -> None:
        self.others, self.before = living(), 0
        self.profile: Any = torch.autograd.profiler.profile(profile_memory=True)

    def before_step(self, step: int) -> None:
        """Begin to count before the first step."""
        if step == 0:
            self.before = living() - self.others
            self.profile.__enter__()

    def peak(self) -> int:
        """Return the highest sum."""
        self.profile.__exit__(None, None, None)
        changes = [(e.start_ns(), e.nbytes()) for e in self.profile.kineto_results.events() if e.name() == "[memory]"]
        assert changes
        now = peak = 0
        for _, size in sorted(changes):
            now += size
            peak = max(peak, now)
        return self.before + peak


class Watched:
    """The high-water mark of the process between the first step and the last, when the optimizer has stepped."""

    def __init__(self) -> None:
        trim()
        self.baseline = status("VmRSS")
        self.highest = 0

    def before_step(self, step: int) -> None:
        """Set the mark back before the first step, so that loading is not what is measured."""
        if step == 0:
            trim()
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self.highest = status("VmHWM")


def trained(recipe: str, before_step: Callable[[int], None]) -> dict[str, int]:
    """Train, and return the shape of the largest batch."""
    from transformers import Trainer

    from medvlm.cli import run as medvlm

    shapes: list[dict[str, int]] = []
    step = Trainer.training_step

    def watched(self: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        before_step(len(shapes))
        rows, length = inputs["input_ids"].shape
        labels = -(-int((inputs["labels"] != -100).sum()) // rows)
        shapes.append({"rows": rows, "length": length, "labels": labels, "images": len(inputs["pixel_values"])})
        return step(self, model, inputs, *rest, **more)

    Trainer.training_step = watched
    assert medvlm(["finetune", recipe, "--quiet"]) == 0
    Trainer.training_step = step
    assert len(shapes) >= STEPS
    return max(shapes, key=lambda shape: shape["rows"] * shape["length"])


def main(folder: str, *recipes: str) -> None:
    """Print what was measured, as JSON: recipe -> tensors, process and baseline in bytes, shape."""
    os.chdir(folder)
    found: dict[str, dict[str, Any]] = {}
    for recipe in recipes:
        trained(recipe, lambda step: None)
        watched = Watched()
        shape = trained(recipe, watched.before_step)
        found[recipe] = {"process": watched.highest - watched.baseline, "baseline": watched.baseline, "shape": shape}
    for recipe in recipes:
        counted = Counted()
        trained(recipe, counted.before_step)
        found[recipe]["tensors"] = counted.peak()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
