"""Fine-tune, measure and license-check vision-language models for radiology."""

from __future__ import annotations

__version__ = "0.1.0"


def metric_path(name: str) -> str:
    """Return the folder of the `evaluate.Metric` called `name` (bleu, rouge or cider).

    `evaluate.load(medvlm.metric_path("bleu"))` then works without a network.

    Raises:
        UsageError: no such metric; the message names the nearest one.
    """
    from medvlm.evaluate.metrics import metric_path as find

    return find(name)
