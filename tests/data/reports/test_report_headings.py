"""Reports split by their headings, and the section to learn."""

from __future__ import annotations

import re
import textwrap
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.reports import Sections, chosen, clean, lacking, sections, target
from medvlm.data.reports.headings import PART_OF, REPORT
from medvlm.errors import UsageError

FULL = (
    "                                 FINAL REPORT\n"
    " EXAMINATION:  CHEST (PA AND LAT)\n"
    " \n"
    " INDICATION:  ___ year old woman with cough  // pneumonia?\n"
    " \n"
    " TECHNIQUE:  Chest PA and lateral\n"
    " \n"
    " COMPARISON:  Chest radiograph ___\n"
    " \n"
    " FINDINGS: \n"
    " \n"
    " The heart is normal in size.  There is no pleural effusion or\n"
    " pneumothorax.\n"
    " \n"
    " IMPRESSION: \n"
    " \n"
    " 1. No acute disease.\n"
    " 2. Healed fracture of the left 7th rib.\n"
)


def test_a_report_of_the_usual_form() -> None:
    found = sections(FULL)
    assert clean(found.findings) == "The heart is normal in size. There is no pleural effusion or pneumothorax."
    assert found.impression == "1. No acute disease.\n 2. Healed fracture of the left 7th rib."
    assert found.indication == "___ year old woman with cough  // pneumonia?"
    assert found.technique == "Chest PA and lateral"
    assert found.comparison == "Chest radiograph ___"
    assert found.rest == "CHEST (PA AND LAT)"
    assert not found.unheaded


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_choices(end: str) -> None:
    found = sections(FULL.replace("\n", end))
    findings, impression = chosen(found, "findings"), chosen(found, "impression")
    assert findings == found.findings
    assert impression == found.impression
    assert chosen(found, "both") == f"{findings}\n{impression}"
    assert clean(chosen(found, "both") or "").endswith("No acute disease. Healed fracture of the left 7th rib.")


def test_what_was_said_before_the_final_report_is_not_it() -> None:
    text = f" WET READ: ___ ___ 5:32 PM\n FINDINGS: Large effusion.\n {'_' * 78}\n{FULL}"
    found = sections(text)
    assert found.findings == sections(FULL).findings
    assert "Large effusion." in found.rest
    assert "5:32 PM" in found.rest


def test_what_follows_the_report_is_not_it() -> None:
    found = sections(
        FULL + "\n RECOMMENDATION(S):  CT of the chest.\n \n NOTIFICATION:  By phone.\n \n ADDENDUM:  Late.\n"
    )
    assert found.impression == sections(FULL).impression
    assert found.rest.split("\n")[1:] == ["CT of the chest.", "By phone."]
    assert found.addendum == "Late."


@pytest.mark.parametrize(
    "heading", ["FINDINGS AND IMPRESSION", "Findings/Impression", "findings & impression", "Befund und Beurteilung"]
)
def test_one_heading_for_both(heading: str) -> None:
    found = sections(f"INDICATION: cough\n\n{heading}: No effusion.")
    assert chosen(found, "findings") == chosen(found, "impression") == chosen(found, "both") == "No effusion."
    found = sections(f"{heading}: No effusion.\nIMPRESSION: Normal.")
    assert (found.findings, found.impression) == ("No effusion.", "Normal.")


def test_headings_within_a_description_stay_in_it() -> None:
    found = sections(
        "FINDINGS:\nLUNGS: Clear.\nHEART AND MEDIASTINUM: Normal.\nPORTABLE CHEST: done\nIMPRESSION: Normal."
    )
    assert found.findings.split("\n") == ["LUNGS: Clear.", "HEART AND MEDIASTINUM: Normal.", "PORTABLE CHEST: done"]
    found = sections("INDICATION: Cough.\nORDERING SERVICE: ED\nFINDINGS: Clear.")
    assert found.indication == "Cough."
    assert "ORDERING SERVICE: ED" in found.rest


