"""Captions of compound figures split at their panel markers, against expectations written by hand."""

from __future__ import annotations

import collections
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.figures.captions import split_panels

# caption -> shared text, {labels: text}
STYLES: list[tuple[str, str, dict[str, str]]] = [
    ("(A) Axial CT. (B) Coronal CT.", "", {"a": "Axial CT.", "b": "Coronal CT."}),
    ("Knee. A, Axial CT. B, Coronal CT.", "Knee.", {"a": "Axial CT.", "b": "Coronal CT."}),
    ("A: axial CT; B: MRI", "", {"a": "axial CT", "b": "MRI"}),
    ("A. Axial CT. B. Coronal.", "", {"a": "Axial CT.", "b": "Coronal."}),
    ("Chest. A) One. B) Two.", "Chest.", {"a": "One.", "b": "Two."}),
    ("Images. (a–c) CT. (d) MRI.", "Images.", {"a b c": "CT.", "d": "MRI."}),
    ("(A, B) Axial. (C) Sagittal.", "", {"a b": "Axial.", "c": "Sagittal."}),
    ("(A) and (B) Axial. (C) Sagittal.", "", {"a b": "Axial.", "c": "Sagittal."}),
    ("(i) One; (ii) two; (iii) three.", "", {"i": "One", "ii": "two", "iii": "three."}),
    ("（A）CT。（B）MRI", "", {"a": "CT。", "b": "MRI"}),
    ("Left: CT; right: MRI.", "", {"left": "CT", "right": "MRI."}),
    ("Bones. Top row: hand. Bottom row: foot.", "Bones.", {"top": "hand.", "bottom": "foot."}),
    ("CT (left) and MRI (right) of the knee.", "of the knee", {"left": "CT", "right": "and MRI"}),
    ("Axial CT (A) and coronal MRI (B).", "", {"a": "Axial CT", "b": "and coronal MRI"}),
    ("Tumor. Axial CT (A), MRI (B), both in May.", "Tumor. both in May", {"a": "Axial CT", "b": "MRI"}),
    ("Axial CT (A) shows a mass. MRI (B) shows a node.", "", {"a": "Axial CT shows a mass.", "b": "MRI shows a node."}),
    ("Film showing (A) the mass and (B) the node.", "Film showing", {"a": "the mass and", "b": "the node."}),
    ("X. (A, upper) One. (A, lower) Two. (B) Three.", "X.", {"a": "One. Two.", "b": "Three."}),
    ("Head. (A) CT. (B) MRI. (A, B) Both at night.", "Head.", {"a": "CT. Both at night.", "b": "MRI. Both at night."}),
    ("(A–B) Scans: (A) one; (B) two.", "", {"a": "Scans: one", "b": "Scans: two."}),
]

# Words of the shared articles; the expectations were read off the captions.
REAL: list[tuple[str, str, dict[str, str]]] = [
    (
        (
            "Diagram showing a thresher shark's position relative to the bait ball during (A) overhead; and "
            "(B) sideways tail-slaps."
        ),
        "Diagram showing a thresher shark's position relative to the bait ball during",
        {"a": "overhead; and", "b": "sideways tail-slaps."},
    ),
    (
        (
            "Forest plot for the association between p16INK4a expression and clinicopathological markers(A) FIGO stage."
            "(B) LN metastasis. (C) Patient's age."
        ),
        "Forest plot for the association between p16INK4a expression and clinicopathological markers",
        {"a": "FIGO stage.", "b": "LN metastasis.", "c": "Patient's age."},
    ),
    (
        (
            "Jackknife variable contribution test for Calotropis procera ( a), Prosopis cineraria ( b) and Ziziphus "
            "spina-christi ( c)."
        ),
        "",
        {
            "a": "Jackknife variable contribution test for Calotropis procera",
            "b": "Prosopis cineraria",
            "c": "and Ziziphus spina-christi",
        },
    ),
    (
        "Osteoderm fragments. A, external; and B, internal views. C, external; and D, internal views, FMNH PR 2512.",
        "Osteoderm fragments.",
        {
            "a": "external; and",
            "b": "internal views.",
            "c": "external; and",
            "d": "internal views, FMNH PR 2512.",
        },
    ),
    (
        "Direct validation. A) Genetically variant peptides were identified. B) Probabilities.",
        "Direct validation.",
        {"a": "Genetically variant peptides were identified.", "b": "Probabilities."},
    ),
    (
        (
            "Separation of Rhodobacter species. Subnetworks constructed from (a) 3-way best edge Network (b) 3-way "
            "best edge Czekanowski Network (c) Gene family enrichment network."
        ),
        "Separation of Rhodobacter species. Subnetworks constructed from",
        {
            "a": "3-way best edge Network",
            "b": "3-way best edge Czekanowski Network",
            "c": "Gene family enrichment network.",
        },
    ),
]

