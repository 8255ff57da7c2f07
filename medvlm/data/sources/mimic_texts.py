"""The reports of MIMIC-CXR: plain files, or members of mimic-cxr-reports.zip as it was fetched."""

from __future__ import annotations

import functools
import os
import zipfile
import zlib
from pathlib import Path

from medvlm.data.look import PictureError
from medvlm.data.sources.pictures import within
from medvlm.data.sources.records import FIELD_CHARS, Bad

ARCHIVE = "mimic-cxr-reports.zip"
TEXT_FOLDERS = ("mimic-cxr-reports/files", "mimic-cxr-reports", "files")
"""Where the reports of an input may lie unpacked."""


def report(folders: tuple[str, ...], name: str) -> str | Bad:
    """Return the text of a report, or why it cannot be had.

    Args:
        folders: the inputs, looked through in order.
        name: of the study: "p10/p10000032/s50414267".
    """
    try:
        for folder in folders:
            for place in TEXT_FOLDERS:
                if (path := within(Path(folder, place), f"{name}.txt")) is not None:
                    return _text(_read(path))
            if (archive := Path(folder, ARCHIVE)).is_file() and (
                data := _member(archive, f"files/{name}.txt")
            ) is not None:
                return _text(data)
    except PictureError as error:
        return Bad("report cannot be read", error.detail or error.reason)
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        return Bad("report cannot be read", " ".join(str(error).split())[:160])
    return Bad("no report", f"files/{name}.txt")


def _text(data: bytes) -> str | Bad:
    if len(data) > FIELD_CHARS:
        return Bad("report cannot be read", f"longer than {FIELD_CHARS:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Bad("report cannot be read", f"not UTF-8 (byte {error.start})")


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(FIELD_CHARS + 1)


@functools.lru_cache(maxsize=4)
def _archive(path: str, pid: int) -> zipfile.ZipFile:
    """Open an archive once in each process."""
    return zipfile.ZipFile(path)


def _member(archive: Path, name: str) -> bytes | None:
    """Return a member's bytes up to the bound, None where the archive has none of that name."""
    opened = _archive(str(archive), os.getpid())
    try:
        info = opened.getinfo(name)
    except KeyError:
        return None
    with opened.open(info) as file:
        return file.read(FIELD_CHARS + 1)