def test_a_view_as_the_heading_of_the_findings() -> None:
    assert (
        sections("CHEST, TWO VIEWS:  The heart is large.\nIMPRESSION: Large heart.").findings == "The heart is large."
    )
    found = sections("CHEST, PA AND LATERAL:\n\nHISTORY: Cough.\n\nFINDINGS: Clear.")
    assert found.findings == "Clear."
    assert found.rest == "CHEST, PA AND LATERAL:"


@pytest.mark.parametrize("heading", ["REASON FOR EXAMINATION", "TECHNIQUE", "COMPARISON", "EXAMINATION"])
def test_a_description_under_no_heading(heading: str) -> None:
    text = f" FINAL REPORT\n {heading}:  Tube placed.\n \n Compared to ___.\n \n The tube ends 5 cm above the carina.\n"
    found = sections(text)
    assert found.unheaded == "Compared to ___.\n\n The tube ends 5 cm above the carina."
    assert "Tube placed." in (found.indication, found.technique, found.comparison, found.rest)
    assert chosen(found, "both") == found.unheaded
    assert chosen(found, "findings") is None
    assert lacking(found, "findings") == "no findings"
    found = sections(f"{text} \n IMPRESSION: Well placed.")
    assert chosen(found, "both") == "Compared to ___.\n\n The tube ends 5 cm above the carina.\nWell placed."


def test_a_text_without_headings_is_a_report_as_it_stands() -> None:
    found = sections("  Clear lungs. No effusion.\n")
    assert found == Sections(unheaded="Clear lungs. No effusion.")
    assert chosen(found, "both") == "Clear lungs. No effusion."
    assert lacking(found, "impression") == "no impression"


def test_a_title_is_no_description() -> None:
    found = sections("CHEST RADIOGRAPH\n\nFINAL REPORT\nPortable chest\n\nLungs are clear.\n\nIMPRESSION: Normal.")
    assert found.unheaded == "Lungs are clear."
    assert found.rest == "CHEST RADIOGRAPH\nPortable chest"


@pytest.mark.parametrize(
    ("text", "choice", "reason"),
    [
        ("", "both", "no findings or impression"),
        ("FINDINGS:\nIMPRESSION: Normal.", "findings", "no findings"),
        ("FINDINGS: Clear.", "impression", "no impression"),
        ("FINDINGS: XXXX XXXX.", "findings", "report says nothing but marks"),
        ("FINDINGS: ___\nIMPRESSION: ___", "both", "report says nothing but marks"),
        ("INDICATION: Cough.", "both", "no findings or impression"),
    ],
)
def test_what_a_report_lacks(text: str, choice: str, reason: str) -> None:
    assert chosen(sections(text), choice) is None
    assert lacking(sections(text), choice) == reason


def test_one_of_two_sections_is_enough_for_both() -> None:
    assert chosen(Sections(impression="Normal."), "both") == "Normal."
    assert chosen(Sections(findings="Clear."), "both") == "Clear."


def test_an_unknown_choice() -> None:
    with pytest.raises(UsageError, match="findings, impression or both"):
        chosen(Sections(), "finding")


def test_a_report_whose_line_breaks_are_lost() -> None:
    found = sections("EXAMINATION: CHEST INDICATION: Cough FINDINGS: Clear. Impression: Normal. No findings: none.")
    assert (found.indication, found.findings, found.impression) == ("Cough", "Clear.", "Normal. No findings: none.")


BODIES = st.lists(
    st.sampled_from(
        ["The heart is large.", "No effusion,", "5 mm nodule", "on the left", "in comparison to ___", "clear"]
    ),
    min_size=1,
    max_size=4,
).map(" ".join)
FORMS = [
    "{NAME}: {body}",
    "{Name}: {body}",
    "{name}: {body}",
    "{NAME}\n{body}",
    "{NAME}\n-------\n\n{body}",
    " {NAME}:  {body}",
]
FORMS += ["**{Name}:** {body}", "## {Name}\n{body}", "{NAME} :\n{body}", "{NAME} - {body}"]


