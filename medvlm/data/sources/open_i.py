"""Reports of Open-i as XML, read safely: no entities, no document types, nothing from the network."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path

from lxml import etree

from medvlm.data.sources.records import Bad, Record
from medvlm.errors import InputError

XML_BYTES = 4 << 20
"""A report takes some ten kilobytes."""

_NUMBER = re.compile(r"\d+")
_LABELS = ("comparison", "indication", "findings", "impression")


def sorted_names(folder: Path) -> list[str]:
    """Return the names of the XML files of a folder, by their numbers.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        return _sorted_names(str(folder), os.stat(folder).st_mtime_ns)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; name a readable folder") from error


@functools.lru_cache(maxsize=4)
def _sorted_names(folder: str, changed: int) -> list[str]:
    names = (entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(".xml"))
    return sorted(names, key=lambda name: (*(int(number) for number in _NUMBER.findall(name)[:1]), 0, name))


def read_report(path: Path) -> Record | Bad:
    """Return one report with the columns of the Kaggle copy, the names of its pictures and the license it states.

    uid is CXR and a number. A section that comes twice is joined. Where texts have other labels than the columns (an
    addendum, one for findings and impression), or none, `report` is all of them, each behind its label. `image_path`
    are file names, `MeSH` the terms that people gave (`major`), not those of a program (`automatic`).
    """
    try:
        if not path.is_file() or not path.resolve().is_relative_to(path.parent.resolve()):
            return Bad("file cannot be read", f"{path.name}: no plain file of its folder")
        if path.stat().st_size > XML_BYTES:
            return Bad("malformed XML", f"{path.name}: too large for a report")
        root = etree.fromstring(path.read_bytes(), _parser())
    except OSError as error:
        return Bad("file cannot be read", f"{path.name}: {error.strerror}")
    except (etree.XMLSyntaxError, ValueError) as error:
        return Bad("malformed XML", f"{path.name}: {' '.join(str(error).split())[:160]}")
    if root.getroottree().docinfo.internalDTD is not None:
        return Bad("malformed XML", f"{path.name}: declares a document type")
    return _record(root, path)


def _parser() -> etree.XMLParser:
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )


def _record(root: etree._Element, path: Path) -> Record:
    texts: dict[str, list[str]] = {}
    for element in root.iter("AbstractText"):
        texts.setdefault((element.get("Label") or "").strip().lower(), []).append(_text(element))
    ids = [id for element in root.iter("uId") if (id := (element.get("id") or "").strip())]
    images = [id for element in root.iter("parentImage") if (id := (element.get("id") or "").strip())]
    joined = {label: "\n".join(filter(None, parts)) for label, parts in texts.items() if any(parts)}
    uid = (ids or [path.stem])[0]
    return {
        **{label: joined.get(label, "") for label in _LABELS},
        **({} if joined.keys() <= set(_LABELS) else {"report": _report(joined), "id": uid}),
        "uid": uid,
        "MeSH": ";".join(text for element in root.iter("major") if (text := _text(element))),
        "image_path": [f"{id}.png" for id in images],
        "license": next((text for element in root.iter("licenseURL") if (text := _text(element))), ""),
    }


def _report(texts: Mapping[str, str]) -> str:
    """Return texts as one report: a text without a label first, the others below their labels."""
    headed = [f"{label.upper()}: {text}" for label, text in texts.items() if label]
    return "\n".join([*filter(None, [texts.get("")]), *headed])


def _text(element: etree._Element) -> str:
    return "".join(str(text) for text in element.itertext()).strip()
