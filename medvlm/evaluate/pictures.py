"""Pictures to be asked about, from files and folders; what cannot be read is told by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from medvlm.errors import InputError
from medvlm.io import sha256_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
DICOM = (".dcm", ".dicom")
_LATER = "DICOM is not read here; save it as PNG, or make a data set of it with `medvlm prepare dicom`"


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """Files to be read, in order, and remarks on what was passed over."""

    paths: list[Path]
    remarks: list[str]


def find(names: Iterable[Path]) -> Found:
    """Return the picture files named, and those in the folders named (at any depth, by name).

    Raises:
        InputError: a name does not exist, is a DICOM file, or nothing is left.
    """
    paths: dict[Path, None] = {}
    remarks = []
    for name in names:
        if name.is_dir():
            inside = sorted(path for path in name.rglob("*") if path.is_file() and not path.name.startswith("."))
            paths |= dict.fromkeys(path for path in inside if path.suffix.lower() in SUFFIXES)
            dicom = sum(path.suffix.lower() in DICOM for path in inside)
            if dicom:
                remarks.append(f"{name}: {dicom} DICOM files are passed over; {_LATER}")
        elif not name.is_file():
            raise InputError(f"{name}: no such picture or folder")
        elif _is_dicom(name):
            raise InputError(f"{name}: {_LATER}")
        else:
            paths[name] = None
    if not paths:
        raise InputError(f"no picture in {', '.join(map(str, names))}; expected {', '.join(SUFFIXES)} files")
    return Found(list(paths), remarks)


def _is_dicom(path: Path) -> bool:
    """Return True by the name, or by the mark behind the preamble of 128 bytes (DICOM PS3.10, section 7.1)."""
    if path.suffix.lower() in DICOM:
        return True
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def read(path: Path, advice: str = "it is left out") -> tuple[Image, str]:
    """Return a picture in RGB, upright (of several frames the first), and the SHA-256 of its file.

    `advice` ends the error's text.

    Raises:
        InputError: no picture, or damaged; one line with its name.
    """
    from medvlm.data.images import decode

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return decode(data, str(path), advice), sha256_bytes(data)
