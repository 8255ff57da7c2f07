"""Questions made from captions: their facts, their balance, their form."""

from __future__ import annotations

import collections
from typing import Any

import pytest
from figure_samples import figure
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.figures import questions, terms
from medvlm.data.figures.modality import GROUPS, MODALITIES
from medvlm.data.sample import Sample

FINDINGS: list[tuple[str, dict[str, bool]]] = [
    ("Chest radiograph with a large pleural effusion.", {"pleural effusion": True}),
    ("No pleural effusion or pneumothorax.", {"pleural effusion": False, "pneumothorax": False}),
    ("CT showing a mass with a cyst but without calcification.", {"mass": True, "cyst": True, "calcification": False}),
    ("There is no hematoma, the fracture is displaced.", {"hematoma": False, "fracture": True}),
    ("Fracture of the hip. A pneumothorax is not present.", {"fracture": True, "pneumothorax": False}),
    ("The abscess has resolved.", {"abscess": False}),
    ("No evidence of metastasis; a cyst is seen.", {"metastasis": False, "cyst": True}),
    ("Negative for fractures.", {"fracture": False}),
    ("Possible fracture of the rib.", {}),
    ("The mass may be a cyst.", {}),
    ("Findings suggest pneumonia.", {}),
    ("Is it a polyp?", {}),
    ("CT before removal of the mass.", {}),
    ("A cyst. The cyst is suspected to be old.", {}),
    ("A cyst on the left. No cyst on the right.", {}),
    ("MRI shows edema but no mass effect.", {"edema": True}),
    ("Body mass index of the patients.", {}),
    ("Massive swelling; the cystic duct.", {}),
]


@pytest.mark.parametrize(("text", "expected"), FINDINGS)
def test_findings(text: str, expected: dict[str, bool]) -> None:
    assert questions.findings_of(text) == expected


@pytest.mark.parametrize(
    ("text", "organ"),
    [
        ("CT of the liver.", "liver"),
        ("Renal cyst.", "kidney"),
        ("CT of liver and kidney.", None),
        ("A man.", None),
        ("Liverpool.", None),
        ("Hepatic mass in the liver", "liver"),
    ],
)
def test_organ(text: str, organ: str | None) -> None:
    assert questions.organ_of(text) == organ


def ct(caption: str, number: int = 0, **changes: Any) -> Sample:
    return figure(caption, **{"id": f"PMC{number}/F1/-/caption/0", "modality": "ct", "compound": False, **changes})


def test_one_caption() -> None:
    caption = "Axial CT scan of the liver with a mass in the right lobe and no ascites."
    asked = questions.make(ct(caption, label="Figure 1", license="CC-BY-4.0"))
    kinds = [(one.question_type, one.answer_type) for one in asked]
    assert kinds == [
        ("modality", "open"),
        ("modality", "closed"),
        ("organ", "open"),
        ("organ", "closed"),
        ("side", "choice"),
        ("side", "closed"),
        ("denied finding", "closed"),
        ("finding", "closed"),
    ]
    assert [asked[index].target for index in (0, 2, 4)] == ["CT scan", "liver", "right"]
    assert asked[4].choices == ["left", "right"]
    assert [one.id for one in asked] == [f"PMC0/F1/-/vqa/{index}" for index in range(8)]
    assert {one.original_text for one in asked} == {caption}
    assert {(one.task, one.label, one.license) for one in asked} == {("vqa", "Figure 1", "CC-BY-4.0")}
    assert questions.make(ct(caption, label="Figure 1", license="CC-BY-4.0")) == asked


def test_open_finding_only_where_it_is_the_only_one() -> None:
    (one,) = [
        q for q in questions.make(ct("CT with a cyst.")) if (q.question_type, q.answer_type) == ("finding", "open")
    ]
    assert (one.prompt, one.target) == ("Which abnormality does the image show?", "cyst")


@pytest.mark.parametrize(
    ("caption", "changes"),
    [
        ("Axial CT.", {"modality": None}),
        ("A scan and a plot.", {"modality": "mixed"}),
        ("Corte axial del hígado.", {"language": "es"}),
    ],
)
def test_captions_without_questions(caption: str, changes: dict[str, Any]) -> None:
    assert questions.make(ct(caption, **changes)) == []


