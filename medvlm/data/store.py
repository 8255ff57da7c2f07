"""Records of one size on disk, appended in any order of pictures, read by memory map."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.errors import InputError
from medvlm.io import disk_errors

KEY_BYTES = 32


class Store:
    """Arrays of one shape by the SHA-256 of what they were made of.

    A record counts when its key is written, which happens after the record itself is on the disk: whatever a kill or a
    full disk leaves half-written is cut off by the next writer and seen by no reader.

    Args:
        folder: holds `values` (the records) and `keys` (32 bytes a record, in the same order); a writer makes it.
        shape: of a record.
        dtype: of a record's numbers, as numpy names it.
    """

    def __init__(self, folder: Path, shape: Sequence[int], dtype: str) -> None:
        self.folder, self.shape, self.dtype = folder, tuple(shape), dtype
        self.size = int(np.prod(self.shape)) * np.dtype(dtype).itemsize
        self._values: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would travel to a worker process as a copy of the whole file.
        return {**self.__dict__, "_values": None}

    def __len__(self) -> int:
        return min(_size(self.folder / "keys") // KEY_BYTES, _size(self.folder / "values") // self.size)

    def numbers(self) -> dict[bytes, int]:
        """Return key -> number of its record."""
        count = len(self)
        data = (self.folder / "keys").read_bytes()[: count * KEY_BYTES] if count else b""
        return {data[at : at + KEY_BYTES]: at // KEY_BYTES for at in range(0, len(data), KEY_BYTES)}

    def read(self, number: int) -> np.ndarray:
        """Return a copy of a record."""
        if self._values is None or number >= len(self._values):
            self._values = np.memmap(self.folder / "values", dtype=self.dtype, mode="r", shape=(len(self), *self.shape))
        return np.array(self._values[number])

    @contextlib.contextmanager
    def writer(self) -> Iterator[None]:
        """Hold the store for `append`: waits for another process that fills it.

        Raises:
            InputError: the folder cannot be written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open(self.folder / "lock", "wb")  # noqa: SIM115
        except OSError as error:
            reason = error.strerror or error
            raise InputError(
                f"{self.folder}: no cache can be written ({reason}); set MEDVLM_CACHE to a folder"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            whole = len(self)
            for name, size in (("values", self.size), ("keys", KEY_BYTES)):
                path = self.folder / name
                if _size(path) > whole * size:
                    os.truncate(path, whole * size)
            yield

    def append(self, keys: Sequence[bytes], values: np.ndarray) -> None:
        """Add records [n, ...]; only within `writer`.

        Raises:
            ResourceError: the disk is full.
        """
        with disk_errors(self.folder):
            _append(self.folder / "values", np.ascontiguousarray(values, dtype=self.dtype).tobytes())
            _append(self.folder / "keys", b"".join(keys))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _append(path: Path, data: bytes) -> None:
    with open(path, "ab", buffering=0) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
