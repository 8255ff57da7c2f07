"""Files that are whole or absent: atomic writes, hashes, JSON with one fixed form."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from medvlm.errors import ResourceError


@contextlib.contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn a full disk or an exceeded quota into one clear `ResourceError` naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(f"{path}: no space left on the disk; free some or choose another folder") from error
        raise


@contextlib.contextmanager
def resource_errors(path: Path | str, hint: str) -> Iterator[None]:
    """Turn exhausted disk or memory, in whatever words a library says it, into one clear `ResourceError`.

    Args:
        path: where is written; its disk is looked at when a library's own writer fails.
        hint: what to set when memory runs out.
    """
    try:
        with disk_errors(path):
            yield
    except Exception as error:
        # torch.OutOfMemoryError by its name, since torch is not loaded here.
        memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if memory or "can't allocate memory" in str(error):
            raise ResourceError(f"out of memory; {hint}") from error
        if isinstance(error, ResourceError) or not _disk_full(Path(path), error):
            raise
        raise ResourceError(f"{path}: no space left on the disk; free some, then go on with the same run") from error


def _disk_full(path: Path, error: BaseException) -> bool:
    """Return True where an error, or what caused it, is about a full disk; some writers only say that they failed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(cause) for words in ("No space left", "os error 28")):
            return True
        cause = cause.__cause__ or cause.__context__
    writer = type(error).__name__ == "SafetensorError" or "inline_container" in str(error)
    return writer and path.exists() and shutil.disk_usage(path).free < 1 << 20


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
