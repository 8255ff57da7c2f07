"""Predictions on disk that outlive their process: what a file holds, lines synced as they come, one writer."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medvlm.errors import InputError


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Let no other process write `path` meanwhile; the system lets go of the lock when this one dies, however it does.

    Raises:
        InputError: another process writes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{path}: another process is writing predictions there; wait for it, and what it has made is used"
            ) from None
        yield


def line(row: dict[str, Any]) -> str:
    """Return a row as its line of the file."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to the file and wait until the disk has them."""
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(map(line, rows)))
        file.flush()
        os.fsync(file.fileno())


def known(path: Path, fingerprint: str) -> dict[str, dict[str, Any]]:
    """Return the whole lines of an earlier prediction by the same model, data and decoding, by id."""
    try:
        if _fingerprint_path(path).read_text(encoding="utf-8") != fingerprint:
            return {}
        written = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    rows = {}
    # What follows the last line end was cut off by a kill, and is generated again.
    for one in written[:-1]:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            row = json.loads(one)
            rows[row["id"]] = row
    return rows


def write_fingerprint(path: Path, fingerprint: str) -> None:
    """Record beside `path` what its predictions were made by."""
    _fingerprint_path(path).write_text(fingerprint, encoding="utf-8")


def remove(path: Path) -> None:
    """Remove the file and what is recorded beside it."""
    path.unlink(missing_ok=True)
    remove_fingerprint(path)


def remove_fingerprint(path: Path) -> None:
    """Forget what the predictions of `path` were made by: they are used no more."""
    _fingerprint_path(path).unlink(missing_ok=True)


def _fingerprint_path(path: Path) -> Path:
    return path.with_name(f".{path.name.lstrip('.')}.fingerprint")