@pytest.mark.parametrize("changes", [{"compound": True}, {"modality": "plot"}])
def test_only_the_modality_is_asked_of_drawings_and_several_panels(changes: dict[str, Any]) -> None:
    asked = questions.make(ct("Mass in the right liver.", **changes))
    assert {one.question_type for one in asked} == {"modality"}


@pytest.mark.parametrize(
    "caption",
    [
        "CT, left panel.",
        "CT of both knees, left worse.",
        "Right and left lung on CT.",
        "CT (right)",
        "The mass is on the left.",
    ],
)
def test_sides_in_doubt_are_not_asked(caption: str) -> None:
    assert not [one for one in questions.make(ct(caption)) if one.question_type == "side"]


def test_second_graphic_of_one_place_has_its_own_ids() -> None:
    ids = {one.id for ordinal in (0, 1) for one in questions.make(ct("CT scan.", id=f"PMC1/F1/-/caption/{ordinal}"))}
    assert len(ids) == 4


def test_yes_and_no_are_balanced_in_each_template() -> None:
    caption = "CT of the {organ} on the left side with {here}, without {gone}."
    findings = list(terms.FINDINGS)
    organs = [organ for organ in terms.ORGANS if organ != "skin"]
    clinical = GROUPS["clinical"]
    answers: dict[str | None, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for number in range(600):
        here, gone = findings[number % len(findings)], findings[(number + 5) % len(findings)]
        text = caption.format(organ=organs[number % len(organs)], here=here, gone=gone)
        for one in questions.make(ct(text, number, modality=clinical[number % len(clinical)])):
            if one.answer_type == "closed":
                answers[one.question_type][one.target] += 1
    assert set(answers) == {"modality", "organ", "side", "finding", "denied finding"}
    for kind, counts in answers.items():
        assert set(counts) == {"yes", "no"}
        assert counts.total() > 200
        # Four standard deviations of a fair coin.
        assert abs(counts["yes"] - counts["no"]) < 4 * counts.total() ** 0.5, kind


@given(
    st.integers(0, 10**6),
    st.sampled_from(sorted(terms.FINDINGS)),
    st.sampled_from(sorted(terms.FINDINGS)),
)
def test_answers_are_those_of_the_caption(number: int, here: str, gone: str) -> None:
    if (
        here == gone
        or terms.whole_words(terms.FINDINGS[here]).search(gone)
        or terms.whole_words(terms.FINDINGS[gone]).search(here)
    ):
        return
    for one in questions.make(ct(f"CT with {here}. There is no {gone}.", number)):
        if one.question_type in ("finding", "denied finding") and one.answer_type == "closed":
            (asked,) = [
                name for name in terms.FINDINGS if f"{name} in the image?" in one.prompt or f"{name}?" in one.prompt
            ][-1:]
            if one.prompt.startswith("Is the image free of"):
                assert (one.target, gone) == ("yes", asked) or asked in gone
            else:
                assert one.target == ("yes" if here.endswith(asked) else "no")


def test_kin_of_a_finding_is_not_asked_as_absent() -> None:
    asked = [one.prompt for number in range(200) for one in questions.make(ct("CT with a hematoma.", number))]
    prompts = {prompt for prompt in asked if prompt.startswith("Is there")}
    assert len(prompts) > 10
    assert not prompts & {
        "Is there hemorrhage in the image?",
        "Is there a mass in the image?",
        "Is there a cyst in the image?",
    }


def test_every_finding_has_a_counterpart() -> None:
    for name in terms.FINDINGS:
        closed = [one for number in range(20) for one in questions.make(ct(f"CT with {name}.", number))]
        assert {one.target for one in closed if one.question_type == "finding" and one.answer_type == "closed"} == {
            "yes",
            "no",
        }


def test_vocabularies_fit_together() -> None:
    assert set(terms.NAMES) == {*MODALITIES} - {"mixed"}
    for number in range(40):
        for name in terms.NAMES:
            (_, closed) = questions.make(ct("Nothing.", number, modality=name))[:2]
            assert (f" {terms.NAMES[name]}?" in closed.prompt) == (closed.target == "yes")
    for table in (terms.ORGANS, terms.FINDINGS):
        assert all(terms.whole_words(pattern).search(name) for name, pattern in table.items())
