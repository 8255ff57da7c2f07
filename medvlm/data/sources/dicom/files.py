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

from medvlm.data.pseudonyms import Key
from medvlm.errors import InputError
from medvlm.io import sha256_file

HASHED_BYTES = 2 << 30
"""Inputs of more bytes are told apart by the names and sizes of their files: hashing terabytes takes hours."""


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One file of an input, or why it cannot be read."""

    place: str
    """Number of the input, a colon, and the path below it: "0:CT/000001"."""
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
        number, _, below = place.partition(":")
        return self.root(int(number)) / below

    def files(self) -> Iterator[Found]:
        """Yield every file of every input, sorted within each."""
        for number, path in enumerate(self.paths):
            if path.is_dir():
                for found in _walk(path.resolve(), path, ""):
                    yield dataclasses.replace(found, place=f"{number}:{found.place}")
            else:
                yield Found(f"{number}:{path.name}", path.stat().st_size)

    def referenced(self, place: str, names: Sequence[str]) -> Found:
        """Return the file that a DICOMDIR at `place` names by its components (PS3.10, 8.5).

        Media written as ISO 9660 may show names in lower case. A name that leads elsewhere is refused.
        """
        number, _, below = place.partition(":")
        folder = PurePosixPath(below).parent
        parts = [name.strip() for name in names]
        if not parts or any(part in ("", ".", "..") or "/" in part or "\\" in part or "\0" in part for part in parts):
            return Found(f"{place}>{len(names)}", problem="unsafe path in DICOMDIR")
        for spelled in (parts, [part.lower() for part in parts], [part.upper() for part in parts]):
            below = str(folder.joinpath(*spelled))
            path = self.root(int(number)) / below
            if path.is_file() and path.resolve().is_relative_to(self.root(int(number)).resolve()):
                return Found(f"{number}:{below}", path.stat().st_size)
        return Found(f"{number}:{folder.joinpath(*parts)}", problem="file of DICOMDIR is missing")

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
                told = sha256_file(self.path(file.place)) if contents and not file.problem else str(file.size)
                digest.update(f"{file.place}\0{told}\n".encode("utf-8", "surrogateescape"))
                size, count = size + file.size, count + 1
            digits = "".join(key.pseudonym(f"input {part}", digest.hexdigest()) for part in range(4))
            entries.append({"path": f"input {number + 1} ({count} files)", "sha256": digits, "bytes": size})
        return entries


def _walk(root: Path, folder: Path, below: str) -> Iterator[Found]:
    """Yield the files of a folder and of those in it; `root` is the input without links."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield Found(below or ".", problem=f"folder cannot be read ({error.strerror})")
        return
    for entry in entries:
        name = f"{below}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, Path(entry.path), f"{name}/")
        else:
            yield _file(root, Path(entry.path), name)


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
