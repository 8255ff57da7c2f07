"""From a graphic's reference to the file that holds it.

References are as varied as publishers: with an extension or without, with that of another format than the file's,
`info:doi/10.1371/journal.pone.0000217.g001`, full addresses, another case.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable

from medvlm.data.look import PictureError

QUALITY = ("tif", "tiff", "png", "jpg", "jpeg", "webp", "gif", "bmp")
"""Formats that are read, those that lose least first."""

_UNSUPPORTED = ("eps", "svg", "pdf", "ps", "ai", "emf", "wmf", "jp2")


class MediaError(PictureError):
    """A reference leads to no usable picture; `reason` is the key that is counted."""


class MediaIndex:
    """The picture files beside an article, found by reference.

    Args:
        names: names of the files, relative to the article's folder.
        prefix: the article's folder in its package, "" or ending in a slash; found names carry it.
        sole: there is one article here, so that even `…g001` may stand for `g001.png`.
    """

    def __init__(self, names: Iterable[str], prefix: str = "", sole: bool = True) -> None:
        self._prefix = prefix
        self._sole = sole
        self._by_stem: dict[str, dict[str, list[str]]] = {}
        for name in names:
            base = name.rpartition("/")[2]
            stem, dot, extension = base.rpartition(".")
            if dot and extension.lower() in QUALITY + _UNSUPPORTED:
                self._by_stem.setdefault(stem.lower(), {}).setdefault(extension.lower(), []).append(name)

    def find(self, href: str) -> list[str]:
        """Return the files that `href` may mean, the best first.

        Raises:
            MediaError: there is none, only formats that are not read, or several that fit equally well.
        """
        base = base_name(href)
        if not base:
            raise MediaError("no image reference", href[:200])
        if not self._by_stem:
            raise MediaError("no image file", href[:200])
        unsupported = ""
        for stem, wanted in self._stems(href, base):
            there = self._by_stem.get(stem.lower())
            if not there:
                continue
            found = _nearest(there, href)
            order = sorted(found, key=lambda e: (e != wanted, QUALITY.index(e) if e in QUALITY else len(QUALITY)))
            files = [self._prefix + _one(found[e], f"{stem}.{e}", href) for e in order if e in QUALITY]
            if files:
                return files
            unsupported = found[order[0]][0]
        if unsupported:
            raise MediaError("image format not supported", unsupported)
        raise MediaError("no image file", href[:200])

    def _stems(self, href: str, base: str) -> list[tuple[str, str]]:
        """Return the names without extension to look for, each with the extension that was asked for."""
        stem, dot, extension = base.rpartition(".")
        known = dot and extension.lower() in QUALITY + _UNSUPPORTED
        stems = [(stem, extension.lower())] if known else [(base, "")]
        if re.match(r"(info:doi/|doi:|10\.\d{4,9}/|https?://(dx\.)?doi\.org/)", href, re.IGNORECASE):
            parts = base.split(".")
            first_last = len(parts) if self._sole else len(parts) - 1
            stems += [(".".join(parts[i:]), "") for i in range(1, first_last)]
        return stems


def _one(names: list[str], wanted: str, href: str) -> str:
    """Return the one name that fits best: the same case, then the folder of the article itself."""
    for fits in (
        lambda n: n == wanted,
        lambda n: n.rpartition("/")[2] == wanted,
        lambda n: "/" not in n,
        lambda n: True,
    ):
        found = [name for name in names if fits(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise MediaError("ambiguous image file", f"{href[:200]}: {', '.join(found[:4])}")
    raise AssertionError("an index entry without names")


def _nearest(found: dict[str, list[str]], href: str) -> dict[str, list[str]]:
    """Return only the files in the folder that a reference names, if there are any; else all of them."""
    folders = [part for part in _path(href).lower().split("/")[:-1] if part not in ("", ".", "..")]
    for start in range(len(folders)):
        wanted = "/" + "/".join(folders[start:])
        inside = {
            e: [n for n in names if f"/{n.lower()}".rpartition("/")[0].endswith(wanted)] for e, names in found.items()
        }
        if any(inside.values()):
            return {extension: names for extension, names in inside.items() if names}
    return found


def bare_stem(name: str) -> str:
    """Return a name or reference without its extension, if that is one of a picture: `f1.tif`, not `f.001`."""
    stem, dot, extension = name.rpartition(".")
    return stem if dot and extension.lower() in QUALITY + _UNSUPPORTED else name


def base_name(href: str) -> str:
    """Return the last part of a reference: a file name, with `%20` and the query of an address resolved."""
    return _path(href).rstrip("/").rpartition("/")[2].strip()


def _path(href: str) -> str:
    href = href.strip()
    if re.match(r"(https?|s3|ftp)://", href, re.IGNORECASE):
        href = re.split(r"[?#]", href, maxsplit=1)[0]
    return urllib.parse.unquote(href).replace("\\", "/")
