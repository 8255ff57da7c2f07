"""A document as one HTML file that asks for nothing: style, script, charts and images are inside.

Its content security policy names the one style and the one script by their hashes and forbids everything else, so that
nothing a text smuggles in could run or reach out. The script only adds sorting and filters to what is there without it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path

import jinja2

import medvlm
from medvlm.licenses.policy import NOT_LEGAL_ADVICE
from medvlm.report.document import Block, Document, groups, printable

_HERE = Path(__file__).parent
_INTERVAL = re.compile(r"(\S+) (\[[^\[\]]*\])")
_ADDRESS = re.compile(r"(https?://[^\s<>\"'`|\\^{}]*[^\s<>\"'`|\\^{}.,;:!?)\]])")
_ENDLESS = re.compile(r"[^\s-]{25}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")


def render(document: Document) -> str:
    """Return the page. Everything but our own charts is escaped, whatever its text is."""
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            document=document,
            style=style,
            script=script,
            policy=(
                f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
                "base-uri 'none'; form-action 'none'"
            ),
            version=medvlm.__version__,
            notice=f"License lines: {NOT_LEGAL_ADVICE[0].lower()}{NOT_LEGAL_ADVICE[1:]}",
        )
    )
    return printable(page)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"kind_of": _kind_of, "groups_of": groups, "sides": _sides, "addresses": _addresses}
    environment.tests["endless"] = lambda said: bool(_ENDLESS.search(said))
    environment.tests["language"] = lambda tag: bool(_LANGUAGE.fullmatch(tag))
    return environment


def _hash(text: str) -> str:
    """Return the source expression of an inline text (Content Security Policy Level 2, section 4.2.5)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _kind_of(block: Block) -> str:
    return type(block).__name__


def _sides(cell: str) -> tuple[str, str]:
    """Return a score and the interval behind it, "" where there is none."""
    found = _INTERVAL.fullmatch(cell)
    return (found[1], found[2]) if found else (cell, "")


def _addresses(cell: str) -> list[tuple[str, bool]]:
    """Return the parts of a cell, and whether each is a web address."""
    parts = _ADDRESS.split(cell)
    return [(part, place % 2 == 1) for place, part in enumerate(parts) if part]
