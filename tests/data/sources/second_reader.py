"""A second, slow and obvious reading of JATS with the standard library, to hold the package's reader against.

It shares no code with the package. Of each figure it tells the label, the caption with gaps where formulas stand, and
the pictures; of each article how many pictures and figures there are in all, wherever they stand.
"""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET

HREF = "{http://www.w3.org/1999/xlink}href"
LANG = "{http://www.w3.org/XML/1998/namespace}lang"
GAP = "\x00"
"""Stands in a caption for a formula, whose letters are kept apart."""

APART = ("title", "p", "list", "list-item", "def-list", "def-item", "def", "term", "disp-quote", "disp-formula")
APART += ("sec", "label", "break", "code", "attrib")
FORMULAS = ("inline-formula", "disp-formula", "math", "tex-math", "chem-struct")
OTHER_OBJECTS = ("object-id", "supplementary-material", "permissions", "alt-text", "long-desc")
OTHER_OBJECTS += ("graphic", "inline-graphic", "media", "table-wrap", "table-wrap-group", "fig", "fig-group")
NOT_RUNNING_TEXT = ("caption", "fig", "table-wrap", "fn", "ref", "supplementary-material")
PICTURES = ("graphic", "inline-graphic", "media")


@dataclasses.dataclass
class Text:
    """A text with a `GAP` for each formula, and the letters of the formulas."""

    words: str
    formulas: list[str]


@dataclasses.dataclass
class SecondFigure:
    """A `fig` (or a `fig-group` or supplement with pictures of its own) as the second reading sees it."""

    id: str | None
    label: str
    caption: Text
    pictures: list[set[str]]
    translated: bool
    other_language: bool
    group: str | None
    """Id of the group around it."""


@dataclasses.dataclass
class SecondArticle:
    """An article's figures, and how many pictures stand outside of them."""

    figures: list[SecondFigure]
    outside: int
    no_images: int
    """Supplements with a file that is no picture, and no pictures of their own."""
    citing: dict[str, list[Text]]
    """Id -> the paragraphs with a reference that names it, captions, notes, tables and
    other sub-articles left out."""


def name(element: ET.Element) -> str:
    return element.tag.split("}")[-1] if isinstance(element.tag, str) else ""


def second_reading(data: bytes) -> SecondArticle:
    """Read one well-formed article."""
    root = ET.fromstring(data)
    parents = {child: parent for parent in root.iter() for child in parent}

    def above(element: ET.Element) -> list[ET.Element]:
        found = []
        while element in parents:
            element = parents[element]
            found.append(element)
        return found

    groups: dict[ET.Element, set[str]] = {}
    """alternatives element, or a picture outside of any -> the references of the one picture it is"""
    for element in root.iter():
        if name(element) in PICTURES and is_picture(element):
            group = next((a for a in above(element) if name(a) == "alternatives"), element)
            groups.setdefault(group, set()).add(element.get(HREF) or "")
        elif name(element) == "supplementary-material" and is_picture(element) and element.get(HREF):
            groups[element] = {element.get(HREF) or ""}

    held: dict[ET.Element, list[set[str]]] = {}
    alone: dict[ET.Element, list[set[str]]] = {}
    outside = 0
    for group, hrefs in groups.items():
        holder = group if name(group) == "supplementary-material" else holder_of(group, above(group))
        if holder is None:
            outside += 1
        elif name(group) == "alternatives" or hrefs not in alone.setdefault(holder, []):
            # One file named twice by a figure is one picture.
            held.setdefault(holder, []).append(hrefs)
            alone.setdefault(holder, []).extend([hrefs] if name(group) != "alternatives" and hrefs != {""} else [])

    main_has_figures = any(
        name(e) == "fig" and not any(name(a) in ("sub-article", "response") for a in above(e)) for e in root.iter()
    )
    figures = []
    for element in root.iter():
        if name(element) == "fig" or element in held:
            around = above(element)
            translated = main_has_figures and any(
                name(a) == "sub-article" and a.get("article-type") == "translation" for a in around
            )
            figures.append(figure(element, parents.get(element), held.get(element, []), translated))

    def part(element: ET.Element) -> ET.Element | None:
        return next((a for a in above(element) if name(a) in ("sub-article", "response")), None)

    citing: dict[str, list[Text]] = {}
    places = {element.get("id"): part(element) for element in root.iter() if element.get("id")}
    for element in root.iter("xref"):
        around = above(element)
        paragraph = next((a for a in around if name(a) == "p"), None)
        if paragraph is not None and not any(name(a) in NOT_RUNNING_TEXT for a in around):
            for rid in (element.get("rid") or "").split():
                text = text_of([paragraph])
                if rid in places and places[rid] is part(element) and text not in citing.setdefault(rid, []):
                    citing[rid].append(text)
    no_images = 0
    for element in root.iter():
        if name(element) == "supplementary-material" and element not in held:
            files = [element.get(HREF)] + [child.get(HREF) for child in element if name(child) == "media"]
            no_images += any(files)
    return SecondArticle(figures, outside, no_images, citing)


