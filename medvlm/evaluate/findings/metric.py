"""The metric `findings`: F1 of observations between reports, by rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvlm.evaluate.findings.labels import Reading, engine, reading
from medvlm.evaluate.findings.phrases import FIVE, OBSERVATIONS
from medvlm.evaluate.metrics import Options, Segments
from medvlm.evaluate.ngrams import Floats
from medvlm.evaluate.signature import signature

_COUNT = len(OBSERVATIONS)
_FIVE = [OBSERVATIONS.index(name) for name in FIVE]


class Findings:
    """Label F1 over CheXpert's 14 observations (micro, macro) and its five, and how far stated sides agree.

    As f1chexbert counts reports, an uncertain observation is a positive one, a negative one as good as none. Unlike it,
    an observation that neither references nor predictions hold is left out of the mean (scikit-learn's
    `zero_division=nan`), where it would count as 0; where all are held, the two means are equal. Of several references
    that counts which the prediction errs least from, the first of equals. The labels come from rules, not from
    CheXbert: a proxy, whose own accuracy tests/benchmarks/findings_accuracy.py measures.
    """

    name = "findings"
    keys = (
        "findings_micro_f1",
        "findings_macro_f1",
        "findings_five_f1",
        "findings_five_macro_f1",
        "findings_sides",
    )

    def __init__(self, options: Options | None = None) -> None:
        """Take the engine of negation from the options.

        Raises:
            UsageError: no such engine.
            MissingExtraError: negspacy is asked for and not installed.
        """
        self.options = options or Options()
        self.negation = engine(self.options.negation).name

    def signature(self, segments: Segments) -> str:
        """Return the settings as one string."""
        most = max((len(own) for own in segments.references), default=0)
        same = all(len(own) == most for own in segments.references)
        return signature(
            "findings",
            labels="rule-based proxy,14 of CheXpert",
            negation=self.negation,
            uncertain="positive",
            absent="left out of macro",
            refs=f"{most if same else f'max{most}'},best",
        )

    def statistics(self, segments: Segments) -> Floats:
        """Return [n, 44]: true positives, false positives, false negatives of 14; sides that agree; sides stated."""
        rows = [
            min((self._compared(reading(text, self.negation), guess) for text in own), key=_errors)
            for own, guess in zip(
                segments.references, (reading(text, self.negation) for text in segments.predictions), strict=True
            )
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 3 * _COUNT + 2)

    def _compared(self, known: Reading, guess: Reading) -> list[int]:
        """Return the row [44] of one prediction against one reference."""
        truth, said = _positive(known), _positive(guess)
        both = [known.sides[name] == guess.sides[name] for name in known.sides.keys() & guess.sides.keys()]
        return [
            *(name in truth and name in said for name in OBSERVATIONS),
            *(name in said and name not in truth for name in OBSERVATIONS),
            *(name in truth and name not in said for name in OBSERVATIONS),
            sum(both),
            len(both),
        ]

    def of_sums(self, sums: Floats) -> Floats:
        """Return [R, 5]; NaN where neither side holds an observation, or where no side is stated by both."""
        right = sums[:, :_COUNT]
        total = 2 * right + sums[:, _COUNT : 2 * _COUNT] + sums[:, 2 * _COUNT : 3 * _COUNT]
        columns = [
            *(_f1(right, total)),
            *(_f1(right[:, _FIVE], total[:, _FIVE])),
            _ratio(sums[:, -2], sums[:, -1]),
        ]
        return np.stack(columns, axis=1)


def _positive(found: Reading) -> set[str]:
    return {name for name, state in found.labels.items() if state != "negative"}


def _errors(row: Sequence[int]) -> int:
    return sum(row[_COUNT : 3 * _COUNT])


def _f1(right: Floats, total: Floats) -> tuple[Floats, Floats]:
    """Return micro and macro F1 [R] from true positives [R, c] and 2 tp + fp + fn [R, c]."""
    held = (total > 0).sum(axis=1)
    each = np.nan_to_num(_ratio(2 * right, total))
    return _ratio(2 * right.sum(axis=1), total.sum(axis=1)), _ratio(each.sum(axis=1), held.astype(np.float64))


def _ratio(above: Floats, below: Floats) -> Floats:
    """Return above / below, NaN where `below` is 0."""
    found: Floats = np.divide(above, below, out=np.full_like(above, np.nan, dtype=np.float64), where=below > 0)
    return found