@given(
    st.lists(
        st.sampled_from(sorted(set(PART_OF) - {"final report", "final radiology report", *REPORT})),
        min_size=1,
        max_size=6,
    ),
    st.data(),
)
def test_every_heading_in_every_form(names: list[str], data: st.DataObject) -> None:
    """A report put together from headings and bodies comes apart into them; some forms need a blank line above."""
    expected: dict[str, list[str]] = {}
    lines = []
    for name in names:
        body, form = data.draw(BODIES), data.draw(st.sampled_from(FORMS))
        # In lower case a sentence might run on, in Titlecase a history might be one sentence of a description.
        own = "{Name}" in form and PART_OF[name] in ("indication", "comparison", "technique")
        above = "\n" if form.startswith("{name}") or own else ""
        lines.append(above + form.format(NAME=name.upper(), Name=name.capitalize(), name=name, body=body))
        expected.setdefault(PART_OF[name], []).append(body)
    found = sections(data.draw(st.sampled_from(["\n", "\n\n", "\n \n"])).join(lines))
    both = expected.pop("both", [])
    expected["findings"] = [*expected.get("findings", []), *both]
    expected["impression"] = expected.get("impression") or both
    for part in ("findings", "impression", "indication", "comparison", "technique", "rest", "addendum"):
        assert getattr(found, part) == "\n".join(expected.get(part, [])), part
    assert not found.unheaded


RUNNING = [
    "Stable since the prior study: large left pneumothorax.",
    "Compared with the prior exam: no effusion.",
    "See the final report: CT of today, no mass.",
    "There are the following findings: no effusion, left nodule.",
    "For details see the history: prior right lobectomy.",
    "Related to technique: no change on the left.",
    "Not in keeping with the clinical impression: no pneumonia.",
    "THERE IS NO CHANGE OF THE LEFT PLEURAL EFFUSION SINCE THE PRIOR EXAM: STABLE NODULE, NO PNEUMOTHORAX RIGHT.",
    "Nodule of 3 - 4 mm.",
    "No pneumothorax.",
]


@given(
    st.lists(st.sampled_from(RUNNING), min_size=1, max_size=4),
    st.lists(st.sampled_from(RUNNING), min_size=1, max_size=4),
    st.integers(60, 90),
    st.sampled_from(["\n", "\n \n"]),
    st.booleans(),
)
def test_sentences_that_name_a_heading_stay_whole_wherever_they_are_wrapped(
    findings: list[str], impression: list[str], width: int, gap: str, stops: bool
) -> None:
    """Every sentence is in its section, in its order, and no negation, side or size leaves it."""
    texts = [" ".join(sentences).removesuffix("." if not stops else "\0") for sentences in (findings, impression)]
    lines = ["\n ".join(textwrap.wrap(text, width, break_on_hyphens=False)) for text in texts]
    found = sections(f" FINDINGS: {lines[0]}{gap} IMPRESSION: {lines[1]}\n")
    assert [target(found, choice) for choice in ("findings", "impression")] == texts
    if texts[0] != texts[1]:
        assert target(found, "both") == f"{texts[0].removesuffix('.')}. {texts[1]}"


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower().replace("_", " ")))


LINES = [
    *(f"{name.upper()}: no effusion" for name in sorted(PART_OF)),
    "LUNGS: clear",
    "CHEST, PA:",
    "CHEST, TWO VIEWS: heart",
    "",
    " ",
    "left 5 mm",
    "FINAL REPORT",
    "-----",
]


@given(st.lists(st.sampled_from(LINES) | st.text(max_size=30), max_size=15).map("\n".join) | st.text(max_size=300))
def test_no_word_is_lost(text: str) -> None:
    """What is in no section is a heading."""
    found = sections(text)
    parts = [found.findings, found.impression, found.indication, found.comparison, found.technique, found.rest]
    names = {word for name in PART_OF for word in re.findall(r"\w+", name)}
    assert set(_words(text) - _words("\n".join([*parts, found.unheaded, found.addendum]))) <= names
