"""Captions and paragraphs of JATS as plain text: words never glued or split, nothing lost, nothing invented.

Inline elements (italic, bold, xref ...) join their neighbors directly, as the typesetter does; block elements (title,
p, list-item ...) stand apart. Superscripts and subscripts become `^` and `_` before their text, in braces when it
holds more than one token: `10^-10`, `log_2`, `x_{a b}`. Formulas become their TeX, else their MathML as text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from lxml import etree

# What stands apart from the text before and after it (JATS 1.3, block-level elements of captions and paragraphs).
_BLOCK_NAMES = """
title p list list-item def-list def-item def term disp-quote disp-formula disp-formula-group sec label break speech
verse-group verse-line statement preformat code subtitle attrib boxed-text array tr td th caption fn ack ref
"""
# What is no part of the running text: other objects, their identifiers and descriptions for screen readers.
_SKIPPED_NAMES = """
object-id graphic inline-graphic media supplementary-material fig fig-group
table-wrap table-wrap-group permissions alt-text long-desc annotation annotation-xml private-char index-term
"""
# Those of them that part the words around them.
_OBJECTS = frozenset(
    "graphic inline-graphic supplementary-material table-wrap table-wrap-group fig fig-group".split()  # noqa: SIM905
)
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_SKIPPED = frozenset(_SKIPPED_NAMES.split())
_FORMULAS = frozenset(("inline-formula", "disp-formula", "chem-struct"))
_INVISIBLE = "\u2061\u2062\u2063\u2064\u200b\ufeff"
_HYPHENS = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u00ad\u2043\ufe58\ufe63\uff0d"
_PICTURES = ("graphic", "inline-graphic", "media")
_TEX_BODY = re.compile(r"\\begin\{document\}(.*?)\\end\{document\}", re.DOTALL)


def local(element: etree._Element) -> str:
    """Return an element's name without its namespace; "" for comments, instructions and entities."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def words(element: etree._Element) -> str:
    """Return all text below an element as it stands, elements of every kind included."""
    return "".join(map(str, element.itertext())) if len(element) else element.text or ""


def squeeze(text: str) -> str:
    """Return `text` with every run of white space made one blank, none at its ends, and no invisible signs."""
    if not text.isascii():
        for sign in _INVISIBLE:
            if sign in text:
                text = text.replace(sign, "")
    return " ".join(text.split())


def fold_hyphens(text: str) -> str:
    """Return `text` with every kind of hyphen, dash and minus sign as "-"; its length stays."""
    if not text.isascii():
        for sign in _HYPHENS:
            text = text.replace(sign, "-")
    return text


def plain(element: etree._Element) -> str:
    """Return the text of an element and all below it as one line (its tail left out)."""
    if not len(element):
        return squeeze(element.text or "")
    parts: list[str] = []
    _flatten(element, parts)
    return squeeze("".join(parts))


def _flatten(element: etree._Element, out: list[str]) -> None:
    if text := element.text:
        out.append(text)
    for child in element:
        write = _WRITERS.get(child.tag)
        if write is not None:
            write(child, out)
        elif len(child) or not isinstance(child.tag, str) or child.tag[0] == "{":
            _flatten_other(child, out)
        elif text := child.text:
            out.append(text)
        if tail := child.tail:
            out.append(tail)


def _flatten_other(child: etree._Element, out: list[str]) -> None:
    """Add what is no block and no object: an inline element, one with a namespace, or an entity."""
    name = local(child)
    if not name:
        if isinstance(child, etree._Entity):
            out.append(html.unescape(child.text or ""))
    elif name != child.tag and (write := _WRITERS.get(name)):
        write(child, out)
    else:
        _flatten(child, out)


def _flatten_block(child: etree._Element, out: list[str]) -> None:
    out.append(" ")
    _flatten(child, out)
    out.append(" ")


def _flatten_x(child: etree._Element, out: list[str]) -> None:
    """Add what the publisher printed between two elements: at least a blank."""
    if (child.text or "").strip():
        _flatten(child, out)
    else:
        out.append(child.text or " ")


