"""What every step leaves behind: metrics.jsonl and progress; and a clean stop at Ctrl-C."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from medvlm.cli.common import Progress
from medvlm.io import write_text
from medvlm.models.backbones.base import Backbone
from medvlm.train.devices import here
from medvlm.train.failures import diverged


class StepLog(TrainerCallback):  # type: ignore[misc]
    """Writes one line a log event into metrics.jsonl and shows progress.

    Lines of training hold step, epoch, loss, learning rates, gradient norm, the last step's seconds, and `losses` by
    data set where there are several; those of validation `eval_loss`, `losses` and the figure that the best checkpoint
    is chosen by. Both hold what the run amounts to up to there: samples, tokens, flops (useful ones), seconds.

    Args:
        path: metrics.jsonl; lines after `start` are dropped, so that a resumed run has no step twice.
        start: the step of the checkpoint that training goes on from; 0 at the beginning.
        show: told the step and the loss.
    """

    def __init__(self, path: Path, start: int, show: Progress) -> None:
        self.path, self.show = path, show
        _drop_after(path, start)
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
        if "loss" not in logs and "eval_loss" not in logs:
            return
        line: dict[str, Any] = {"step": state.global_step, "epoch": round(float(state.epoch or 0), 6)}
        line |= {name: value for name, value in logs.items() if "/" not in name and name not in (*line, *_TOTALS)}
        if "loss" in logs:
            line["step_seconds"] = round(self.step_seconds, 6)
        line |= {name: logs[name] for name in _TOTALS if name in logs}
        for key, prefixes in (("losses", ("loss/", "eval_loss/")), ("learning_rates", ("learning_rate/",))):
            found = {name.split("/", 1)[1]: value for name, value in logs.items() if name.startswith(prefixes)}
            line |= {key: found} if found else {}
        if not math.isfinite(line.get("loss", line.get("eval_loss", 0.0))):
            raise diverged(state.global_step, "loss", args.fp16, Path(args.output_dir))
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def mean_loss(path: Path) -> float | None:
    """Return the mean training loss over all logged steps; None where nothing is logged."""
    lines = _lines(path)
    if not lines:
        return None
    # A line is the mean over the steps since the one before.
    steps = [0, *(int(line["step"]) for line in lines)]
    total = sum(line["loss"] * (step - before) for line, (before, step) in zip(lines, pairwise(steps), strict=True))
    return float(total) / steps[-1]


_TOTALS = ("samples", "tokens", "flops", "seconds")


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl about training steps."""
    if not path.is_file():
        return []
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "loss" in line]


def _drop_after(path: Path, step: int) -> None:
    if not path.is_file():
        return
    kept = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(text)["step"] <= step:
                kept.append(text)
        except (ValueError, KeyError, TypeError):
            continue
    write_text(path, "".join(f"{text}\n" for text in kept))


class GoOn(TrainerCallback):  # type: ignore[misc]
    """Restores what the Trainer sets to 0 when training begins, and has the last step logged.

    On every device, since all of them take part in a log. `trainer` is set once it is made.
    """

    trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Go on with the mean loss since the last log."""
        self.trainer.restore_log()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Have the last steps logged, however few since the last log."""
        if state.global_step >= state.max_steps:
            control.should_log = True
        return control


class Bounded(TrainerCallback):  # type: ignore[misc]
    """Lets the backbone put its weights back into their bounds after every update.

    Args:
        backbone: of the model.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Have the weights looked at."""
        self.backbone.updated(model)


class Interrupt(TrainerCallback):  # type: ignore[misc]
    """Ctrl-C, or SIGTERM from a scheduler, ends training after the current step with a checkpoint.

    A second Ctrl-C ends it at once.

    Args:
        quiet: say nothing of it.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.asked, self.quiet = False, quiet
        self._told = False
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
        # Not by `asked`: what another process was told comes back here with its own Ctrl-C still on the way.
        if self._told:
            raise KeyboardInterrupt
        self._told = self.asked = True
        if not self.quiet:
            print("stopping after this step, with a checkpoint; once more to stop at once", file=sys.stderr, flush=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Ask for a checkpoint and the end, on all devices at the same step."""
        # By what all of them say alone: a Ctrl-C while this one waits for the others is for the next step.
        if here().any(self.asked):
            self.asked = True
            control.should_save = True
            control.should_training_stop = True
        return control