def is_picture(element: ET.Element) -> bool:
    if name(element) not in ("media", "supplementary-material"):
        return True
    mimetype = (element.get("mimetype") or "").strip().lower()
    if re.match("image|video|audio", mimetype):
        return mimetype.startswith("image")
    return bool(re.search(r"\.(jpe?g|png|tiff?|webp|gif|bmp)$", (element.get(HREF) or "").strip(), re.I))


def holder_of(group: ET.Element, above: list[ET.Element]) -> ET.Element | None:
    """Return the figure that a picture shows, None for pictures of tables, formulas, symbols in text and others."""
    first = next(iter(group), group) if name(group) == "alternatives" else group
    if name(first) == "inline-graphic":
        return None
    for element in above:
        if name(element) in ("fig", "fig-group", "supplementary-material"):
            return element
        if name(element) in (
            "caption",
            "label",
            "inline-formula",
            "disp-formula",
            "disp-formula-group",
            "table-wrap",
            "table-wrap-group",
            "chem-struct-wrap",
            "abstract",
            "trans-abstract",
        ):
            return None
    return None


def figure(element: ET.Element, parent: ET.Element | None, pictures: list[set[str]], translated: bool) -> SecondFigure:
    captions, label = own_captions(element), own_label(element)
    in_group = parent is not None and name(parent) == "fig-group"
    other_language = False
    if in_group and parent is not None:
        other_language = not pictures and any(e.get(LANG) != element.get(LANG) for e in parent if name(e) == "fig")
        label = label or own_label(parent)
        if len({e.get(LANG) for e in (parent, element, *captions, *own_captions(parent))} - {None}) < 2:
            captions = own_captions(parent) + captions
        elif not captions:
            captions = own_captions(parent)
    group = parent.get("id") if in_group and parent is not None else None
    return SecondFigure(element.get("id"), label, text_of(captions), pictures, translated, other_language, group)


def text_of(elements: list[ET.Element]) -> Text:
    formulas: list[str] = []
    return Text(tidy(" ".join(flat(element, formulas) for element in elements)), formulas)


def own_captions(element: ET.Element) -> list[ET.Element]:
    return [child for child in element if name(child) == "caption"]


def own_label(element: ET.Element) -> str:
    labels = [child for child in element if name(child) == "label"]
    return tidy(flat(labels[0], [])) if labels else ""


def flat(element: ET.Element, formulas: list[str]) -> str:
    """Return an element's text: parts that stand apart between blanks, scripts marked, formulas as gaps."""
    text = element.text or ""
    for child in element:
        text += piece(child, formulas) + (child.tail or "")
    return text


def piece(child: ET.Element, formulas: list[str]) -> str:
    kind = name(child)
    if kind in FORMULAS or (kind == "alternatives" and any(name(e) in FORMULAS for e in child)):
        formulas.append(formula(child))
        return f" {GAP} " if kind == "disp-formula" else GAP
    if kind in ("sup", "sub"):
        return script("^" if kind == "sup" else "_", flat(child, formulas))
    if kind in OTHER_OBJECTS:
        return "" if kind in ("object-id", "permissions", "alt-text", "long-desc", "media") else " "
    inner = flat(child, formulas)
    return f" {inner} " if kind in APART else inner


def formula(element: ET.Element) -> str:
    """Return what a formula says: its TeX without the document around it, else its MathML's text, and its words."""
    kind = name(element)
    if kind == "tex-math":
        return re.sub(r".*\\begin\{document\}|\\end\{document\}.*", "", "".join(element.itertext()), flags=re.DOTALL)
    if kind == "math":
        return "".join(text for text in element.itertext())
    kinds = [name(child) for child in element]
    left_out = ["label", "alt-text", "long-desc", *PICTURES] + (["math"] if "tex-math" in kinds else [])
    said = element.text or ""
    for child in element:
        said += ("" if name(child) in left_out else formula(child)) + (child.tail or "")
    if kind in FORMULAS and not said.strip() and any(name(e) in PICTURES for e in element.iter()):
        return next(("".join(e.itertext()) for e in element.iter() if name(e) == "alt-text"), "[formula]")
    return said


def script(sign: str, text: str) -> str:
    """Return 10<sup>-10</sup> as 10^-10 and x<sub>a b</sub> as x_{a b}."""
    tokens = text.split()
    if not tokens:
        return text
    marked = sign + tokens[0] if len(tokens) == 1 else sign + "{" + " ".join(tokens) + "}"
    return text[: text.index(tokens[0])] + marked + text[text.rindex(tokens[-1]) + len(tokens[-1]) :]


def tidy(text: str) -> str:
    return " ".join(re.sub("[\u00ad\u200b\ufeff\u2061-\u2064]", "", text).split())


def fits(text: str, second: Text) -> bool:
    """Tell whether a text is the second reading's, each gap filled with its formula's letters in their order."""
    parts = [re.escape(part) for part in second.words.split(GAP)]
    match = re.fullmatch("(.*?)".join(parts), text, re.DOTALL)
    if not match:
        return False
    return letters("".join(match.groups())) == letters("".join(second.formulas))


def letters(text: str) -> str:
    return "".join(re.findall(r"\w", tidy(text).replace("sqrt", "").replace("_", "")))
