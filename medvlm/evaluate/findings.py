"""Which findings a text asserts, read by rule: the measure behind "finding accuracy" on the embedded sample.

The rules are made for short radiology sentences in English: a synonym asserts its finding unless a word of negation in
the same clause takes it back ("no effusion or pneumothorax", "without a nodule", "effusion is absent"). The idea of a
word of negation with a scope that ends at the clause is that of NegEx (Chapman et al. 2001, J Biomed Inform 34:301).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

FINDINGS = ("nodule", "effusion", "cardiomegaly", "pneumothorax", "none")
"""The values of `Sample.finding` in the embedded sample."""

_HEART = r"(?:heart|cardiac silhouette|cardiac shadow)"
_SYNONYMS = {
    "nodule": re.compile(r"\bnodules?\b|\bnodular (?:opacity|lesion)\b|\bcoin lesions?\b"),
    "effusion": re.compile(r"\beffusions?\b|\bpleural fluid\b|\bfluid in the pleural space\b"),
    "cardiomegaly": re.compile(
        rf"\bcardiomegaly\b|\b(?:enlarged|big|wide) {_HEART}\b|\bcardiac enlargement\b|\benlargement of the {_HEART}\b"
        rf"|\b{_HEART} (?:is|looks|appears) (?:markedly |clearly )?(?:not )?(?:enlarged|too wide)\b"
    ),
    "pneumothorax": re.compile(r"\bpneumothora(?:x|ces)\b|\bair in the pleural space\b"),
}
# A clause ends at a full stop, semicolon or line, and where a new subject follows a comma or "but".
_CLAUSE = re.compile(
    r"[.;:\n?!]+|,\s*(?=(?:but|however|there|a|an|the|with|and (?:a|an|the|there))\b)|\b(?:but|however)\b"
)
_BEFORE = re.compile(r"\b(?:no|not|without|free (?:of|from)|absence of|negative for|neither|nor|never)\b")
# A comma ends a negation's reach, unless the list goes on ("no nodule, effusion or pneumothorax").
_LIST_GOES_ON = re.compile(r"\b(?:or|nor|and)\b")
_AFTER = re.compile(r"\b(?:absent|excluded|ruled out|not (?:seen|present|found|visible|identified|shown))\b")
_VERB = re.compile(r"\b(?:is|are|was|were|lies|shows?)\b")


def named_findings(text: str) -> set[str]:
    """Return the findings that `text` asserts; an empty set where it asserts none."""
    found = set()
    for clause in _CLAUSE.split(text.lower()):
        denied = [(match.start(), _reach(clause, match.end())) for match in _BEFORE.finditer(clause)]
        for finding, pattern in _SYNONYMS.items():
            for match in pattern.finditer(clause):
                # "heart is not enlarged" holds its negation inside the match.
                negated = any(start < match.end() and match.start() < end for start, end in denied)
                if not negated and not _taken_back(clause[match.end() :]):
                    found.add(finding)
    return found


def _reach(clause: str, start: int) -> int:
    """Return where a negation that ends at `start` loses its hold: at a comma, save within a list, or at the end."""
    for comma in re.finditer(",", clause[start:]):
        end = start + comma.end()
        if not _LIST_GOES_ON.search(clause, end):
            return end
    return len(clause)


def _taken_back(rest: str) -> bool:
    """Return whether the rest of a clause denies what stood before it, with at most one verb between."""
    denial = _AFTER.search(rest)
    return denial is not None and len(_VERB.findall(rest[: denial.start()])) <= 1


def expected_findings(column: str) -> set[str]:
    """Return the set that a `Sample.finding` column ("nodule", "nodule, effusion", "none") stands for."""
    return {name.strip() for name in column.split(",")} - {"none", ""}


def finding_accuracy(predictions: Iterable[str], findings: Iterable[str]) -> float:
    """Return the share of texts that assert exactly the known findings (0.0 of no texts).

    Args:
        predictions: captions or reports, one a sample.
        findings: the `finding` columns of the same samples.
    """
    hits = [named_findings(text) == expected_findings(known) for text, known in zip(predictions, findings, strict=True)]
    return sum(hits) / len(hits) if hits else 0.0
