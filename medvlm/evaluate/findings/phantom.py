"""The four findings of the embedded sample, read from its texts: the measure behind its "finding accuracy"."""

from __future__ import annotations

import re
from collections.abc import Iterable

from medvlm.evaluate.findings.labels import reading

FINDINGS = ("nodule", "effusion", "cardiomegaly", "pneumothorax", "none")
"""The values of `Sample.finding` in the embedded sample."""

# Narrower than the observation: a mass is a lung lesion and no nodule, a blunted angle is a sign and no effusion.
_OBSERVATIONS = {
    "Lung Lesion": ("nodule", re.compile("nodul|coin", re.IGNORECASE)),
    "Pleural Effusion": ("effusion", re.compile("effusion|fluid", re.IGNORECASE)),
    "Cardiomegaly": ("cardiomegaly", re.compile("")),
    "Pneumothorax": ("pneumothorax", re.compile("")),
}


def named_findings(text: str) -> set[str]:
    """Return the findings of the embedded sample that `text` asserts; an empty set where it asserts none."""
    found = set()
    for mention in reading(text).mentions:
        if mention.observation in _OBSERVATIONS and mention.state != "negative":
            name, words = _OBSERVATIONS[mention.observation]
            if words.search(text, mention.start, mention.end):
                found.add(name)
    return found


def is_phantom(column: str) -> bool:
    """Return True where a `finding` column is in the words of the embedded sample, not in another data set's."""
    return {name.strip() for name in column.casefold().split(",")} <= set(FINDINGS)


def expected_findings(column: str) -> set[str]:
    """Return the set that a `Sample.finding` column ("nodule", "nodule, effusion", "none") stands for."""
    return {name.strip() for name in column.casefold().split(",")} - {"none", ""}


def finding_accuracy(predictions: Iterable[str], findings: Iterable[str]) -> float:
    """Return the share of texts that assert exactly the known findings (0.0 of no texts).

    Args:
        predictions: captions or reports, one a sample.
        findings: the `finding` columns of the same samples.
    """
    hits = [named_findings(text) == expected_findings(known) for text, known in zip(predictions, findings, strict=True)]
    return sum(hits) / len(hits) if hits else 0.0
