"""What the metric folders share: an `evaluate.Metric` that computes what `medvlm.evaluate.metrics.score` computes."""

from __future__ import annotations

import dataclasses
from typing import Any

import datasets  # noqa: TID253
import evaluate  # noqa: TID253

from medvlm.errors import UsageError
from medvlm.evaluate import metrics

_INPUTS = """
predictions: list of texts.
references: list of texts, or of lists of texts.
tokenizer (ptb, 13a, whitespace, none), case (lower, mixed), stem, idf, idf_references, negation (rules,
negspacy): as in medvlm's Options.
Any other list, one entry for each prediction, is a column of its rows: answer_type, choices, task, prompt.
"""


class CorpusMetric(evaluate.Metric):  # type: ignore[misc]
    """Predictions are texts; references are one text or a list of texts for each prediction."""

    metric = ""
    description = ""
    citation = ""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        several = {"predictions": text, "references": datasets.Sequence(text)}
        single = {"predictions": text, "references": text}
        return evaluate.MetricInfo(
            description=self.description,
            citation=self.citation,
            inputs_description=_INPUTS,
            features=[datasets.Features(several), datasets.Features(single)],
        )

    def _compute(self, predictions: list[str], references: list[Any], **settings: Any) -> dict[str, float]:
        lists = [[own] if isinstance(own, str) else list(own) for own in references]
        options, rows = _split(settings, len(predictions))
        return metrics.score([self.metric], predictions, lists, rows, options).values


def _split(settings: dict[str, Any], n: int) -> tuple[metrics.Options, list[dict[str, Any]]]:
    """Return the options among the keywords of `compute`, and the columns among them as rows [n]; none for no column.

    Raises:
        UsageError: a keyword that is neither an option nor a list of n entries.
    """
    names = {field.name for field in dataclasses.fields(metrics.Options)}
    columns = {name: value for name, value in settings.items() if name not in names}
    for name, value in columns.items():
        if not isinstance(value, list | tuple) or len(value) != n:
            raise UsageError(f'"{name}" is no setting ({", ".join(sorted(names))}) and no list of {n} entries')
    chosen = {name: value for name, value in settings.items() if name in names}
    rows = [dict(zip(columns, entries, strict=True)) for entries in zip(*columns.values(), strict=True)]
    return metrics.Options(**chosen), rows
