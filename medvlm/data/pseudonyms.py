"""Stand-ins for patient and study numbers, and shifts of dates, from one secret key in a file outside the data set.

A stand-in is the HMAC-SHA256 (RFC 2104) of the number under the key: the same number gets the same stand-in in every
run with that key, and without the key neither a table of all numbers nor trying them out leads back. A plain hash
would not do: record numbers are few enough to hash them all. Whoever has the key can recompute every stand-in and
every shift, so these are pseudonyms and no anonymity: keep the key from those who get the data, or delete it when
nothing is to be added.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import os
import re
import secrets
import shlex
import stat
import tempfile
from pathlib import Path

from medvlm.errors import InputError, UsageError
from medvlm.io import disk_errors

DIGITS = 16
"""Hex digits of a stand-in: 64 bits, so that two of a million numbers meet with a chance of 3 in 100 million."""
LONGEST_SHIFT = 365
"""Days that dates go back at most."""

_FORM = re.compile(rb"[0-9a-fA-F]{64}")
_FILE_LIMIT = 1024
_ABSENT_ON_WINDOWS = ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A secret of 32 bytes. Pickled it carries the secret: hand it to worker processes, write it nowhere."""

    secret: bytes = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != 32:
            raise ValueError("a key has 32 bytes")

    @classmethod
    def load(cls, path: Path, outside: Path) -> Key:
        """Read the key in file `path`, or make one there that only the user may read.

        Args:
            path: the file: 64 hex digits.
            outside: the data set's folder, which need not exist yet; the key may lie nowhere below it.

        Raises:
            UsageError: `path` leads into the data set's folder, also by a link or by "..".
            InputError: the file cannot be read or made, holds no key, or others may read it.
            ResourceError: the disk is full.
        """
        real = _resolve(path)
        if _is_inside(real, _resolve(outside)):
            raise UsageError(
                f"{path}: a key inside the data set's folder {outside} goes along with every copy; name a file outside"
            )
        try:
            if not os.path.lexists(real):
                _make(real, path)
            return cls(_read(real, path))
        except OSError as error:
            raise InputError(
                f"{path}: cannot read or make the key: {error.strerror or error}; name a file you may read and write"
            ) from None

    def pseudonym(self, kind: str, value: str) -> str:
        """Return the stand-in of a number: `DIGITS` hex digits.

        Args:
            kind: what the number counts ("patient", "study"): equal numbers of two kinds get two stand-ins.
            value: the number exactly as it is to be told apart, without padding. All that have no number would share
                the stand-in of "": give them something else, the study's for instance.
        """
        return self._digest("pseudonym", kind, value).hex()[:DIGITS]

    def shift(self, patient: str) -> int:
        """Return by how many days to move all dates of a patient: -1 to -`LONGEST_SHIFT`.

        Intervals within a patient stay as they were (the DICOM option "Retain Longitudinal Temporal Information with
        Modified Dates", PS3.15 E.3.6); seasons and weekdays do not.
        """
        number = int.from_bytes(self._digest("shift", patient)[:16], "big")
        return -1 - number % LONGEST_SHIFT

    @property
    def fingerprint(self) -> str:
        """16 hex digits that tell keys apart and do not give them away: may be written beside the data."""
        return self._digest("fingerprint").hex()[:16]

    def _digest(self, *parts: str) -> bytes:
        message = b""
        for part in parts:
            # Lone surrogates are what undecodable bytes become; lengths keep ("ab", "c") from ("a", "bc").
            data = part.encode("utf-8", "surrogatepass")
            message += len(data).to_bytes(8, "big") + data
        return hmac.digest(self.secret, message, hashlib.sha256)


def _resolve(path: Path) -> Path:
    """Return `path` without links and ".."; what it names need not exist."""
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        # A loop of links, an unknown ~user, a NUL in the name.
        raise InputError(f"{str(path)!r}: not a usable path: {error}") from None


def _is_inside(path: Path, folder: Path) -> bool:
    """Return True where `path` is `folder` or below it, by the files' identity where names may differ in case."""
    for place in (path, *path.parents):
        if place == folder:
            return True
        with contextlib.suppress(OSError):
            if place.samefile(folder):
                return True
    return False


def _make(real: Path, shown: Path) -> None:
    """Write a new key to `real`: whole from its first moment, and never over one that another process just made."""
    with disk_errors(shown):
        real.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(prefix=".key.", dir=real.parent)
        try:
            with open(handle, "wb") as file:
                file.write(secrets.token_hex(32).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o600)
            # Unlike a rename, a link replaces nothing: of two processes one wins, and both read its key.
            with contextlib.suppress(FileExistsError):
                os.link(name, real)
        finally:
            os.unlink(name)


def _read(real: Path, shown: Path) -> bytes:
    """Return the 32 bytes in the file, having looked at what kind of file was opened and who else may read it."""
    flags = os.O_RDONLY
    for name in _ABSENT_ON_WINDOWS:
        flags |= getattr(os, name, 0)
    with open(os.open(real, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{shown}: is no plain file; name a file for the key")
        if os.name == "posix" and status.st_mode & 0o077:
            raise InputError(f"{shown}: others may read or change the key; run: chmod 600 {shlex.quote(str(shown))}")
        content = file.read(_FILE_LIMIT).strip()
    if not _FORM.fullmatch(content):
        raise InputError(f"{shown}: holds no key of 64 hex digits; name the right file, or one that is not there yet")
    return bytes.fromhex(content.decode("ascii"))
