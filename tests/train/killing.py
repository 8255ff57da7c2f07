"""Trainings in a child process that ends itself with SIGKILL at a chosen moment; and their losses."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medvlm.cli import run as medvlm
from medvlm.runs import Run


def die() -> None:
    """End this process as the system would: nothing is flushed, no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(arguments: list[str], prepare: Callable[[], None]) -> int:
    """Run the command line in a forked child after `prepare`; return its exit code, negative for a signal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 99
        try:
            sys.stderr = sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            prepare()
            code = medvlm(arguments)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def at_call(owner: Any, name: str, number: int, act: Callable[..., Any]) -> Callable[[], None]:
    """Return what makes the `number`th call (from 1) of `owner.name` call `act` with its arguments first."""

    def prepare() -> None:
        plain, calls = getattr(owner, name), [0]

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == number:
                act(*args, **kwargs)
            return plain(*args, **kwargs)

        setattr(owner, name, counted)

    return prepare


def lines(run: Path) -> list[dict[str, Any]]:
    """Return metrics.jsonl without what depends on the clock."""
    found = []
    for text in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        for name in ("seconds", "step_seconds", "samples_per_second"):
            line.pop(name, None)
        found.append(line)
    return found


def only_run(folder: Path) -> Run:
    """Return the one run below `folder`."""
    (path,) = (path for path in (folder / "runs").iterdir() if not path.is_symlink())
    return Run(path)


def recipe_file(folder: Path, raw: dict[str, Any]) -> str:
    """Write a recipe and return its path."""
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return str(path)
