"""Bytes of unknown origin to `article` elements: no entity is expanded, no DTD loaded, no network used.

A DOCTYPE that names an external DTD is normal in JATS and is ignored. One that declares entities is refused. Damaged
XML is recovered, and only figures whose own markup is whole are trusted: `Document.whole` tells them apart.
"""

from __future__ import annotations

import codecs
import dataclasses
import re
from collections.abc import Callable, Iterator

from lxml import etree

from medvlm.data.sources.pmc.text import local, plain
from medvlm.io import sha256_bytes

MAX_XML_BYTES = 256 << 20
"""Larger articles are refused: 256 MiB of XML become several GiB of tree."""

_ENTITY = re.compile(rb"<!\s*ENTITY", re.IGNORECASE)
_DOCTYPE = re.compile(rb"<!DOCTYPE", re.IGNORECASE)
_ARTICLE_END = re.compile(rb"</article\s*>")
_ARTICLE_NEXT = re.compile(rb"<article[\s>]")
# What may stand between two articles: how it opens and how it ends.
_BETWEEN = ((b"<!--", b"-->"), (b"<?", b"?>"), (b"<!DOCTYPE", b">"))
_BLANK = re.compile(rb"\s*")
_FIGURES = (
    "fig",
    "fig-group",
    "supplementary-material",
    "table-wrap",
    "table-wrap-group",
    "disp-formula-group",
    "chem-struct-wrap",
    "graphic",
)
_FILES = ("graphic", "media", "supplementary-material")
_SNIFF_BYTES = 65536
_ARTICLE_START = re.compile(rb"<(?:[\w-]+:)?(?:article|pmc-articleset)[\s>]")


_ID = re.compile(rb"<article-id\s[^<>]{0,200}?pub-id-type=[\"'](pmc|pmcid|doi)[\"'][^<>]{0,200}>([^<]{1,200})<")
_STATED_VERSION = re.compile(rb"<article-version(?:\s[^<>]{0,300})?>\s*v?(\d{1,4})(?:\.\d+)?\s*<", re.IGNORECASE)


class XmlError(Exception):
    """An XML file gives no article; `reason` is the key that is counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclasses.dataclass(slots=True)
class Document:
    """One article of a file. `damage` says what was wrong with its XML, "" if nothing."""

    root: etree._Element
    data: bytes
    damage: str = ""
    whole: Callable[[etree._Element], bool] = lambda _element: True

    def sha256(self) -> str:
        """Return the hash of the article's XML, which names an article that has no other name."""
        alone = local(self.root.getroottree().getroot()) == "article"
        return sha256_bytes(self.data if alone else etree.tostring(self.root, with_tail=False))


def is_jats(head: bytes) -> bool:
    """Tell by its first bytes whether a file is JATS: an `article` element, or a set of them, opens in it."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head[:4]:
        head = head.replace(b"\0", b"")
    return bool(_ARTICLE_START.search(head[:_SNIFF_BYTES]))


def declared_version(head: bytes) -> tuple[str, int] | None:
    """Return the article's id and the version that its first bytes state, or None where they state no version."""
    ids = {match[1].lower(): match[2] for match in reversed(list(_ID.finditer(head[:_SNIFF_BYTES])))}
    pmc = re.fullmatch(rb"\s*(?:PMC)?(\d+)(?:\.(\d+))?\s*", ids.get(b"pmc") or ids.get(b"pmcid") or b"", re.IGNORECASE)
    stated = _STATED_VERSION.search(head[:_SNIFF_BYTES])
    number = int((pmc and pmc[2]) or (stated and stated[1]) or 0)
    if not number or not (pmc or ids.get(b"doi")):
        return None
    return (f"PMC{pmc[1].decode()}" if pmc else ids[b"doi"].strip().lower().decode("utf-8", "replace")), number


def is_article(name: str, head: bytes) -> bool:
    """Tell by name and first bytes whether a file is, or should be, an article.

    `.nxml` names nothing but JATS, and a file without content may have lost it: reading those says what is wrong.
    """
    return is_jats(head) or not head.strip() or name.lower().endswith(".nxml")


def read_documents(data: bytes) -> list[Document]:
    """Return the articles in a file: one, those of a set, or several one after the other.

    Raises:
        XmlError: the XML declares entities, is too large, or holds no article.
    """
    if len(data) > MAX_XML_BYTES:
        raise XmlError("xml too large", f"{len(data)} bytes")
    data = data.lstrip(b" \t\r\n\0") if not data.startswith((b"\xff\xfe", b"\xfe\xff")) else data
    data = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    _refuse_entities(data)
    root = _strict(data)
    documents = _documents(root, data) if root is not None else _damaged(data)
    if not documents:
        raise XmlError("no article in xml")
    return documents


def _damaged(data: bytes) -> list[Document]:
    """Return the articles of a file that is not well-formed: several after one another, or damaged ones."""
    documents: list[Document] = []
    ends = _article_ends(data)
    for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
        part, damage = data[start:end].lstrip(), ""
        root = _strict(part) if ends else None
        if root is None:
            root, damage, part = _recovered(part)
        if root is not None:
            documents += _documents(root, part, damage)
    return documents


def _article_ends(data: bytes) -> list[int]:
    """Return where articles end that another one follows, in one pass: what was passed over is not looked at again."""
    ends: list[int] = []
    unclosed: set[bytes] = set()
    match = _ARTICLE_END.search(data)
    while match:
        place = _after_misc(data, match.end(), unclosed)
        if _ARTICLE_NEXT.match(data, place):
            ends.append(match.end())
        match = _ARTICLE_END.search(data, place)
    return ends


