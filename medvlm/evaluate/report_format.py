"""A generated text as a radiology report: findings, impression, and the line that says what it is."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

DRAFT = "draft, to be read by a radiologist"
NOT_STATED = "not stated"
SECOND_PASS = "second pass"

_HEADING = re.compile(
    # At the text's beginning, on a line of its own, or after the end of a sentence.
    r"(?:^|(?<=[.!?:;])\s|\n)[ \t*#]*(?P<name>findings?|impressions?|conclusions?)[ \t*]*:[ \t*]*",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Sections:
    """What a text says, or None where it does not."""

    findings: str | None
    impression: str | None


def parse(text: str) -> Sections:
    """Return the sections under the headings "Findings:" and "Impression:" (or "Conclusion:"), in any order.

    A text without headings is findings as a whole. Before the first heading stand findings, too; nothing is invented.
    """
    found: dict[str, list[str]] = {"findings": [], "impression": []}
    matches = list(_HEADING.finditer(text))
    starts = [match.start() for match in matches] + [len(text)]
    found["findings"].append(text[: starts[0]])
    for match, end in zip(matches, starts[1:], strict=True):
        name = "findings" if match["name"].lower().startswith("finding") else "impression"
        found[name].append(text[match.end() : end])
    joined = {name: " ".join(part for part in map(_tidy, parts) if part) for name, parts in found.items()}
    return Sections(joined["findings"] or None, joined["impression"] or None)


def _tidy(text: str) -> str:
    return " ".join(text.replace("**", "").split())


def record(text: str, asked: str | None = None) -> dict[str, str]:
    """Return the report of a generated text.

    Args:
        text: what the model wrote.
        asked: what it answered when asked for an impression; used only where the text states none.
    """
    sections = parse(text)
    impression, source = sections.impression, "text"
    if impression is None:
        impression, source = _tidy(asked or "") or None, SECOND_PASS
    return {
        "status": DRAFT,
        "findings": sections.findings or NOT_STATED,
        "impression": impression or NOT_STATED,
        "impression_from": source if impression else NOT_STATED,
    }


def render(row: Mapping[str, Any]) -> str:
    """Return the report of a record of `medvlm predict` as text; the same record gives the same text."""
    report = row["report"]
    asked = " (not in the text: asked for in a second pass)" if report["impression_from"] == SECOND_PASS else ""
    lines = [
        report["status"],
        f"Image: {row['image']}",
        f"Model: {row['model']}, run {row['run']}",
        "",
        "Findings:",
        report["findings"],
        "",
        f"Impression{asked}:",
        report["impression"],
    ]
    if row.get("rationale"):
        lines += ["", "The model's own rationale:", row["rationale"]]
    return "\n".join([*lines, ""])
