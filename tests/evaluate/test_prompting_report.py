"""Findings and impression out of a generated text; nothing is invented."""

from __future__ import annotations

import pytest

from medvlm.evaluate.report_format import DRAFT, NOT_STATED, Sections, parse, record, render


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("Findings: The heart is big. Impression: Cardiomegaly.", "The heart is big.", "Cardiomegaly."),
        ("FINDINGS:\nclear lungs\n\nIMPRESSION:\nnormal", "clear lungs", "normal"),
        ("**Findings:** clear.\n**Conclusion:** normal.", "clear.", "normal."),
        ("## Impression: nodule. ## Findings: a 5 mm spot", "a 5 mm spot", "nodule."),
        ("Chest film. Finding: clear. Impressions: none", "Chest film. clear.", "none"),
        ("a nodule in the left lung", "a nodule in the left lung", None),
        ("no findings to report: clear lungs", "no findings to report: clear lungs", None),
        ("Impression: normal", None, "normal"),
        ("Findings: clear. Impression:", "clear.", None),
        ("", None, None),
    ],
)
def test_sections(text: str, findings: str | None, impression: str | None) -> None:
    assert parse(text) == Sections(findings, impression)


def test_what_is_not_stated_is_not_made_up() -> None:
    assert record("a nodule") == {
        "status": DRAFT,
        "findings": "a nodule",
        "impression": NOT_STATED,
        "impression_from": NOT_STATED,
    }
    assert record("", "")["findings"] == NOT_STATED


def test_an_impression_of_its_own_wins_over_one_asked_for() -> None:
    assert record("Findings: a. Impression: b.", "c")["impression"] == "b."
    asked = record("a", "c")
    assert (asked["impression"], asked["impression_from"]) == ("c", "second pass")


def test_the_text_says_what_it_is_and_whose() -> None:
    row = {"image": "x.png", "model": "m", "run": "r", "report": record("a nodule")}
    lines = render(row).splitlines()
    assert lines[0] == "draft, to be read by a radiologist"
    assert {"Image: x.png", "Model: m, run r", "Findings:", "a nodule", "Impression:", NOT_STATED} <= set(lines)


def test_an_impression_that_was_asked_for_says_so() -> None:
    row = {"image": "x.png", "model": "m", "run": "r", "report": record("a nodule", "malignant")}
    assert "Impression (not in the text: asked for in a second pass):\nmalignant" in render(row)
