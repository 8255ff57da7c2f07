"""What the metric folders share: an `evaluate.Metric` that computes what `medvlm.evaluate.metrics.score` computes."""

from __future__ import annotations

from typing import Any

import datasets  # noqa: TID253
import evaluate  # noqa: TID253

from medvlm.evaluate import metrics


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
            inputs_description="predictions: list of texts; references: list of texts, or of lists of texts.",
            features=[datasets.Features(several), datasets.Features(single)],
        )

    def _compute(self, predictions: list[str], references: list[Any], **_: Any) -> dict[str, float]:
        lists = [[own] if isinstance(own, str) else list(own) for own in references]
        return metrics.score([self.metric], predictions, lists).values