def _writers() -> dict[str, Callable[[etree._Element, list[str]], None]]:
    """Return element name -> what adds its text to a list; names that are not in it are inline."""
    writers: dict[str, Callable[[etree._Element, list[str]], None]] = {
        **dict.fromkeys(_BLOCKS, _flatten_block),
        **dict.fromkeys(_SKIPPED, lambda _child, _out: None),
        **dict.fromkeys(_OBJECTS, lambda _child, out: out.append(" ")),
        **dict.fromkeys(_FORMULAS, lambda child, out: out.append(formula(child))),
        "disp-formula": lambda child, out: out.append(f" {formula(child)} "),
        "sup": lambda child, out: out.append(raised("^", _inner(child))),
        "sub": lambda child, out: out.append(raised("_", _inner(child))),
        "math": lambda child, out: out.append(math(child)),
        "tex-math": lambda child, out: out.append(_tex(child)),
        "alternatives": lambda child, out: out.append(formula(child)),
        "x": _flatten_x,
    }
    return writers


_WRITERS = _writers()


def _inner(element: etree._Element) -> str:
    parts: list[str] = []
    _flatten(element, parts)
    return "".join(parts)


def raised(sign: str, text: str) -> str:
    """Return `sign` before `text`, in braces where it holds more than one token; blanks at its ends stay outside."""
    body = squeeze(text)
    if not body:
        return text
    before = " " if text[0].isspace() else ""
    after = " " if text[-1].isspace() else ""
    return f"{before}{sign}{{{body}}}{after}" if " " in body else f"{before}{sign}{body}{after}"


def formula(element: etree._Element) -> str:
    """Return a formula's text: its TeX, else its MathML as text, else its words, else its text alternative.

    A formula that is only a picture is `[formula]`, so that the sentence shows its gap.
    """
    for tex in element.iter("{*}tex-math"):
        if body := _tex(tex):
            return body
    for node in element.iter("{*}math"):
        if body := math(node):
            return body
    if body := squeeze(_inner_words(element)):
        return body
    if body := next((squeeze(words(e)) for e in element.iter("{*}alt-text")), ""):
        return body
    holds_picture = local(element) in _FORMULAS and any(local(e) in _PICTURES for e in element.iter())
    return "[formula]" if holds_picture else ""


def _inner_words(element: etree._Element) -> str:
    parts: list[str] = [element.text or ""]
    for child in element:
        if local(child) in ("alternatives", "textual-form"):
            parts.append(_inner_words(child))
        else:
            write = _WRITERS.get(local(child), _flatten_other)
            write(child, parts)
        parts.append(child.tail or "")
    return "".join(parts)


def _tex(element: etree._Element) -> str:
    text = words(element)
    body = _TEX_BODY.search(text)
    text = squeeze(body[1] if body else text)
    return re.sub(r"^(\$\$?|\\\(|\\\[)\s*|\s*(\$\$?|\\\)|\\\])$", "", text).strip()


def math(element: etree._Element) -> str:
    """Return MathML as text: fractions as a/b, scripts as `_` and `^`, roots as sqrt(x)."""
    return squeeze(_math(element))


def _math(element: etree._Element) -> str:
    name = local(element)
    if not name or name in ("annotation", "annotation-xml"):
        return ""
    if name in ("mi", "mn", "mo", "mtext", "ms"):
        return words(element) if name == "mtext" else words(element).strip()
    if name == "mspace":
        return " "
    parts = [_math(child) for child in element if local(child)]
    if name == "mfrac" and len(parts) == 2:
        return f"{_grouped(parts[0])}/{_grouped(parts[1])}"
    if name in ("msub", "munder") and len(parts) == 2:
        return parts[0] + raised("_", parts[1])
    if name == "msup" and len(parts) == 2:
        return parts[0] + raised("^", parts[1])
    if name in ("msubsup", "munderover") and len(parts) == 3:
        return parts[0] + raised("_", parts[1]) + raised("^", parts[2])
    if name == "msqrt":
        return f"sqrt({''.join(parts)})"
    if name == "mtr":
        return " ".join(parts) + " "
    return "".join(parts)


def _grouped(text: str) -> str:
    body = squeeze(text)
    return f"({body})" if re.search(r"[-+−=/ ]", body[1:]) else body
