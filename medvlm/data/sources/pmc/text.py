"""Captions and paragraphs of JATS as plain text: words never glued or split, nothing lost, nothing invented.

Inline elements (italic, bold, xref ...) join their neighbors directly, as the typesetter does; block elements (title,
p, list-item ...) stand apart. Superscripts and subscripts become `^` and `_` before their text, in braces when it
holds more than one token: `10^-10`, `log_2`, `x_{a b}`. Formulas become their TeX, else their MathML as text.
"""

from __future__ import annotations

import functools
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
_INVISIBLE = "\u00ad\u2061\u2062\u2063\u2064\u200b\ufeff"
_HYPHENS = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u00ad\u2043\ufe58\ufe63\uff0d"
_PICTURES = ("graphic", "inline-graphic", "media")
_FORMS = ("tex-math", "math")
_TEX_BODY = re.compile(r"\\begin\{document\}(.*?)\\end\{document\}", re.DOTALL)
_TOKENS = frozenset(("mi", "mn", "mo", "mtext", "ms"))
_UNSPOKEN = frozenset(("", "annotation", "annotation-xml", "none", "mprescripts", "mphantom", "mspace"))
# Stands in MathML's text where a blank must part two letters or digits; XML cannot hold it.
_SEAM = "\x01"
_WORD_SEAM = re.compile(rf"(?<=[^\W_]){_SEAM}+(?=[^\W_])")
_SCRIPT = re.compile("sub|sup|under|over")


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
    """Return a formula's text: its TeX, else its MathML as text, with the words beside; else its text alternative.

    A formula that is only a picture is `[formula]`, so that the sentence shows its gap.
    """
    if body := squeeze(_spoken(element)):
        return body
    if body := next((squeeze(words(e)) for e in element.iter("{*}alt-text")), ""):
        return body
    holds_picture = local(element) in _FORMULAS and any(local(e) in _PICTURES for e in element.iter())
    return "[formula]" if holds_picture else ""


def _spoken(element: etree._Element) -> str:
    """Return what is written in a formula, each part of it once; its number is no part."""
    chosen = _chosen(element)
    parts: list[str] = [element.text or ""]
    after_form = False
    for child in element:
        name = local(child)
        if name in _FORMS:
            if said := chosen.get(child):
                parts.append(f" {said}" if after_form else said)
                after_form = True
        elif name in ("alternatives", "textual-form"):
            parts.append(_spoken(child))
        elif name != "label" and not (chosen and name in _PICTURES):
            _WRITERS.get(name, _flatten_other)(child, parts)
        if tail := child.tail:
            parts.append(tail)
            after_form = after_form and not tail.strip()
    return "".join(parts)


def _chosen(element: etree._Element) -> dict[etree._Element, str]:
    """Return the TeX of a formula, else its MathML, with what each says: all there is, but one of `alternatives`."""
    for name in _FORMS:
        said = {form: text for form in element if local(form) == name and (text := _form(form))}
        if said:
            return dict(list(said.items())[:1]) if local(element) == "alternatives" else said
    return {}


def _form(element: etree._Element) -> str:
    return _tex(element) if local(element) == "tex-math" else math(element)


def _tex(element: etree._Element) -> str:
    text = words(element)
    body = _TEX_BODY.search(text)
    text = squeeze(body[1] if body else text)
    return re.sub(r"^(\$\$?|\\\(|\\\[)\s*|\s*(\$\$?|\\\)|\\\])$", "", text).strip()


def math(element: etree._Element) -> str:
    """Return MathML as text: its TeX if it brings any, else fractions as a/b, scripts as `_` and `^`, sqrt(x).

    A blank parts names of several letters, and scripts, from the letters and digits beside them: `sin x`, `x_i y`.
    """
    for note in element.iter("{*}annotation"):
        if "tex" in (note.get("encoding") or "").lower() and (body := _tex(note)):
            return body
    return squeeze(_parted(_math(element)))


def _parted(text: str) -> str:
    """Return a text with blanks at those of its seams that part two letters or digits."""
    return _WORD_SEAM.sub(" ", text).replace(_SEAM, "") if _SEAM in text else text


def _math(element: etree._Element) -> str:
    name = _local(element.tag) if isinstance(element.tag, str) else ""
    if name in _TOKENS:
        return _token(name, words(element))
    if name in _UNSPOKEN:
        return " " if name == "mspace" else ""
    parts = [_math(child) for child in element if isinstance(child.tag, str)]
    write = _MATH.get(name)
    return "".join(parts) if write is None else write(element, parts)


@functools.lru_cache(maxsize=256)
def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _token(name: str, text: str) -> str:
    if len(text) == 1 and text not in _INVISIBLE:
        return text
    if name != "mtext":
        text = squeeze(text)
    return f"{_SEAM}{text}{_SEAM}" if len(text) > 1 and any(map(str.isalpha, text)) else text


def _fraction(_element: etree._Element, parts: list[str]) -> str:
    return "/".join(map(_grouped, parts)) if len(parts) == 2 else "".join(parts)


def _scripts(element: etree._Element, parts: list[str]) -> str:
    """Return the first part with the others as its scripts, in the order in which the name has them: `msubsup`."""
    signs = ["_" if sign in ("sub", "under") else "^" for sign in _SCRIPT.findall(local(element))]
    if len(parts) != len(signs) + 1:
        return "".join(parts)
    return parts[0] + "".join(map(_script, signs, parts[1:])) + _SEAM


def _script(sign: str, part: str) -> str:
    return raised(sign, _parted(part))


def _prescripts(element: etree._Element, parts: list[str]) -> str:
    """Return `mmultiscripts`: its base, then pairs of `_` and `^`, of which those after `mprescripts` stand before."""
    names = [local(child) for child in element if local(child)]
    cut = names.index("mprescripts") if "mprescripts" in names else len(names)
    after = [_script("_^"[place % 2], part) for place, part in enumerate(parts[1:cut])]
    before = [_script("_^"[place % 2], part) for place, part in enumerate(parts[cut + 1 :])]
    return f"{_SEAM}{''.join(before)}{parts[0] if parts else ''}{''.join(after)}{_SEAM}"


def _fenced(element: etree._Element, parts: list[str]) -> str:
    signs = "".join(element.get("separators", ",").split())
    inner = "".join(parts[:1])
    for place, part in enumerate(parts[1:]):
        inner += signs[place : place + 1] + part if place < len(signs) else signs[-1:] + part
    return element.get("open", "(").strip() + inner + element.get("close", ")").strip()


def _root(_element: etree._Element, parts: list[str]) -> str:
    if len(parts) != 2:
        return "".join(parts)
    return f"{_SEAM}root{_script('_', parts[1])}({parts[0]})"


def _grouped(text: str) -> str:
    body = squeeze(_parted(text))
    return f"({body})" if re.search(r"[-+−=/ ]", body[1:]) else body


_MATH: dict[str, Callable[[etree._Element, list[str]], str]] = {
    "mfrac": _fraction,
    **dict.fromkeys(("msub", "munder", "msup", "msubsup", "munderover"), _scripts),
    "mmultiscripts": _prescripts,
    "mfenced": _fenced,
    "msqrt": lambda _element, parts: f"{_SEAM}sqrt({''.join(parts)})",
    "mroot": _root,
    "mtr": lambda _element, parts: " ".join(parts) + " ",
}
