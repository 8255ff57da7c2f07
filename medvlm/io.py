"""Files that are whole or absent: atomic writes, hashes, JSON with one fixed form."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from medvlm.errors import ResourceError, UsageError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space left, quota exceeded, file too large for the disk or the limit of the process."""


@contextlib.contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn a full disk or an exceeded quota into one clear `ResourceError` naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise ResourceError(f"{path}: no space left on the disk; free some or choose another folder") from error
        raise


@contextlib.contextmanager
def resource_errors(
    path: Path | str, hint: str, again: str = "free some, then go on with the same run"
) -> Iterator[None]:
    """Turn exhausted disk or memory, in whatever words a library says it, into one clear `ResourceError`.

    Args:
        path: where is written; its disk is looked at when a library's own writer fails.
        hint: what to set when memory runs out.
        again: what to do when the disk is full.
    """
    try:
        yield
    except Exception as error:
        # torch.OutOfMemoryError by its name, since torch is not loaded here.
        memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if memory or "can't allocate memory" in str(error):
            raise ResourceError(f"out of memory; {hint}") from error
        if isinstance(error, ResourceError) or not _disk_full(Path(path), error):
            raise
        raise ResourceError(f"{path}: no space left on the disk; {again}") from error


_SAYS_DISK_FULL = re.compile(
    r"No space left|Disk quota exceeded|File too large|\(os error (?:" + "|".join(map(str, DISK_FULL)) + r")\)"
)
"""As libraries in Rust and C++ put it into their errors' texts."""


def _disk_full(path: Path, error: BaseException) -> bool:
    """Return True where an error, or what caused it, is about a full disk; some writers only say that they failed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in DISK_FULL:
            return True
        if _SAYS_DISK_FULL.search(str(cause)):
            return True
        cause = cause.__cause__ or cause.__context__
    # torch's writer of zip files says only that fewer bytes went out than it gave.
    if any(words in str(error) for words in ("PytorchStreamWriter failed", "unexpected pos")):
        return True
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return type(error).__name__ == "SafetensorError" and shutil.disk_usage(there).free < 1 << 20


@contextlib.contextmanager
def atomic_write(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that takes its name only when the block ends well.

    Args:
        path: final name; its folder is made if absent.
        mode: "w" for UTF-8 text with "\\n" line ends, "wb" for bytes.

    Raises:
        ResourceError: the disk is full. The old file, if any, is untouched.
    """
    path = Path(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(handle, mode, **text) as file:  # type: ignore[call-overload]
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files private; give them what the umask would have given.
            os.chmod(name, 0o666 & ~current_umask())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise


def current_umask() -> int:
    """Return the process's umask (which can only be read by setting it)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def check_plain(path: Path, option: str) -> None:
    """Make sure that nothing is at `path`, or a plain file: an atomic write would put one in a device's place.

    Raises:
        UsageError: there is something else; `option` is what named it.
    """
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a folder; name a file")
    if path.exists() and not path.is_file():
        raise UsageError(f"{option} {path}: is no plain file, and would be replaced by one; name another file")


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path` atomically as UTF-8."""
    with atomic_write(path) as file:
        file.write(text)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON with keys in the given order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stable_hash(value: Any) -> str:
    """Return the SHA-256 of `value` as canonical JSON (sorted keys, no blanks)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256_bytes(text.encode())
