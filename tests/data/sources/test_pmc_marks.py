"""Which captions are compound: by hand, against the splitter, and on the labelled figures."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medvlm.data.figures.captions import split_panels
from medvlm.data.sources.pmc import jats, xml
from medvlm.data.sources.pmc.marks import marks_panels

TABLE = Path(__file__).parents[1] / "figures" / "modality_labels.tsv"

MARKED = [
    "(A) CT. (B) MRI.",
    "A, CT; B, MRI.",
    "(a/b) CT before and after.",
    "(A-C) CT.",
    "(A; B) CT.",
    "Survival. Left, for all patients. Right, for those with chemotherapy.",
    "CT (top panel) and MRI (bottom panels) of the knee.",
    "Shells. Top row: light. Middle row: dark. Bottom row: both.",
    "(i) One; (ii) two.",
    "\uff08A\uff09CT\u3002\uff08B\uff09MRI",
]
UNMARKED = [
    "",
    "Axial CT of the left knee; the right knee was not scanned.",
    "The top of the femur and the bottom of the foot.",
    "Mass (left).",
    "Left: CT.",
    "Levels of vitamin A and vitamin B in groups.",
    "Stages (ii) and (iii) of the disease.",
]


@pytest.mark.parametrize("caption", MARKED)
def test_marked(caption: str) -> None:
    assert marks_panels(caption)


@pytest.mark.parametrize("caption", UNMARKED)
def test_unmarked(caption: str) -> None:
    assert not marks_panels(caption)


def _labelled(realdata: Path) -> list[tuple[str, str, str]]:
    """Return (split, label, caption) of each labelled figure whose article is no archive."""
    with TABLE.open(encoding="utf-8") as file:
        rows = {(row["article"], row["figure"]): row for row in csv.DictReader(file, delimiter="\t")}
    found = []
    for article in sorted({article for article, _ in rows if not article.endswith(".zip")}):
        for document in xml.read_documents((realdata / article).read_bytes()):
            for figure in jats.read_article(document).figures:
                row = rows.get((article, figure.key))
                if row is not None:
                    found.append((row["split"], row["compound"], figure.caption))
    return found


@pytest.mark.realdata
def test_labelled_figures(realdata: Path) -> None:
    """188 of 209 agree on dev and 233 of 254 on test; nearly all others show their panels without naming them."""
    told = [(split, label, marks_panels(text)) for split, label, text in _labelled(realdata) if label != "unclear"]
    for split in ("dev", "test"):
        answers = [((label == "yes"), marked) for name, label, marked in told if name == split]
        assert len(answers) > 200
        assert sum(true == marked for true, marked in answers) / len(answers) > 0.88
        assert sum(marked for true, marked in answers if not true) <= 4


@pytest.mark.realdata
def test_what_can_be_split_is_marked(realdata: Path) -> None:
    captions = [text for _, _, text in _labelled(realdata)]
    assert sum(split_panels(text) is not None for text in captions) > 280
    assert [text for text in captions if split_panels(text) is not None and not marks_panels(text)] == []
