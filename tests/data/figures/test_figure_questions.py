"""Questions made from captions: their facts, their balance, their form."""

from __future__ import annotations

import collections
import random
import re
from typing import Any

import pytest
from figure_samples import encoded, figure, scan
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.figures import questions, terms
from medvlm.data.figures.modality import MODALITIES
from medvlm.data.sample import Sample

PICTURE = encoded(scan(0))
TOLD = {"modality": "ct", "modality_evidence": "caption: CT"}
NO_NAME = re.compile(
    r"(?<=Is this ).*|(?<=show the ).*|(?<=Is the )(?:left|right)|(?<=Is there ).*(?= in the)|(?<=free of ).*"
)


def ct(caption: str, number: int = 0, **changes: Any) -> Sample:
    return figure(caption, PICTURE, **{"id": f"PMC{number}/F1/-/caption/0", "compound": False, **TOLD, **changes})


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
        ("finding", "closed"),
        ("denied finding", "closed"),
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


def test_second_graphic_of_one_place_has_its_own_ids() -> None:
    ids = {one.id for ordinal in (0, 1) for one in questions.make(ct("CT scan.", id=f"PMC1/F1/-/caption/{ordinal}"))}
    assert len(ids) == 4


def synthesized(number: int) -> tuple[str, str]:
    """Return a caption and its modality: of uneven findings and modalities, as those of articles are."""
    rng = random.Random(number)
    modality, words = rng.choices(
        [("ct", "CT scan"), ("mri", "MRI"), ("radiograph", "radiograph"), ("histology", "Histological section")],
        [6, 3, 2, 1],
    )[0]
    organ = rng.choice([name for name in terms.ORGANS if name != "skin"])
    here = rng.choices(list(terms.FINDINGS), [2 + 40 * (name in ("mass", "fracture")) for name in terms.FINDINGS])[0]
    gone = rng.choice(["pneumothorax", "fracture", "hemorrhage", "ascites"])
    told = rng.choice(
        [f"with {here}", f"with {here}, without {gone}", f"without {gone}", "", f"showing {here} in the left kidney"]
    )
    return f"{words} of the {organ} {told}.".replace(" .", "."), modality


@pytest.mark.parametrize("only", [None, "ct"])
def test_yes_and_no_are_balanced_in_each_form_of_question(only: str | None) -> None:
    answers: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for number in range(4000):
        text, modality = synthesized(number)
        if only in (None, modality):
            for one in questions.make(ct(text, number, modality=modality)):
                if one.answer_type == "closed":
                    answers[NO_NAME.sub("_", one.prompt)][one.target] += 1
    assert set(answers) == {
        "Is this _",
        "Does the image show the _",
        "Is the _ side affected?",
        "Is there _ in the image?",
        "Is the image free of _",
    }
    for form, counts in answers.items():
        assert counts.total() >= 200, form
        assert 0.45 < counts["yes"] / counts.total() < 0.55, form


def test_a_name_that_captions_share_evenly_is_answered_evenly() -> None:
    answers: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for number in range(3000):
        side = ("left", "right")[number % 2]
        here, gone = ("nodule", "cyst")[:: 1 if number % 4 < 2 else -1]
        text = f"CT of the {side} lung with a {here}, no {gone}."
        for one in questions.make(ct(text, number)):
            if one.answer_type == "closed" and one.question_type in ("side", "finding", "denied finding"):
                answers[one.prompt][one.target] += 1
    assert len(answers) == 6
    for prompt, counts in answers.items():
        assert counts.total() >= 200
        assert 0.4 < counts["yes"] / counts.total() < 0.6, prompt


def test_a_finding_denied_alone_is_not_asked_about() -> None:
    asked = [one for number in range(20) for one in questions.make(ct("CT of the chest without pneumothorax.", number))]
    assert asked
    assert not [one for one in asked if "finding" in (one.question_type or "")]


