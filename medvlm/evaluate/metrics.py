"""The metrics by name, and `score`: texts in, scores with their signatures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from medvlm.errors import InputError, UsageError
from medvlm.evaluate import tokenize
from medvlm.evaluate.ngrams import Chunks, Corpus, Floats, Ints
from medvlm.registry import Registry


@dataclass(frozen=True, slots=True)
class Options:
    """How texts are compared, where a metric leaves the choice. All of it stands in the signatures."""

    tokenizer: str = "ptb"
    """ptb, 13a, whitespace or none: of BLEU, ROUGE-L (beta 1.2) and CIDEr."""
    case: str = "lower"
    """lower, or mixed: as it stands in the text."""
    stem: bool = False
    """Porter-stem the words of ROUGE's F1, as rouge_score's use_stemmer."""
    idf: Path | None = None
    """File of document frequencies for CIDEr, as `cider.save_idf` writes it; None takes those of the references."""
    idf_references: Sequence[Sequence[str]] | None = None
    """The texts [N][r] to take CIDEr's document frequencies from, where they are more than those being scored."""
    negation: str = "rules"
    """What says which findings a text denies: rules, or negspacy (an extra)."""


@dataclass
class Segments:
    """What is scored: predictions [n], their references [n][r], and the other columns of each row [n]."""

    predictions: Sequence[str]
    references: Sequence[Sequence[str]]
    rows: Sequence[Mapping[str, Any]] = ()
    """prompt, answer_type, choices, task, ...; empty where nothing else is known."""
    case: str = "lower"
    _corpora: dict[str, Corpus] = field(default_factory=dict, repr=False)
    _chunks: dict[Any, Chunks] = field(default_factory=dict, repr=False)

    def corpus(self, tokenizer: str, keep: bool = True) -> Corpus:
        """Return the texts as token numbers, of a tokenizer of `medvlm.evaluate.tokenize`; once for all metrics.

        A metric that alone reads it does not `keep` it, to spare memory.
        """
        if tokenizer not in self._corpora:
            found = tokenize.get(tokenizer, self.case)
            if found.split not in self._chunks:
                documents = [
                    text
                    for prediction, own in zip(self.predictions, self.references, strict=True)
                    for text in (prediction, *own)
                ]
                self._chunks[found.split] = Chunks.of(documents, found.split)
            chunks = self._chunks[found.split]
            corpus = Corpus.from_chunks(chunks, list(map(len, self.references)), found)
            if not keep:
                return corpus
            self._corpora[tokenizer] = corpus
        return self._corpora[tokenizer]


class Metric(Protocol):
    """The hooks of a metric: numbers of each segment once, then any number of scores from sums of them.

    A bootstrap sums the rows that it draws, a permutation those that it swaps: no text is read twice.
    """

    name: str
    keys: tuple[str, ...]

    def __init__(self, options: Options) -> None: ...

    def statistics(self, segments: Segments) -> Floats:
        """Return [n, k]: what of each segment adds up."""

    def of_sums(self, sums: Floats) -> Floats:
        """Return [R, len(keys)] from sums [R, k] of statistics; NaN where nothing that a key is about was summed."""

    def signature(self, segments: Segments) -> str:
        """Return the settings as one string."""


def aggregate(metric: Metric, statistics: Floats, indices: Ints | None = None) -> dict[str, float]:
    """Return the scores over all rows of `statistics` [n, k], or over those that `indices` draws; no NaN among them."""
    rows = statistics if indices is None else statistics[indices]
    found = metric.of_sums(rows.sum(axis=0, keepdims=True))[0].tolist()
    return {key: value for key, value in zip(metric.keys, found, strict=True) if value == value}


def by_segment(metric: Metric, statistics: Floats) -> dict[str, Floats]:
    """Return the scores [n] of each segment alone, by key."""
    return dict(zip(metric.keys, metric.of_sums(statistics).T, strict=True))


def means(sums: Floats) -> Floats:
    """Return [R, k - 1]: sums [R, k] divided by their last column, the number of segments; NaN where that is 0."""
    size = sums[:, -1:]
    found: Floats = np.divide(sums[:, :-1], size, out=np.full_like(sums[:, :-1], np.nan), where=size > 0)
    return found


METRICS: Registry[type[Metric]] = Registry(
    "metric",
    {
        "bleu": "medvlm.evaluate.bleu:Bleu",
        "rouge": "medvlm.evaluate.rouge:Rouge",
        "cider": "medvlm.evaluate.cider:Cider",
        "vqa": "medvlm.evaluate.vqa:Vqa",
        "findings": "medvlm.evaluate.findings:Findings",
        "radgraph": "medvlm.evaluate.adapters:RadGraph",
        "chexbert": "medvlm.evaluate.adapters:CheXbert",
        "bertscore": "medvlm.evaluate.adapters:BertScore",
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
        statistics: [n, k] by metric, for `aggregate` and everything that draws.
        metrics: the metrics by name, as they were set.
    """

    values: dict[str, float]
    signatures: dict[str, str]
    n: int
    empty: int
    per_segment: dict[str, Floats]
    statistics: dict[str, Floats]
    metrics: dict[str, Metric]


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


def score(
    names: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    rows: Sequence[Mapping[str, Any]] = (),
    options: Options | None = None,
) -> Scores:
    """Score `predictions` [n] against `references` [n][at least 1] with the metrics `names`.

    The order of `names` does not matter: values come in the order of `METRICS`. An empty prediction is scored like any
    other. A key that no segment says anything about (the closed accuracy of open questions) is left out.

    Args:
        names: of `METRICS`.
        predictions: texts.
        references: texts.
        rows: [n] the other columns of each, for the metrics that read them (vqa: answer_type, choices); may be empty.
        options: how texts are compared.

    Raises:
        UsageError: an unknown metric, tokenizer or case.
        InputError: no prediction, as many predictions as references, or a prediction without a reference.
        MissingExtraError: a metric's own package is not installed.
    """
    for name in names:
        METRICS.get(name)
    _check(predictions, references)
    options = options or Options()
    # Said at once, though not every metric reads it.
    tokenize.get(options.tokenizer, options.case)
    metrics = [METRICS.get(name)(options) for name in METRICS.names() if name in names]
    segments = Segments(predictions, references, rows, options.case)
    statistics = {metric.name: metric.statistics(segments) for metric in metrics}
    values: dict[str, float] = {}
    per_segment: dict[str, Floats] = {}
    for metric in metrics:
        values |= aggregate(metric, statistics[metric.name])
        per_segment |= by_segment(metric, statistics[metric.name])
    return Scores(
        values=values,
        signatures={metric.name: metric.signature(segments) for metric in metrics},
        n=len(predictions),
        empty=sum(not prediction.strip() for prediction in predictions),
        per_segment=per_segment,
        statistics=statistics,
        metrics={metric.name: metric for metric in metrics},
    )


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
    if name not in METRICS.names():
        METRICS.get(name)
    return str(Path(__file__).parent / "hf" / name)