def _after_misc(data: bytes, place: int, unclosed: set[bytes]) -> int:
    """Return the place after blanks, comments, instructions and a DOCTYPE. `unclosed`: marks that no more come."""
    while True:
        place = _end_of_blanks(data, place)
        kind = next((pair for pair in _BETWEEN if data.startswith(pair[0], place)), None)
        if kind is None or kind[1] in unclosed:
            return place
        end = data.find(kind[1], place)
        if end < 0:
            unclosed.add(kind[1])
            return place
        place = end + len(kind[1])


def _end_of_blanks(data: bytes, place: int) -> int:
    blanks = _BLANK.match(data, place)
    return blanks.end() if blanks else place


def _refuse_entities(data: bytes) -> None:
    utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:200]
    text = data.replace(b"\0", b"") if utf16 else data
    # Only a DOCTYPE can declare entities; elsewhere the words are text.
    if _declares(text, _ENTITY) and _declares(text, _DOCTYPE):
        raise XmlError("xml refused: entities", "the DOCTYPE declares entities; they are never expanded")


def _declares(data: bytes, declaration: re.Pattern[bytes]) -> bool:
    """Tell whether a declaration stands anywhere; its exclamation mark, rare in text, is looked for first."""
    place = data.find(b"!", 1)
    while place >= 0:
        if declaration.match(data, place - 1):
            return True
        place = data.find(b"!", place + 1)
    return False


def _parser(recover: bool, encoding: str | None = None) -> etree.XMLParser:
    return etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        recover=recover,
        encoding=encoding,
    )


def _strict(data: bytes) -> etree._Element | None:
    try:
        return etree.fromstring(data, _parser(recover=False))
    except (etree.LxmlError, ValueError, LookupError):
        return None


def _documents(root: etree._Element, data: bytes, damage: str = "") -> list[Document]:
    info = root.getroottree().docinfo
    if info.internalDTD is not None and list(info.internalDTD.iterentities()):  # type: ignore[attr-defined]
        raise XmlError("xml refused: entities", "the DOCTYPE declares entities; they are never expanded")
    whole = _whole_figures(data) if damage else lambda _element: True
    return [Document(_plain_names(article), data, damage, whole) for article in _articles(root)]


def _recovered(data: bytes) -> tuple[etree._Element | None, str, bytes]:
    """Return what can be read of damaged XML, what is wrong with it, and the bytes that were parsed."""
    encoding = None
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        if (
            re.match(rb"<\?xml[^>]*encoding=[\"'](?!utf-?8)", data[:200], re.IGNORECASE) is None
            and b"\0" not in data[:200]
        ):
            data, encoding = _mended(data), "utf-8"
    parser = _parser(recover=True, encoding=encoding)
    try:
        root = etree.fromstring(data, parser)
    except (etree.LxmlError, ValueError, LookupError) as error:
        return None, str(error)[:200], data
    first = next(iter(parser.error_log), None)
    return root, (first.message if first else "damaged")[:200], data


def _from_windows(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", errors="replace"), error.end


codecs.register_error("medvlm-windows-1252", _from_windows)


def _mended(data: bytes) -> bytes:
    """Return bytes that are nearly UTF-8 as UTF-8: what does not decode is taken for Windows-1252."""
    return data.decode("utf-8", errors="medvlm-windows-1252").encode("utf-8")


def _articles(root: etree._Element) -> list[etree._Element]:
    """Return the outermost `article` elements."""
    if local(root) == "article":
        return [root]
    found = [e for e in root.iter("{*}article") if local(e) == "article"]
    return [e for e in found if not any(local(a) == "article" for a in e.iterancestors())]


def _plain_names(article: etree._Element) -> etree._Element:
    """Drop the namespace that OAI-PMH puts on all JATS elements."""
    namespace = etree.QName(article).namespace
    if namespace:
        for element in article.iter(f"{{{namespace}}}*"):
            element.tag = etree.QName(element).localname
    return article


def _whole_figures(data: bytes) -> Callable[[etree._Element], bool]:
    """Return a test for figures of recovered XML: is there markup in the file that is well-formed and says the same?"""
    declared = dict(re.findall(rb"xmlns:([\w-]+)=[\"']([^\"'<>]*)[\"']", data[:_SNIFF_BYTES]))
    declared.setdefault(b"xlink", b"http://www.w3.org/1999/xlink")
    opening = b"<x " + b" ".join(b'xmlns:%s="%s"' % pair for pair in declared.items()) + b">"
    said: set[tuple[str, ...]] = set()
    for name in _FIGURES:
        for markup in _segments(data, name.encode()):
            root = _strict(opening + markup + b"</x>")
            if root is not None:
                said.update(_saying(e) for e in root.iter(*_FIGURES))
    return lambda element: _saying(element) in said


def _segments(data: bytes, name: bytes) -> Iterator[bytes]:
    """Yield what lies between each end tag and the nearest start tag before it, in one pass."""
    start = 0
    tags = re.compile(rb"<(/?)" + name + rb"(?=[\s/>])[^<>]*>")
    for tag in tags.finditer(data):
        if not tag[1]:
            start = tag.start()
        elif start < tag.start() and data[start : start + 1] == b"<":
            yield data[start : tag.end()]
            start = tag.end()


def _saying(element: etree._Element) -> tuple[str, ...]:
    hrefs = [e.get("{http://www.w3.org/1999/xlink}href") or "" for e in element.iter(*_FILES)]
    return (element.tag, element.get("id") or "", plain(element), *hrefs)