@pytest.mark.parametrize(
    ("caption", "modality", "evidence"),
    [
        ("Mass of the liver.", "ct", "keyword: computed tomography"),
        ("Mass of the liver.", "ct", "mention: CT scan"),
        ("Mass of the liver.", "ct", None),
        ("Chest radiograph and CT scan.", "radiograph", "caption: Chest radiograph"),
        ("CT scan and photomicrograph of the mass.", "ct", "caption: CT scan"),
    ],
)
def test_modality_is_asked_only_where_the_caption_tells_one(caption: str, modality: str, evidence: str | None) -> None:
    asked = questions.make(ct(caption, modality=modality, modality_evidence=evidence))
    assert "modality" not in {one.question_type for one in asked}


def test_a_modality_with_a_cue_in_the_caption_is_not_denied() -> None:
    caption = "Chest radiograph; ultrasound and CT were done later."
    asked = {one.prompt for n in range(200) for one in questions.make(ct(caption, n, modality="radiograph"))}
    assert "Is this an MRI scan?" in asked
    assert not asked & {"Is this a CT scan?", "Is this an ultrasound image?"}


@pytest.mark.parametrize("modality", [name for name in MODALITIES if name != "mixed"])
def test_each_modality_is_told_from_several(modality: str) -> None:
    asked = [one for n in range(100) for one in questions.make(ct("Two groups.", n, modality=modality))]
    assert len({one.prompt for one in asked if one.target == "no"}) >= 3


@pytest.mark.parametrize(
    ("caption", "never"),
    [
        ("CT shows hepatocellular carcinoma and ascites.", "mass nodule cyst metastasis polyp abscess edema"),
        ("MRI: acute stroke with a fracture.", "infarct thrombosis hemorrhage edema stenosis"),
        ("Radiograph: opacity beside a fracture.", "pneumonia consolidation atelectasis mass nodule"),
        ("Pulmonary embolus and a polyp.", "thrombosis infarct"),
        ("An infiltrate and a fracture.", "pneumonia consolidation atelectasis"),
        ("CT with a lesion and a dislocation.", "mass cyst nodule metastasis abscess"),
    ],
)
def test_what_the_caption_names_otherwise_is_not_denied(caption: str, never: str) -> None:
    asked = {one.prompt for n in range(300) for one in questions.make(ct(caption, n)) if one.target == "no"}
    denied = {prompt.removesuffix(" in the image?").split()[-1] for prompt in asked if prompt.startswith("Is there")}
    assert len(denied) > 1
    assert not denied & set(never.split())


def test_parts_of_the_body_named_otherwise_are_not_denied() -> None:
    caption = "CT of the liver and of the upper abdomen."
    asked = {one.prompt for n in range(200) for one in questions.make(ct(caption, n)) if one.target == "no"}
    assert {"Does the image show the brain?", "Does the image show the knee?"} <= asked
    assert not asked & {"Does the image show the kidney?", "Does the image show the hip?"}


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
                assert (one.target, asked) in (("yes", gone), ("no", here))
            else:
                assert (one.target, asked) in (("yes", here), ("no", gone))


def test_kin_of_a_finding_is_not_asked_as_absent() -> None:
    asked = [one.prompt for number in range(200) for one in questions.make(ct("CT with a hematoma.", number))]
    prompts = {prompt for prompt in asked if prompt.startswith("Is there")}
    assert len(prompts) > 5
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


def test_modalities_that_are_often_there_are_often_asked_as_absent() -> None:
    counts: collections.Counter[str] = collections.Counter()
    for number in range(1200):
        name = ("ct", "mri", "radiograph", "ultrasound")[number % 4]
        for one in questions.make(ct("Two groups.", number, modality=name)):
            counts[f"{one.prompt} {one.target}"] += 1
    for name in ("a CT scan", "an MRI scan", "a radiograph", "an ultrasound image"):
        yes, no = (counts[f"Is this {name}? {answer}"] for answer in ("yes", "no"))
        assert yes + no >= 200
        assert 0.4 < yes / (yes + no) < 0.6, name
