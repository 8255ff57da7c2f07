"""The metrics by name, and `score`: texts in, scores with their signatures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from medvlm.errors import InputError, UsageError
from medvlm.evaluate.ngrams import Corpus, Floats, Ints
from medvlm.evaluate.tokenize import tokenize
from medvlm.registry import Registry


class Metric(Protocol):
    """The hooks of a metric: statistics of each segment once, then any number of aggregates over them."""

    name: str
    keys: tuple[str, ...]
    tokenizers: tuple[str, ...]

    def signature(self, corpora: Mapping[str, Corpus]) -> str:
        """Return the settings as one string."""

    def statistics(self, corpora: Mapping[str, Corpus]) -> Floats:
        """Return [n, k] from the corpora, by tokenizer."""

    def aggregate(self, statistics: Floats, indices: Ints | None = None) -> dict[str, float]:
        """Return one score for each of `keys`, over all rows or over those that `indices` draws."""

    def segments(self, statistics: Floats) -> dict[str, Floats]:
        """Return the scores [n] of each segment, by key."""


METRICS: Registry[type[Metric]] = Registry(
    "metric",
    {
        "bleu": "medvlm.evaluate.bleu:Bleu",
        "rouge": "medvlm.evaluate.rouge:Rouge",
        "cider": "medvlm.evaluate.cider:Cider",
    },
)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one set of predictions.

    Attributes:
        values: unrounded, 0 to 1 except CIDEr (times 10, as coco-caption scales it); keys in the metrics' order.
        signatures: what each metric was computed with, by metric.
        n: number of segments.
        empty: how many predictions are empty or blank.
        per_segment: [n] by the keys of `values`.
        statistics: [n, k] by metric, for `Metric.aggregate`.
    """

    values: dict[str, float]
    signatures: dict[str, str]
    n: int
    empty: int
    per_segment: dict[str, Floats]
    statistics: dict[str, Floats]


def parse_metrics(text: str) -> list[str]:
    """Return the metric names of a comma-separated list, each once, in the given order.

    Raises:
        UsageError: an unknown name (the message suggests the nearest), or no name at all.
    """
    names = list(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    if not names:
        raise UsageError(f"no metric named; known: {', '.join(METRICS.names())}")
    for name in names:
        METRICS.get(name)
    return names


def score(names: Sequence[str], predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Score `predictions` [n] against `references` [n][at least 1] with the metrics `names`.

    The order of `names` does not matter: values come as bleu_1 .. bleu_4, rouge_1, rouge_2, rouge_l, rouge_l_f1, cider.
    An empty prediction is scored like any other.

    Raises:
        UsageError: an unknown metric.
        InputError: no prediction, as many predictions as references, or a prediction without a reference.
    """
    for name in names:
        METRICS.get(name)
    _check(predictions, references)
    metrics = [METRICS.get(name)() for name in METRICS.names() if name in names]
    corpora = {
        tokenizer: _corpus(tokenizer, predictions, references)
        for tokenizer in dict.fromkeys(tokenizer for metric in metrics for tokenizer in metric.tokenizers)
    }
    statistics = {metric.name: metric.statistics(corpora) for metric in metrics}
    values: dict[str, float] = {}
    per_segment: dict[str, Floats] = {}
    for metric in metrics:
        values |= metric.aggregate(statistics[metric.name])
        per_segment |= metric.segments(statistics[metric.name])
    return Scores(
        values=values,
        signatures={metric.name: metric.signature(corpora) for metric in metrics},
        n=len(predictions),
        empty=sum(not prediction.strip() for prediction in predictions),
        per_segment=per_segment,
        statistics=statistics,
    )


def _corpus(tokenizer: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Corpus:
    return Corpus.from_tokens(tokenize(predictions, tokenizer), [tokenize(own, tokenizer) for own in references])


def _check(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(predictions) != len(references):
        raise InputError(f"{len(predictions)} predictions but {len(references)} lists of references; give one for each")
    if not predictions:
        raise InputError("no prediction to score")
    for index, own in enumerate(references):
        if not own or isinstance(own, str):
            raise InputError(f"prediction {index} has no list of references; give at least one reference text")


def metric_path(name: str) -> str:
    """Return the folder of the `evaluate.Metric` called `name`, for `evaluate.load`.

    Raises:
        UsageError: no such metric; the message names the nearest one.
    """
    METRICS.get(name)
    return str(Path(__file__).parent / "hf" / name)
