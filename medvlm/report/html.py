"""A document as one HTML file that asks for nothing: style, charts and images are inside, and there is no script."""

from __future__ import annotations

from pathlib import Path

import jinja2

import medvlm
from medvlm.licenses.policy import NOT_LEGAL_ADVICE
from medvlm.report.document import Block, Document, printable

_HERE = Path(__file__).parent


def render(document: Document) -> str:
    """Return the page. Everything but our own charts is escaped, whatever its text is."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["kind_of"] = _kind_of
    page = environment.get_template("page.html.j2").render(
        document=document,
        style=(_HERE / "style.css").read_text(encoding="utf-8"),
        version=medvlm.__version__,
        notice=f"License lines: {NOT_LEGAL_ADVICE[0].lower()}{NOT_LEGAL_ADVICE[1:]}",
    )
    return printable(page)


def _kind_of(block: Block) -> str:
    return type(block).__name__
