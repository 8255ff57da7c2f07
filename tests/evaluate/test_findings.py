"""Reading findings from text: synonyms assert, negation takes back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.evaluate.findings import FINDINGS, expected_findings, finding_accuracy, named_findings

ASSERTED = {"nodule", "effusion", "cardiomegaly", "pneumothorax"}


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("", set()),
        ("A large nodule in the left lung.", {"nodule"}),
        ("Nodules in both lungs; small pleural effusions.", {"nodule", "effusion"}),
        ("The heart is enlarged.", {"cardiomegaly"}),
        ("The heart is not enlarged.", set()),
        ("Enlarged cardiac silhouette.", {"cardiomegaly"}),
        ("The heart is of normal size.", set()),
        ("There is pleural fluid on the left.", {"effusion"}),
        ("Air in the pleural space.", {"pneumothorax"}),
        ("No pleural effusion or pneumothorax.", set()),
        ("No nodule, effusion, or pneumothorax.", set()),
        ("No nodule, effusion and pneumothorax.", set()),
        ("No pneumothorax, left effusion.", {"effusion"}),
        ("No pneumothorax, no nodule, left effusion.", {"effusion"}),
        ("No nodule, effusion or mass, left pneumothorax.", {"pneumothorax"}),
        ("Left effusion, no pneumothorax, nodule of the right lung.", {"effusion", "nodule"}),
        ("No nodule but left effusion.", {"effusion"}),
        ("No effusion, but there is a nodule.", {"nodule"}),
        ("No effusion. Nodule in the right lung.", {"nodule"}),
        ("A nodule without effusion.", {"nodule"}),
        ("A nodule, no effusion.", {"nodule"}),
        ("The pleural spaces are free of effusion.", set()),
        ("Pneumothorax is absent.", set()),
        ("A pneumothorax is not seen; an effusion is.", {"effusion"}),
        ("A nodule is seen and effusion is absent.", {"nodule"}),
        ("Cardiomegaly: the heart is enlarged", {"cardiomegaly"}),
        ("nodule nodule nodule", {"nodule"}),
        ("<loc0001><loc0002><loc0003><loc0004> nodule", {"nodule"}),
        ("NODULE", {"nodule"}),
        ("modules and diffusion", set()),
    ],
)
def test_named_findings(text: str, findings: set[str]) -> None:
    assert named_findings(text) == findings


@given(st.sampled_from(sorted(ASSERTED)), st.sampled_from(["No {}.", "Without {}.", "Free of {}.", "{} is absent."]))
@settings(deadline=None)
def test_negation_takes_back_any_finding(finding: str, template: str) -> None:
    assert named_findings(template.format(finding)) == set()


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text_gives_only_known_findings(text: str) -> None:
    assert named_findings(text) <= ASSERTED


def test_expected_findings() -> None:
    assert [expected_findings(name) for name in FINDINGS] == [
        *({name} for name in FINDINGS[:-1]),
        set(),
    ]
    assert expected_findings("nodule, effusion") == {"nodule", "effusion"}


def test_accuracy_counts_exact_sets_only() -> None:
    texts = ["A nodule.", "A nodule and an effusion.", "Clear lungs.", "Clear lungs."]
    assert finding_accuracy(texts, ["nodule", "nodule", "none", "effusion"]) == 0.5
    assert finding_accuracy([], []) == 0.0


def test_accuracy_refuses_lists_of_different_length() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        finding_accuracy(["A nodule."], [])
