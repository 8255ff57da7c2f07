"""A document as Markdown (CommonMark with GitHub's tables); charts become their words, images are left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from medvlm.report.document import (
    Block,
    Case,
    Cases,
    Caution,
    Chart,
    Code,
    Document,
    Facts,
    Piece,
    Table,
    Text,
    groups,
    printable,
)

# Every ASCII punctuation mark that can mean something inside a line; a backslash before it takes that away.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&#$!])")


def render(document: Document) -> str:
    """Return the document as Markdown text that ends with a line break."""
    parts = [f"# {escape(document.title)}"]
    if document.labels:
        parts.append(" · ".join(f"**{escape(label)}**" for label in document.labels))
    parts.extend(map(paragraph, document.lead))
    for section in document.sections:
        parts.append(f"{'#' * section.level} {escape(section.title)}")
        for block in section.blocks:
            parts.extend(_block(block))
    return printable("\n\n".join(part for part in parts if part) + "\n")


def escape(text: str) -> str:
    """Return `text` on one line, with nothing left that Markdown or HTML would take as markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def paragraph(text: str) -> str:
    """Return `escape(text)` with a beginning that would make it a list or a rule taken away too."""
    return re.sub(r"^(\d{1,9})?([-+=.)])", r"\1\\\2", escape(text))


def fence(text: str, language: str = "") -> str:
    """Return `text` as a code block whose fence is longer than any row of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    bar = "`" * max(3, longest + 1)
    return f"{bar}{language}\n{text.rstrip()}\n{bar}"


def table(block: Table) -> str:
    """Return a table with one line a row."""
    rules = ("---:" if column in block.numeric else "---" for column in range(len(block.header)))
    lines = [_row(map(escape, block.header)), _row(rules)]
    lines.extend(_row(escape(cell) for cell in row) for row in block.rows)
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Text):
        yield paragraph(block.text)
    elif isinstance(block, Caution):
        yield f"> **Warning:** {escape(block.text)}"
    elif isinstance(block, Facts):
        yield "\n".join(f"- {paragraph(name)}: {escape(value)}" for name, value in block.rows)
    elif isinstance(block, Table):
        if block.caption:
            yield f"*{escape(block.caption)}*"
        yield table(block)
    elif isinstance(block, Code):
        yield fence(block.text, block.language)
    elif isinstance(block, Chart):
        yield paragraph(block.words)
    elif isinstance(block, Cases):
        yield from _cases(block.cases)


_LEGEND = (
    "Against the nearest reference: ~~struck out~~ only in the reference, **bold** only in the prediction, "
    "***bold and slanted*** they contradict each other."
)
_MARKS = {"": "", "missing": "~~", "extra": "**", "opposite": "***"}


def _cases(cases: Sequence[Case]) -> Iterator[str]:
    if cases:
        yield _LEGEND
    for _, title, remark, own in groups(cases):
        yield f"**{escape(title)}**"
        if remark:
            yield paragraph(remark)
        yield from map(_case, own)


def _case(case: Case) -> str:
    references, prediction = case.pieces()
    lines = [f"- **{escape(case.kind)}: {escape(case.told)}**, {escape(case.task)} {escape(case.id)}"]
    lines.extend(f"  - contradiction: {escape(flip)}" for flip in case.flips)
    if case.prompt:
        lines.append(f"  - question: {escape(case.prompt)}")
    lines.extend(f"  - reference: {marked(reference)}" for reference in references)
    if case.more_references:
        lines.append(f"  - and {case.more_references} more references")
    lines.append(f"  - prediction: {marked(prediction) or '(empty)'}")
    lines.extend(f"  - where it looks: {escape(said)}" for said in case.maps_said)
    if case.credit:
        lines.append(f"  - image: {escape(case.credit)}")
    return "\n".join(lines)


def marked(pieces: Sequence[Piece]) -> str:
    """Return the pieces on one line; marks hug the words, since beside a blank they would be none."""
    parts = []
    for piece in pieces:
        inner = escape(piece.text)
        sign = _MARKS[piece.mark] if inner else ""
        before = " " if piece.text[:1].isspace() else ""
        after = " " if inner and piece.text[-1:].isspace() else ""
        parts.append(f"{before}{sign}{inner}{sign}{after}")
    return re.sub(" {2,}", " ", "".join(parts)).strip()
