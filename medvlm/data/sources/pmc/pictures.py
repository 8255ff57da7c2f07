"""The graphics of one figure as pictures: alternatives of one picture together, its parts apart, thumbnails last."""

from __future__ import annotations

import dataclasses
import re

from lxml import etree

from medvlm.data.sources.pmc.media import QUALITY, bare_stem, base_name
from medvlm.data.sources.pmc.text import plain

XLINK_HREF = "{http://www.w3.org/1999/xlink}href"

_SMALL = re.compile(r"(?:.*[\s_-])?thumb(?:nail)?s?|(?:.*[\s_-])?icon|scielo-\d+x\d+", re.IGNORECASE)
# `f1.thumbnail`, `f1_tn`, `thumb_f1`; a bone of the hand may be called thumb as well, so that these never count alone.
_SMALL_NAME = re.compile(r"(.+?)[._-](?:thumb(?:nail)?|tn|icon|scielo-\d+x\d+)|(?:thumb(?:nail)?|tn)[._-](.+)")
_PANEL_SUFFIX = re.compile(r"(?<=\d)([a-z])$", re.IGNORECASE)
_ORDER = ("tif", "tiff", "png", "jpg", "jpeg", "webp", "gif")


@dataclasses.dataclass(slots=True)
class Picture:
    """One picture: references to alternative files of it (the best first), and which panel of its figure it is."""

    hrefs: list[str]
    panel: str | None = None


def pictures(graphics: list[etree._Element]) -> tuple[list[Picture], list[Picture]]:
    """Group the graphics of a figure into pictures; return those that count and those left out as thumbnails.

    The files of an `alternatives` element and those of one stem (`f1.tif`, `f1.jpg`) are one picture. Left out is what
    its attributes call a thumbnail, or its name where the same name without the mark stands beside it.
    """
    if len(graphics) == 1:
        return [_picture(graphics)], []
    stems = {_stem(g) for g in graphics}
    groups: dict[object, list[etree._Element]] = {}
    for graphic in graphics:
        parent = graphic.getparent()
        alternative = parent is not None and parent.tag == "alternatives"
        groups.setdefault(parent if alternative else (_stem(graphic) or graphic), []).append(graphic)
    whole = [g for g in groups.values() if not all(_is_thumbnail(e, stems) for e in g)] or list(groups.values())
    small = [g for g in groups.values() if g not in whole]
    found = [_picture(group) for group in whole]
    if len(found) > 1:
        for index, (picture, group) in enumerate(zip(found, whole, strict=True)):
            picture.panel = _panel(group[0], index)
    return found, [_picture(group) for group in small]


def is_picture(file: etree._Element) -> bool:
    """Tell whether what a `media` element or a supplement names is a still picture, by its type or its extension."""
    kind = (file.get("mimetype") or "").strip().lower()
    if kind.startswith("image"):
        return True
    extension = base_name(file.get(XLINK_HREF) or "").rpartition(".")[2].lower()
    return extension in QUALITY and not kind.startswith(("video", "audio"))


def file_of(supplement: etree._Element) -> str | None:
    """Return the reference of a supplement's file: its own, or that of the first `media` in it."""
    found = (e.get(XLINK_HREF) for e in (supplement, *supplement.iterfind("media")))
    return next((href for href in found if href), None)


def label_of(element: etree._Element | None) -> str | None:
    """Return the text of an element's own `label`, None where it has none."""
    label = element.find("label") if element is not None else None
    return (plain(label) or None) if label is not None else None


def _picture(group: list[etree._Element]) -> Picture:
    return Picture([e.get(XLINK_HREF) or "" for e in sorted(group, key=_rank)])


def _stem(graphic: etree._Element) -> str:
    return bare_stem(graphic.get(XLINK_HREF) or "").lower()


def _is_thumbnail(graphic: etree._Element, stems: set[str]) -> bool:
    small = _SMALL_NAME.fullmatch(_stem(graphic))
    return _declared_small(graphic) or bool(small and (small[1] or small[2]) in stems)


def _declared_small(graphic: etree._Element) -> bool:
    return any(_SMALL.fullmatch((graphic.get(name) or "").strip()) for name in ("content-type", "specific-use"))


def _rank(graphic: etree._Element) -> tuple[bool, bool, int]:
    """Order alternatives: thumbnails last, web copies after originals, then by what their formats keep."""
    extension = (graphic.get(XLINK_HREF) or "").rpartition(".")[2].lower()
    web = "web" in (graphic.get("specific-use") or "").lower()
    small = _declared_small(graphic) or bool(_SMALL_NAME.fullmatch(_stem(graphic)))
    return small, web, _ORDER.index(extension) if extension in _ORDER else len(_ORDER)


def _panel(graphic: etree._Element, index: int) -> str:
    letter = _PANEL_SUFFIX.search(bare_stem(graphic.get(XLINK_HREF) or ""))
    return (label_of(graphic) or "").strip(" ().:") or (letter[1].lower() if letter else str(index + 1))
