"""Packages: bundles of files (a folder, an archive, or memory) that may hold articles, opened without trusting them.

Nothing is ever extracted to a path that an archive names, so `../` and absolute members cannot do harm; an archive that
holds such members, links or devices is refused all the same, as it was made by no publisher.
"""

from __future__ import annotations

import abc
import bz2
import gzip
import io
import lzma
import re
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, cast

from medvlm.data.sources.pmc.media import MediaIndex

MAX_MEMBERS = 1_000_000
"""Files in one archive: an `oa_bulk` archive covers the articles of a million PMC ids."""
MAX_MEMBER_BYTES = 1 << 30
"""Uncompressed size of one file: 1 GiB, far beyond any figure."""
MAX_ARCHIVE_BYTES = 32 << 30
"""Uncompressed size of one archive: 32 GiB."""
MAX_RATIO = 200
"""Uncompressed over compressed size; XML reaches about 20. Counted only beyond `RATIO_FREE_BYTES`."""
RATIO_FREE_BYTES = 64 << 20
"""Below 64 MiB no ratio is a danger (a blank TIFF compresses a thousandfold)."""

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz", ".zip")
XML_SUFFIXES = (".nxml", ".xml")

HEAD_BYTES = 65536
"""Enough of an XML file to tell whether it is an article."""

_SPOOL_BYTES = 32 << 20
_CHUNK = 1 << 20


