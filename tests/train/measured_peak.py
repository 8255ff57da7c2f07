"""Trains a few steps in a process of its own and prints the peak memory above what the libraries take.

Usage: python measured_peak.py WORKING_FOLDER WARM_RECIPE RECIPE. Linux only: the kernel's own high-water mark is read,
and set back just before the first step, so that loading is not what is measured.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

STEPS = 4


def status(key: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


class Watch:
    """Notes the high-water mark around the Trainer's steps, and the largest batch."""

    def __init__(self) -> None:
        self.calls = 0
        self.marks: list[int] = []
        self.shape: dict[str, int] = {"rows": 0, "length": 0, "labels": 0, "images": 0}

    def before_step(self, inputs: dict[str, Any]) -> None:
        """Set the mark back before the first step and read it before the last: by then the optimizer has stepped."""
        self.calls += 1
        if self.calls == 1:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self.marks.append(status("VmRSS" if self.calls == 1 else "VmHWM"))
        rows, length = inputs["input_ids"].shape
        labels = int((inputs["labels"] != -100).sum())
        found = {"rows": rows, "length": length, "labels": -(-labels // rows), "images": len(inputs["pixel_values"])}
        self.shape = max(self.shape, found, key=lambda shape: shape["rows"] * shape["length"])


def main(folder: str, warm: str, recipe: str) -> None:
    """Train the warm-up recipe, so that every library is loaded; then the real one, under watch."""
    from transformers import Trainer

    from medvlm.cli import run as medvlm

    os.chdir(folder)
    assert medvlm(["finetune", warm, "--quiet"]) == 0
    libc = ctypes.CDLL("libc.so.6")
    libc.malloc_trim(0)
    baseline = status("VmRSS")
    watch, step = Watch(), Trainer.training_step

    def watched(self: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        watch.before_step(inputs)
        return step(self, model, inputs, *rest, **more)

    Trainer.training_step = watched
    assert medvlm(["finetune", recipe, "--quiet"]) == 0
    assert watch.calls >= STEPS
    marks = [mark - baseline for mark in watch.marks]
    print(json.dumps({"peak": marks[-1], "marks": marks, "baseline": baseline, "shape": watch.shape}))


if __name__ == "__main__":
    main(*sys.argv[1:])
