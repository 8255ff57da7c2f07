"""Which findings a text asserts, read by rule: the metric, its labels, and the contradictions between two texts.

Made for English reports of chest radiographs; of other images and languages the rules say little, and nothing measured.
`labels.reading` gives every mention with its characters, state and side; `phrases.toml` holds the words.
"""

from medvlm.evaluate.findings.labels import ENGINES, Flip, flips, is_normal, labels
from medvlm.evaluate.findings.metric import Findings
from medvlm.evaluate.findings.phantom import FINDINGS, expected_findings, finding_accuracy, is_phantom, named_findings
from medvlm.evaluate.findings.phrases import FIVE, OBSERVATIONS

__all__ = [
    "ENGINES",
    "FINDINGS",
    "FIVE",
    "OBSERVATIONS",
    "Findings",
    "Flip",
    "expected_findings",
    "finding_accuracy",
    "flips",
    "is_normal",
    "is_phantom",
    "labels",
    "named_findings",
]