class PackageError(Exception):
    """A package or one of its files cannot be used; `reason` is the key that is counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Package(abc.ABC):
    """Files by their relative POSIX names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.indexes: dict[str, MediaIndex] = {}
        """Folder -> the pictures that its articles may mean; filled by the reader."""

    @abc.abstractmethod
    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            PackageError: the file is absent, damaged or too large.
        """

    def head(self, name: str) -> bytes:
        """Return at least the first `HEAD_BYTES` of a file (or all of it), as cheaply as the package allows.

        Raises:
            PackageError: as `read`.
        """
        return self.read(name)


class MemoryPackage(Package):
    """Files held in memory, as the embedded sample makes them."""

    def __init__(self, name: str, files: Mapping[str, bytes]) -> None:
        super().__init__(name)
        self._files = dict(files)
        self._names = sorted(files)

    def names(self) -> list[str]:
        return self._names

    def read(self, name: str) -> bytes:
        if name not in self._files:
            raise PackageError("file cannot be read", name)
        return self._files[name]


class FolderPackage(Package):
    """Files of a folder on disk and of the folders in it that are no packages of their own (see `folder_names`)."""

    def __init__(self, name: str, root: Path) -> None:
        super().__init__(name)
        self._root = root
        try:
            self._names = folder_names(root)
        except OSError as error:
            raise PackageError("folder cannot be read", str(error.strerror)) from error

    def names(self) -> list[str]:
        return self._names

    def read(self, name: str) -> bytes:
        return self._read(name, MAX_MEMBER_BYTES + 1)

    def head(self, name: str) -> bytes:
        return self._read(name, HEAD_BYTES)

    def _read(self, name: str, size: int) -> bytes:
        try:
            with open(self._root / name, "rb") as file:
                data = file.read(size)
        except OSError as error:
            raise PackageError("file cannot be read", f"{name}: {error.strerror}") from error
        if len(data) > MAX_MEMBER_BYTES:
            raise PackageError("file too large", f"{name}: more than {MAX_MEMBER_BYTES} bytes")
        return data


def folder_names(root: Path) -> list[str]:
    """Return the files of `root`, and of the folders in it that hold no XML (and so are no packages of their own)."""
    names: list[str] = []
    for path in sorted(root.iterdir()):
        if path.is_file():
            names.append(path.name)
        elif path.is_dir():
            below = sorted(p.name for p in path.iterdir() if p.is_file())
            if not any(is_xml(n) for n in below):
                names.extend(f"{path.name}/{n}" for n in below)
    return names


class ZipPackage(Package):
    """A zip archive on disk or in memory."""

    def __init__(self, name: str, file: Path | IO[bytes]) -> None:
        super().__init__(name)
        try:
            self._zip = zipfile.ZipFile(file)
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise PackageError("archive cannot be read", str(error)) from error
        self._members = self._checked()
        self._names = sorted(self._members)

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        total = packed = 0
        for info in self._zip.infolist():
            check_name(info.filename)
            kind = (info.external_attr >> 16) & 0o170000
            if kind not in (0, 0o100000, 0o040000):
                raise PackageError("unsafe archive member", f"{info.filename} is a link or device")
            if info.is_dir():
                continue
            total, packed = total + info.file_size, packed + info.compress_size
            check_size(info.filename, info.file_size, info.compress_size)
            members[info.filename] = info
        check_total(len(members), total, packed)
        return members

    def names(self) -> list[str]:
        return self._names

    def read(self, name: str) -> bytes:
        return self._read(name, -1)

    def head(self, name: str) -> bytes:
        return self._read(name, HEAD_BYTES)

    def _read(self, name: str, size: int) -> bytes:
        if name not in self._members:
            raise PackageError("file cannot be read", name)
        try:
            with self._zip.open(self._members[name]) as file:
                return file.read(size)
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            raise PackageError("archive cannot be read", f"{name}: {error}") from error


class TarPackage(Package):
    """A tar archive. A compressed one is unpacked once into a temporary file, for random access.

    Of each member only its place is kept, so that archives of a whole collection fit into memory.
    """

    def __init__(self, name: str, file: IO[bytes], size: int) -> None:
        super().__init__(name)
        try:
            self._file = _unpacked(file, size)
            weakref.finalize(self, self._file.close)
            self._members = self._checked()
        except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError, ValueError) as error:
            raise PackageError("archive cannot be read", str(error)) from error
        self._names = sorted(self._members)

    def _checked(self) -> dict[str, tuple[int, int]]:
        """Return name -> place and size of each file."""
        members: dict[str, tuple[int, int]] = {}
        total = 0
        with tarfile.open(fileobj=self._file, mode="r:", errorlevel=1) as tar:
            while info := tar.next():
                tar.members = []  # type: ignore[attr-defined]  # else every header is kept
                check_name(info.name)
                if info.isdir():
                    continue
                if not info.isfile() or info.issparse():
                    raise PackageError("unsafe archive member", f"{info.name} is a link or device")
                check_size(info.name, info.size, info.size)
                total += info.size
                members[info.name.removeprefix("./")] = info.offset_data, info.size
                check_total(len(members), total, total)
        return members

    def names(self) -> list[str]:
        return self._names

    def read(self, name: str) -> bytes:
        return self._read(name, MAX_MEMBER_BYTES)

    def head(self, name: str) -> bytes:
        return self._read(name, HEAD_BYTES)

    def _read(self, name: str, most: int) -> bytes:
        if name not in self._members:
            raise PackageError("file cannot be read", name)
        place, size = self._members[name]
        try:
            self._file.seek(place)
            data = self._file.read(min(size, most))
        except (OSError, ValueError) as error:
            raise PackageError("archive cannot be read", f"{name}: {error}") from error
        if len(data) != min(size, most):
            raise PackageError("archive cannot be read", f"{name}: cut short")
        return data


_COMPRESSED: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file)),
    b"BZh": lambda file: cast(IO[bytes], bz2.BZ2File(file)),
    b"\xfd7zXZ\x00": lambda file: cast(IO[bytes], lzma.LZMAFile(file)),  # noqa: SIM115
}


def _unpacked(file: IO[bytes], size: int) -> IO[bytes]:
    """Return `file`, or its content decompressed into a temporary file within the limits (and `file` closed)."""
    magic = file.read(6)
    file.seek(0)
    opener = next((o for start, o in _COMPRESSED.items() if magic.startswith(start)), None)
    if opener is None:
        return file
    spool = cast(IO[bytes], tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES))  # noqa: SIM115
    total = 0
    try:
        with file, opener(file) as stream:
            while chunk := stream.read(_CHUNK):
                total += len(chunk)
                check_total(0, total, size)
                spool.write(chunk)
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    return spool


def open_archive(name: str, path: Path) -> Package:
    """Open an archive on disk by its suffix; `name` is what rejects call it.

    Raises:
        PackageError: it is damaged, unsafe, or a decompression bomb.
    """
    try:
        if path.name.lower().endswith(".zip"):
            return ZipPackage(name, path)
        return TarPackage(name, open(path, "rb"), path.stat().st_size)
    except OSError as error:
        raise PackageError("archive cannot be read", str(error.strerror)) from error


def open_nested(name: str, data: bytes) -> Package:
    """Open an archive that lies in another one; the same limits hold.

    Raises:
        PackageError: as `open_archive`.
    """
    if name.lower().endswith(".zip"):
        return ZipPackage(name, io.BytesIO(data))
    return TarPackage(name, io.BytesIO(data), len(data))


def printable(name: str) -> str:
    """Return a file name that can be written as UTF-8: bytes that were none are shown as `\\udc..`."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode("utf-8")


