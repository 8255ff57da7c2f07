"""Pictures that records name: in a folder, in a zip archive as it was fetched, in base64, or in a parquet cell.

A name leads to a plain file within its folder, or to nothing: no absolute path, no "..", no link out of it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import os
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from medvlm.data.look import PictureError, examine
from medvlm.data.sample import Image
from medvlm.errors import InputError

FILE_BYTES = 512 << 20
"""A larger file is no picture to train on; what a zip archive unpacks to is bounded by it too."""
KEPT_BYTES = 64 << 20
"""So many bytes of pictures are kept, since several records often share one."""
KEPT_NAMES = 4096
"""So many names are kept, those without a picture among them."""

NO_FILE = "no image file"


class Pictures:
    """The pictures of one folder.

    Args:
        root: the folder that names are relative to; it need not exist.
        archives: zip files as published; a name is looked for in them where the folder does not have it.
        inside: the folder within an archive that corresponds to `root`: "imgs".
        endings: tried where a name has none of its own: (".jpg",).
    """

    def __init__(
        self, root: Path, archives: Sequence[Path] = (), inside: str = "", endings: Sequence[str] = ()
    ) -> None:
        self.root, self.inside, self.endings = root, inside, tuple(endings)
        self.archives = [path for path in archives if path.is_file()]
        self._kept: OrderedDict[str, Image | PictureError] = OrderedDict()
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        # What is kept would travel to worker processes.
        return {**self.__dict__, "_kept": OrderedDict(), "_bytes": 0}

    def load(self, name: str) -> Image | PictureError:
        """Return a picture, its name the file's own, or why there is none."""
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        found = self._find(name)
        self._keep(name, found)
        return found

    def there(self) -> bool:
        """Whether there is a folder or an archive to look in at all."""
        return bool(self.archives) or self.root.is_dir()

    def _keep(self, name: str, found: Image | PictureError) -> None:
        self._kept[name] = found
        self._bytes += _weight(found)
        while len(self._kept) > 1 and (self._bytes > KEPT_BYTES or len(self._kept) > KEPT_NAMES):
            _, old = self._kept.popitem(last=False)
            self._bytes -= _weight(old)

    def _find(self, name: str) -> Image | PictureError:
        if not safe(name):
            return PictureError("unsafe image name", name[:200])
        plain = name.replace("\\", "/")  # as tables made on Windows write it
        names = [plain, *(plain + ending for ending in self.endings)]
        try:
            for one in names:
                if (path := within(self.root, one)) is not None:
                    return _picture(_file(path), path.name)
            for archive in self.archives:
                for one in names:
                    if (data := _member(archive, f"{self.inside}/{one}" if self.inside else one)) is not None:
                        return _picture(data, PurePosixPath(one).name)
        except PictureError as error:
            return PictureError(error.reason, f"{name}: {error.detail}" if error.detail else name)
        except InputError as error:
            return PictureError("archive cannot be read", str(error))
        return PictureError(NO_FILE, name)


def _weight(found: Image | PictureError) -> int:
    return len(found.data) if isinstance(found, Image) else 0


def safe(name: str) -> bool:
    """Whether a name can only mean a file below its folder."""
    parts = name.replace("\\", "/").split("/")
    return bool(name) and "\0" not in name and ":" not in parts[0] and "" not in parts and ".." not in parts


def within(root: Path, name: str) -> Path | None:
    """Return the plain file that a safe name leads to below `root`, None where there is none.

    Raises:
        PictureError: a link leads out of the folder, or the name cannot be looked up.
    """
    path = root / name
    try:
        if not path.is_file():  # nor a pipe, which would be waited for
            return None
        if not path.resolve().is_relative_to(root.resolve()):
            raise PictureError("link out of the folder", name)
    except (OSError, ValueError) as error:
        raise PictureError("image cannot be read", str(error)) from error
    return path


def from_base64(text: str, name: str) -> Image | PictureError:
    """Return the picture in a text of base64, with or without "data:image/png;base64," before it."""
    head, comma, rest = text[:64].partition(",")
    body = rest + text[64:] if comma and head.startswith("data:") else text
    if len(body) > FILE_BYTES:
        return PictureError("image too large", name)
    try:
        return _picture(base64.b64decode("".join(body.split()), validate=True), name)
    except (binascii.Error, ValueError) as error:
        return PictureError("image cannot be read", f"{name}: not base64 ({error})")
    except PictureError as error:
        return PictureError(error.reason, f"{name}: {error.detail}")


def from_cell(cell: Any, name: str) -> Image | PictureError:
    """Return the picture of a parquet cell as `datasets` stores it: {"bytes", "path"}, or the bytes alone.

    Args:
        cell: what the file holds.
        name: of the picture where the cell gives none.
    """
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes) or not data:
        return PictureError("empty image" if isinstance(data, bytes) else NO_FILE, name)
    try:
        return _picture(data, cell_name(cell) or name)
    except PictureError as error:
        return PictureError(error.reason, f"{name}: {error.detail}")


def cell_name(cell: Any) -> str:
    """Return the file name that a parquet cell gives its picture, "" where it gives none."""
    path = cell.get("path") if isinstance(cell, dict) else None
    return PurePosixPath(path).name if isinstance(path, str) else ""


def _picture(data: bytes, name: str) -> Image:
    return Image(data, name, examine(data))


def _file(path: Path) -> bytes:
    try:
        if path.stat().st_size > FILE_BYTES:
            raise PictureError("image too large", f"{path.stat().st_size / 1e6:,.0f} MB")
        return path.read_bytes()
    except OSError as error:
        raise PictureError("image cannot be read", str(error.strerror)) from error


@functools.lru_cache(maxsize=8)
def _archive(path: str, pid: int) -> zipfile.ZipFile:
    """Open an archive once in each process."""
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # a damaged directory makes it raise nearly anything
        raise InputError(f"{path}: not a zip archive that can be read ({error}); fetch it again") from error


def _member(archive: Path, name: str) -> bytes | None:
    """Return a member's bytes, None where the archive has none of that name.

    Raises:
        PictureError: it is damaged, encrypted, or unpacks to too much.
    """
    opened = _archive(str(archive), os.getpid())
    try:
        info = opened.getinfo(name)
    except KeyError:
        return None
    try:
        # The stated size may lie: no more than the bound is unpacked whatever it says.
        with opened.open(info) as file:
            data = file.read(FILE_BYTES + 1)
    except Exception as error:  # so do damaged members, by their way of packing: zlib.error, LZMAError, struct.error
        raise PictureError("image cannot be read", f"{archive.name}: {error}") from error
    if len(data) > FILE_BYTES:
        raise PictureError("image too large", f"{archive.name}: unpacks to more than {FILE_BYTES >> 20} MiB")
    return data
