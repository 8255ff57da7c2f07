"""What captions say for sure: findings there or denied, the organ, the side. Expectations read by hand."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.figures import facts, terms

FINDINGS: list[tuple[str, dict[str, bool]]] = [
    ("Chest radiograph with a large pleural effusion.", {"pleural effusion": True}),
    ("No pleural effusion or pneumothorax.", {"pleural effusion": False, "pneumothorax": False}),
    ("CT showing a mass with a cyst but without calcification.", {"mass": True, "cyst": True, "calcification": False}),
    ("There is no hematoma, the fracture is displaced.", {"hematoma": False, "fracture": True}),
    ("Fracture of the hip. A pneumothorax is not present.", {"fracture": True, "pneumothorax": False}),
    ("The abscess has resolved.", {"abscess": False}),
    ("No evidence of metastasis; a cyst is seen.", {"metastasis": False, "cyst": True}),
    ("Negative for fractures.", {"fracture": False}),
    ("MRI shows edema but no mass effect.", {"edema": True}),
    ("Body mass index of the patients.", {}),
    ("Massive swelling; the cystic duct.", {}),
]

DENIALS: list[tuple[str, dict[str, bool]]] = [
    ("Axial CT of the head without contrast demonstrating acute hemorrhage.", {"hemorrhage": True}),
    ("CT without contrast reveals a mass in the liver.", {"mass": True}),
    ("CT with and without intravenous contrast material: mass of the liver.", {"mass": True}),
    ("CT without IV contrast, fracture of the rib.", {"fracture": True}),
    ("Non-contrast CT with a hematoma.", {"hematoma": True}),
    (
        "No pneumothorax is seen, pleural effusion on the right (arrow).",
        {"pneumothorax": False, "pleural effusion": True},
    ),
    (
        "No effusion, pneumothorax or consolidation. No pleural effusion, pneumothorax, or consolidation.",
        {"pleural effusion": False, "pneumothorax": False, "consolidation": False},
    ),
    ("Neither fracture nor dislocation is seen.", {"fracture": False, "dislocation": False}),
    ("No fever, cough or pneumonia.", {"pneumonia": False}),
    ("Lack of ascites.", {"ascites": False}),
    ("The pneumothorax disappeared.", {"pneumothorax": False}),
    ("The cyst is no longer visible.", {"cyst": False}),
    ("No signs of a rib fracture.", {"fracture": False}),
    ("Clear lungs without consolidation, effusion, or pneumothorax.", {"consolidation": False, "pneumothorax": False}),
    ("No mass was found; however, edema of the left breast was seen.", {"mass": False, "edema": True}),
    ("CT with an aneurysm (arrow) without thrombus.", {"aneurysm": True, "thrombosis": False}),
    ("Negative for hemorrhage, infarct, or mass.", {"hemorrhage": False, "infarct": False, "mass": False}),
]

DOUBTS = [
    "Possible fracture of the rib.",
    "The mass may be a cyst.",
    "Findings suggest pneumonia.",
    "Is it a polyp?",
    "CT before removal of the mass.",
    "A cyst. The cyst is suspected to be old.",
    "A cyst on the left. No cyst on the right.",
    "No pleural effusion in the right lung; a small effusion on the left.",
    "No pleural effusion or pneumothorax in the right lung.",
    "No pleural effusion is seen on the left.",
    "The pneumothorax is not visible in this plane.",
    "No calcification in panel A.",
    "Soft tissue swelling not associated with fracture.",
    "Findings not consistent with pneumonia.",
    "The radiograph failed to show a fracture.",
    "Failure to demonstrate the aneurysm.",
    "The effusion was not seen, nor was the pneumothorax that had been drained.",
    "No new fracture.",
    "No change of the pleural effusion.",
    "No fracture displacement.",
    "No rupture of the aneurysm.",
    "The fracture is not displaced.",
    "The fracture of the rib is not visible.",
    "Partially resolved pneumothorax.",
    "No hematoma and fracture.",
    "Normal chest radiograph of a patient with pneumonia.",
    "Edema cannot be told from an infarct.",
    "Hemorrhage rather than calcification.",
    "Pneumonia treated by drugs.",
    "The mass was completely resected.",
    "The image doesn't show the ulcer.",
    "A patient with a history of fracture.",
    "Tumor-free margins.",
    "No new fracture or hemorrhage.",
    "No acute fracture or dislocation.",
    "Hardly any edema.",
    "Mass is nowhere seen.",
    "The patient denies a fracture.",
    "Ascites (-).",
    "No contrast extravasation, hematoma.",
    "Without contrast extravasation, hematoma.",
]


@pytest.mark.parametrize(("text", "expected"), FINDINGS + DENIALS)
def test_findings(text: str, expected: dict[str, bool]) -> None:
    assert facts.findings_of(text) == expected


@pytest.mark.parametrize("text", DOUBTS)
def test_findings_in_doubt_are_left_out(text: str) -> None:
    assert facts.findings_of(text) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No hematoma, fracture of the hip.", {"hematoma": False}),
        ("Fracture without displacement with a hematoma.", {"fracture": True}),
        ("No hematoma, fracture in the hip or femur.", {}),
    ],
)
def test_what_may_stand_in_the_reach_of_a_denial_is_left_out(text: str, expected: dict[str, bool]) -> None:
    told = facts.findings_of(text)
    assert told.items() <= {**expected, "hematoma": False}.items()
    assert expected.items() <= told.items()


@given(st.lists(st.sampled_from(["no", "or", ",", "with", "without contrast", "is seen", "a cyst", "fracture", "."])))
def test_any_order_of_words_is_read(words: list[str]) -> None:
    told = facts.findings_of(" ".join(words))
    assert told.keys() <= {"cyst", "fracture"}
    if "no" not in words and "or" not in words:
        assert False not in told.values()


@pytest.mark.parametrize(
    ("text", "organ"),
    [
        ("CT of the liver.", "liver"),
        ("Renal cyst.", "kidney"),
        ("CT of liver and kidney.", None),
        ("A man.", None),
        ("Liverpool.", None),
        ("Hepatic mass in the liver", "liver"),
        ("CT scan. On the other hand, a hypodense area is present.", None),
        ("MRI of a patient with breast cancer: osteolytic lesion of the femur.", None),
        ("CT of the liver in a patient with breast cancer.", "liver"),
        ("Whole-body PET/CT with increased uptake in the liver.", None),
        ("Radiograph of the pelvis with hip prosthesis and of the lower leg down to the toes.", None),
        ("MRI of the knee and the distal femur.", "knee"),
        ("Radiograph of the left hand.", "hand"),
        ("Mass on the right-hand side, in the left hand panel.", None),
        ("CT of the head after cardiac arrest.", None),
        ("The lung on CT, renal failure.", "lung"),
        ("Fracture of the femoral neck of the hip.", "hip"),
    ],
)
def test_organ(text: str, organ: str | None) -> None:
    assert facts.organ_of(text) == organ


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("Chest radiograph showing right pleural effusion.", "right"),
        ("Mass in the left upper lobe.", "left"),
        ("Left-sided hydronephrosis.", "left"),
        ("Mass in the right lobe and no ascites.", "right"),
        ("CT three days after the patient left the hospital.", None),
        ("Right meniscal tear of the right knee, compared with the contralateral knee.", None),
        ("Bilateral masses, right kidney larger.", None),
        ("CT, left panel.", None),
        ("CT of both knees, left knee worse.", None),
        ("Right lung and left lung on CT.", None),
        ("CT (right)", None),
        ("The mass is on the left.", None),
        ("No fracture of the left hip.", None),
        ("Possible fracture of the left hip.", None),
        ("Normal left kidney.", None),
        ("The left ventricle is dilated.", None),
        ("The right panel shows a mass.", None),
        ("The patient left with a fracture of the hip.", None),
    ],
)
def test_side(text: str, side: str | None) -> None:
    assert facts.side_of(text) == side


def test_vocabularies_name_what_they_stand_for() -> None:
    for table in (terms.ORGANS, terms.FINDINGS):
        assert all(facts.named(name, table)[:1] for name in table)
        assert all(name in facts.named(name, table) for name in table)
    assert terms.ORGAN_REGIONS.keys() == terms.ORGANS.keys()
    assert frozenset().union(*terms.KIN.values()) <= terms.FINDINGS.keys()
    assert frozenset().union(*terms.ORGAN_REGIONS.values()) == terms.REGION_WORDS.keys()


@pytest.mark.parametrize("words", ["fracture, ", "no fracture ", "the fracture is, ", "left knee, ", "no cyst or "])
def test_endless_sentences_are_read_in_time_and_tell_nothing(words: str) -> None:
    text = words * 4000
    begun = time.process_time()
    assert facts.findings_of(text) == {}
    assert facts.side_of(text) is None
    assert time.process_time() - begun < 5
