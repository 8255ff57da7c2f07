"""What every step leaves behind: metrics.jsonl, progress, compute facts; and a clean stop at Ctrl-C."""

from __future__ import annotations

import itertools
import json
import math
import os
import resource
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from medvlm.cli.common import Progress
from medvlm.errors import InputError


class StepLog(TrainerCallback):  # type: ignore[misc]
    """Writes one line a log event into metrics.jsonl and shows progress.

    Args:
        path: metrics.jsonl; lines after `start` are dropped, so that a resumed run has no step twice.
        start: the step of the checkpoint that training goes on from; 0 at the beginning.
        show: told the step and the loss.
    """

    def __init__(self, path: Path, start: int, show: Progress) -> None:
        self.path, self.show = path, show
        _drop_after(path, start)
        earlier = _lines(path)
        self.samples = int(earlier[-1]["samples"]) if earlier else 0
        self.tokens = int(earlier[-1]["tokens"]) if earlier else 0
        self.earlier_seconds = _seconds(earlier)
        """What earlier sessions of a resumed run took, from the seconds of their logged steps."""
        self.step_started = time.perf_counter()
        self.step_seconds = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show where training starts."""
        self.show.update(state.global_step, state.max_steps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the step's clock."""
        self.step_started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the step's clock and show progress."""
        self.step_seconds = time.perf_counter() - self.step_started
        last = state.log_history[-1] if state.log_history else {}
        note = f"loss {last['loss']:.3f}" if "loss" in last else ""
        self.show.update(state.global_step, state.max_steps, note)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append the line of this step."""
        logs = dict(logs or {})
        if "train_runtime" in logs:
            return
        line: dict[str, Any] = {"step": state.global_step, "epoch": round(float(state.epoch or 0), 6)}
        if "eval_loss" in logs:
            line["eval_loss"] = logs["eval_loss"]
        else:
            line |= {key: logs[key] for key in ("loss", "learning_rate", "grad_norm") if key in logs}
            line |= {"step_seconds": round(self.step_seconds, 6), "samples": self.samples, "tokens": self.tokens}
        # A gradient norm may be infinite for a step of float16, whose scaler then skips it.
        if not math.isfinite(line.get("loss", line.get("eval_loss", 0.0))):
            raise InputError(
                f"step {state.global_step}: the loss is not a number; lower train.learning_rate, or use "
                "model.dtype=bfloat16; the last checkpoint is kept"
            )
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def mean_loss(self) -> float:
        """Return the mean of all logged training losses."""
        losses = [line["loss"] for line in _lines(self.path)]
        return float(sum(losses)) / max(1, len(losses))


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl about training steps."""
    if not path.is_file():
        return []
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "loss" in line]


def _seconds(lines: list[dict[str, Any]]) -> float:
    steps = [0, *(line["step"] for line in lines)]
    spans = [after - before for before, after in itertools.pairwise(steps)]
    return float(sum(span * line["step_seconds"] for span, line in zip(spans, lines, strict=True)))


def _drop_after(path: Path, step: int) -> None:
    if not path.is_file():
        return
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(text)["step"] <= step:
                kept.append(text)
        except (ValueError, KeyError):
            continue
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(f"{text}\n" for text in kept), encoding="utf-8")
    os.replace(temporary, path)


class Interrupt(TrainerCallback):  # type: ignore[misc]
    """Ctrl-C, or SIGTERM from a scheduler, ends training after the current step with a checkpoint.

    A second Ctrl-C ends it at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._old[number] = signal.signal(number, self._note)
            except ValueError:
                # Only the main thread may do this; elsewhere Ctrl-C keeps its usual meaning.
                return self
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping after this step, with a checkpoint; once more to stop at once", file=sys.stderr, flush=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Ask for a checkpoint and the end."""
        if self.asked:
            control.should_save = True
            control.should_training_stop = True
        return control


def device_name() -> str:
    """Return the device in words."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"cpu ({torch.get_num_threads()} threads)"


def peak_memory() -> int:
    """Return the most memory used so far, in bytes: the GPU's where there is one, else the process's."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
