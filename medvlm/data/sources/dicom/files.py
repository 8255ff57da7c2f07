"""The files below the inputs, in a fixed order: every one is listed, and what cannot be read is listed with its reason.

Files are told by what they hold, not by their names. A link is followed only to a file that lies in the same input.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from medvlm.data.pseudonyms import Key
from medvlm.errors import InputError
from medvlm.io import sha256_file

HASHED_BYTES = 2 << 30
"""Inputs of more bytes are told apart by the names and sizes of their files: hashing terabytes takes hours."""


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One file of an input, or why it cannot be read."""

    place: str
    """Number of the input, a colon, and the path below it, quoted as in addresses: "0:CT/000001"."""
    size: int = 0
    problem: str = ""


class Inputs:
    """The folders, DICOMDIR files and single files of --input."""

    def __init__(self, inputs: Sequence[Path | str]) -> None:
        self.paths = [Path(path) for path in inputs]

    def check(self) -> None:
        """Make sure that all inputs are there.

        Raises:
            InputError: one is not, or is an archive.
        """
        for path in self.paths:
            if not path.exists():
                raise InputError(f"{path}: no such file or folder; --input takes folders, DICOMDIR and DICOM files")
            if path.is_file() and path.suffix.lower() in (".zip", ".tar", ".gz", ".7z", ".rar"):
                raise InputError(f"{path}: an archive; unpack it, then name the folder")
            if not path.is_file() and not path.is_dir():
                raise InputError(f"{path}: neither a file nor a folder; name one")

    def root(self, number: int) -> Path:
        """Return the folder that the paths of an input are below."""
        path = self.paths[number]
        return path if path.is_dir() else path.parent

    def path(self, place: str) -> Path:
        """Return where a file lies."""
        number, below = _parts(place)
        return self.root(number) / below

    def files(self) -> Iterator[Found]:
        """Yield every file of every input, sorted within each."""
        for number, path in enumerate(self.paths):
            if path.is_dir():
                for found in _walk(path.resolve()):
                    yield dataclasses.replace(found, place=_place(number, found.place))
            else:
                yield Found(_place(number, path.name), path.stat().st_size)

    def referenced(self, place: str, names: Sequence[str]) -> Found:
        """Return the file that a DICOMDIR at `place` names by its components (PS3.10, 8.5).

        Media written as ISO 9660 may show names in lower case. A name that leads elsewhere is refused.
        """
        number, below = _parts(place)
        folder = PurePosixPath(below).parent
        parts = [name.strip() for name in names]
        if not parts or any(part in ("", ".", "..") or "/" in part or "\\" in part or "\0" in part for part in parts):
            return Found(f"{place}>{len(names)}", problem="unsafe path in DICOMDIR")
        for spelled in (parts, [part.lower() for part in parts], [part.upper() for part in parts]):
            below = str(folder.joinpath(*spelled))
            path = self.root(number) / below
            if path.is_file() and path.resolve().is_relative_to(self.root(number).resolve()):
                return Found(_place(number, below), path.stat().st_size)
        return Found(_place(number, str(folder.joinpath(*parts))), problem="file of DICOMDIR is missing")

    def describe(self, key: Key) -> list[dict[str, Any]]:
        """Return one entry for each input, without its name: a path can name a patient.

        The hash is keyed, so that it does not tell who was in the input to somebody who has other copies of the files.
        """
        self.check()
        found = list(self.files())
        contents = sum(file.size for file in found) <= HASHED_BYTES
        entries = []
        for number in range(len(self.paths)):
            digest, size, count = hashlib.sha256(), 0, 0
            for file in found:
                if not file.place.startswith(f"{number}:"):
                    continue
                told = self._told(file.place) if contents and not file.problem else str(file.size)
                digest.update(f"{file.place}\0{told}\n".encode())
                size, count = size + file.size, count + 1
            digits = "".join(key.pseudonym(f"input {part}", digest.hexdigest()) for part in range(4))
            entries.append({"path": f"input {number + 1} ({count} files)", "sha256": digits, "bytes": size})
        return entries

    def _told(self, place: str) -> str:
        """Return the hash of a file; what cannot be read here is a counted reason where samples are made."""
        try:
            return sha256_file(self.path(place))
        except OSError as error:
            return type(error).__name__


def _place(number: int, below: str) -> str:
    """Return how a file is named within the program: names of any bytes become plain text."""
    return f"{number}:{quote_from_bytes(os.fsencode(below))}"


def _parts(place: str) -> tuple[int, str]:
    number, _, below = place.partition(":")
    return int(number), os.fsdecode(unquote_to_bytes(below))


def _walk(root: Path) -> Iterator[Found]:
    """Yield the files of a folder and of those in it, as deep as they go; `root` is the input without links."""
    folders = [""]
    while folders:
        below = folders.pop()
        try:
            entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
        except OSError:
            yield Found(below or ".", problem="folder cannot be read")
            continue
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield _file(root, Path(entry.path), below + entry.name)
        folders += [f"{below}{entry.name}/" for entry in reversed(entries) if entry.is_dir(follow_symlinks=False)]


def _file(root: Path, path: Path, name: str) -> Found:
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            return Found(name, problem="link out of the folder")
        status = path.stat()
    except (OSError, RuntimeError):
        return Found(name, problem="file cannot be read")
    if stat.S_ISDIR(status.st_mode):
        return Found(name, problem="link to a folder")
    if not stat.S_ISREG(status.st_mode):
        return Found(name, problem="not a file")
    return Found(name, status.st_size)