NOT_COMPOUND = [
    "",
    "Axial CT of the abdomen.",
    "See Fig 2A and Fig. 2(B).",
    "Levels of vitamin A. B cells were counted.",
    "Patients of group (A) and group (B).",
    "Patients of group (A) were older than those of group (B).",
    "Structure of (R)-limonene and (S)-limonene.",
    "Influenza (A) and hepatitis (B) in children.",
    "Tails of poly(A) were longer.",
    "The blood groups A, B and O.",
    "Only one letter (A) is marked.",
    "The second (B) comes before the first.",
    "Values (n) and means (m) of the sample.",
    "Adapted from J. A. Smith and B. Jones.",
    "The left kidney is larger than the right kidney.",
]


@pytest.mark.parametrize(("caption", "lead", "texts"), STYLES + REAL)
def test_panels_of_captions(caption: str, lead: str, texts: dict[str, str]) -> None:
    panels = split_panels(caption)
    assert panels is not None
    assert panels.lead == lead
    assert panels.labels() == [label for labels in texts for label in labels.split()]
    for labels, text in texts.items():
        for label in labels.split():
            assert panels.text_of(label) == " ".join(part for part in (lead, text) if part)


@pytest.mark.parametrize("caption", NOT_COMPOUND)
def test_captions_without_panels(caption: str) -> None:
    assert split_panels(caption) is None


_MARKS = {
    "and",
    "to",
    "the",
    "on",
    "left",
    "right",
    "top",
    "bottom",
    "upper",
    "lower",
    "middle",
    "panel",
    "panels",
    "row",
}


def _lost(caption: str) -> set[str]:
    """Return the words of a caption, markers aside, that are in no part of it."""
    panels = split_panels(caption)
    if panels is None:
        return set()
    words = collections.Counter(re.findall(r"\w+", caption))
    kept = collections.Counter(re.findall(r"\w+", " ".join([panels.lead, *(text for _, text in panels.parts)])))
    return {w for w in words - kept if w.lower() not in _MARKS and not re.fullmatch(r"[A-Za-z]|[ivx]+", w)}


_PIECES = st.sampled_from(
    ["(A)", "(B)", "(c)", "(A, B)", "(a-c)", "A,", "B.", "A)", "Left:", "(right)", ".", ";", ",", "and", "Axial CT",
     "mass", "Fig", "shows", "（B）", "(i)", "(ii)", "–", "\n", "Ωμ", "x^2"]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=14), st.sampled_from(["", " "]))
def test_no_word_is_lost(pieces: list[str], gap: str) -> None:
    assert _lost(gap.join(pieces)) == set()


@given(st.text(max_size=60))
def test_any_text_is_read(text: str) -> None:
    panels = split_panels(text)
    assert panels is None or (len(panels.labels()) >= 2 and all(part.strip() for _, part in panels.parts))


@given(
    st.lists(st.sampled_from(["Axial CT", "Sagittal MRI of the knee", "Photomicrograph"]), min_size=2, max_size=9),
    st.sampled_from(["({})", "{})", "{},", "{}:", "{}."]),
    st.booleans(),
)
def test_captions_put_together_come_apart(texts: list[str], style: str, upper: bool) -> None:
    letters = "ABCDEFGHI" if upper else "abcdefghi"
    caption = " ".join(f"{style.format(letter)} {text}." for letter, text in zip(letters, texts, strict=False))
    panels = split_panels(caption)
    assert panels is not None
    assert panels.parts == [((letter.lower(),), f"{text}.") for letter, text in zip(letters, texts, strict=False)]


@pytest.mark.realdata
def test_no_word_of_real_captions_is_lost(realdata: Path) -> None:
    from medvlm.data.sources.pmc import jats, xml

    split = 0
    for file in sorted((realdata / "jats_plos").glob("*.xml")):
        for document in xml.read_documents(file.read_bytes()):
            for figure in jats.read_article(document).figures:
                assert _lost(figure.caption) == set(), figure.caption
                split += split_panels(figure.caption) is not None
    assert split > 50