def is_archive(name: str) -> bool:
    """Tell by its name whether a file is an archive that can be opened."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def is_xml(name: str) -> bool:
    """Tell by its name whether a file is XML (macOS's `._` shadow files are not)."""
    return name.lower().endswith(XML_SUFFIXES) and not name.rpartition("/")[2].startswith("._")


Declared = Mapping[str, tuple[str, int]]
"""File -> article and number of the version."""

_VERSIONED = re.compile(r"(PMC\d+)\.(\d+)(?=\.|$)", re.IGNORECASE)
_REVISED = re.compile(r"([\w.-]*\d{4}[\w.-]*)-v(\d+)(?=\.|$)", re.IGNORECASE)


def older_versions(names: Iterable[str], declared: Declared | None = None) -> dict[str, str]:
    """Return older version -> newest version among files that carry one in their names, or declare one.

    PMC numbers the versions of an article in the names of its file, folder or package (`PMC7.1/`, `PMC7.2.tar.gz`);
    publishers number those in one folder (`elife-30274-v1.xml`). Copies of one version are no versions of each other.

    Args:
        names: the files.
        declared: file -> article and version, as the XML of files states it whose names do not.
    """
    older: dict[str, str] = {}
    for numbered in _by_article(names, declared).values():
        newest = max(numbered)
        older |= {name: newest[1] for number, name in numbered if number < newest[0]}
    return older


def spare_versions(older: Mapping[str, str], declared: Declared | None = None) -> set[str]:
    """Return, of the older versions of each article, the newest: what is read where the newest of all cannot be."""
    return {max(numbered)[1] for numbered in _by_article(older, declared).values()}


def _by_article(names: Iterable[str], declared: Declared | None) -> dict[tuple[str, str], list[tuple[int, str]]]:
    versions: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name in names:
        stated = (declared or {}).get(name)
        found = _version_of(name) or (stated and (("", stated[0]), stated[1]))
        if found:
            versions.setdefault(found[0], []).append((found[1], name))
    return versions


def _version_of(name: str) -> tuple[tuple[str, str], int] | None:
    """Return what a name says about its article (folder, name) and the number of its version."""
    folder, _, base = name.rpartition("/")
    for part in (base, folder.rpartition("/")[2]):
        if match := _VERSIONED.match(part):
            return ("", match[1].upper()), int(match[2])
    match = _REVISED.match(base)
    return ((folder, match[1].lower()), int(match[2])) if match else None


def check_name(name: str) -> None:
    """Refuse names that point outside the archive.

    Raises:
        PackageError: the name is absolute, has `..` parts, backslashes, a drive letter or a NUL.
    """
    parts = re.split(r"[/\\]", name)
    if not name or name[0] in "/\\" or ".." in parts or "\0" in name or re.match(r"[A-Za-z]:", name):
        raise PackageError("unsafe archive member", name[:200])


def check_size(name: str, size: int, packed: int) -> None:
    """Refuse a member that is too large, alone or against its compressed size.

    Raises:
        PackageError: see the limits at the top of this file.
    """
    if size > MAX_MEMBER_BYTES or (size > RATIO_FREE_BYTES and size > MAX_RATIO * max(packed, 1)):
        raise PackageError("decompression bomb", f"{name[:200]}: {size} bytes from {packed}")


def check_total(members: int, size: int, packed: int) -> None:
    """Refuse an archive that is too large as a whole.

    Raises:
        PackageError: see the limits at the top of this file.
    """
    too_dense = size > RATIO_FREE_BYTES and size > MAX_RATIO * max(packed, 1)
    if members > MAX_MEMBERS or size > MAX_ARCHIVE_BYTES or too_dense:
        raise PackageError("decompression bomb", f"{members} files, {size} bytes from {packed}")
