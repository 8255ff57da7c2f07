"""How often a caption or report names just the known finding, in the words of the embedded sample's findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from medvlm.evaluate.metrics import Options, Segments, means
from medvlm.evaluate.ngrams import Floats


def fits(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Return True where rows have known findings, and all of them are the embedded sample's."""
    from medvlm.evaluate.findings import is_phantom

    known = [str(row["finding"]) for row in rows if _known(row)]
    return bool(known) and all(map(is_phantom, known))


def _known(row: Mapping[str, Any]) -> bool:
    return bool(row.get("finding")) and row.get("task") in ("caption", "report")


class FindingAccuracy:
    """The share of texts that name just the known finding, of those of which it is known."""

    name = "finding_accuracy"
    keys: tuple[str, ...] = ("finding_accuracy",)

    def __init__(self, options: Options) -> None:
        self.options = options

    def statistics(self, segments: Segments) -> Floats:
        """Return [n, 2]: whether a text names just the known finding, and whether one is known."""
        from medvlm.evaluate.findings import expected_findings, named_findings

        found = np.zeros((len(segments.predictions), 2))
        for place, (said, row) in enumerate(zip(segments.predictions, segments.rows, strict=True)):
            if _known(row):
                found[place] = named_findings(said) == expected_findings(str(row["finding"])), 1.0
        return found

    def of_sums(self, sums: Floats) -> Floats:
        """Return [R, 1] from sums [R, 2]; NaN where no finding is known."""
        return means(sums)

    def signature(self, segments: Segments) -> str:
        """Return what says which findings a text names."""
        return "finding_accuracy|findings:phantom"
