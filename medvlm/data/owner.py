"""A file that says which process is at work in a folder, for file systems that know no locks (some network ones)."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.errors import InputError


@contextlib.contextmanager
def owned(path: Path) -> Iterator[None]:
    """Hold `path`, made by this process alone, and remove it in the end.

    What a process of this machine left that is gone (killed) is taken over; of another machine nothing can be told.

    Raises:
        InputError: another process holds it.
    """
    mine = {"process": os.getpid(), "machine": platform.node()}
    while not _made(path, mine):
        check(path)
        with contextlib.suppress(FileNotFoundError):
            _remove(path)
    try:
        yield
    finally:
        if _read(path) == mine:
            path.unlink(missing_ok=True)


def check(path: Path) -> None:
    """Make sure that no process holds `path`.

    Raises:
        InputError: one does, or one of another machine did.
    """
    held = _read(path)
    if held is None or (held.get("machine") == platform.node() and not _alive(held.get("process"))):
        return
    who = f"process {held.get('process')} on {held.get('machine')}"
    raise InputError(f"{path}: {who} is at work here; wait for it or choose --out, or remove this file if it has ended")


def _remove(path: Path) -> None:
    """Remove what a dead process left; of two that do so one may find that the other has made its own by now."""
    aside = path.with_name(f"{path.name}-{os.getpid()}")
    os.rename(path, aside)
    try:
        check(aside)
    except InputError:
        os.rename(aside, path)
        raise
    aside.unlink()


def _made(path: Path, told: dict[str, Any]) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    with open(handle, "w", encoding="utf-8") as file:
        json.dump(told, file)
    return True


def _read(path: Path) -> dict[str, Any] | None:
    """Return what the file tells, {} where it is not written yet, None where there is none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _alive(process: Any) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, TypeError, ValueError):
        return False
    except OSError:
        pass
    return True
