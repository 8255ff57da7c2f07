"""What scores.json says, of schema 2 and of the first, as types; nothing in it is trusted to be there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from medvlm.evaluate.compare import verdict
from medvlm.report.values import counts, listed, mapping, number, text, texts

NAMES = {
    "accuracy": "accuracy",
    "closed_accuracy": "accuracy, closed questions",
    "open_accuracy": "accuracy, open questions",
    "open_f1": "token F1, open questions",
    "open_recall": "token recall, open questions",
    "choice_accuracy": "accuracy, multiple choice",
    "exact_match": "exact match",
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "rouge_l_f1": "ROUGE-L F1",
    "cider": "CIDEr",
    "cider_unclipped": "CIDEr, unclipped",
    "finding_accuracy": "finding acc.",
    "findings_micro_f1": "findings F1, micro",
    "findings_macro_f1": "findings F1, macro",
    "findings_five_f1": "five findings F1, micro",
    "findings_five_macro_f1": "five findings F1, macro",
    "findings_sides": "left/right agreement",
    "i2t_r1": "recall at 1, image to text",
    "i2t_r5": "recall at 5, image to text",
    "i2t_r10": "recall at 10, image to text",
    "t2i_r1": "recall at 1, text to image",
    "t2i_r5": "recall at 5, text to image",
    "t2i_r10": "recall at 10, text to image",
}
"""Metrics by key, in the order of every table."""
MAIN = (
    "accuracy", "closed_accuracy", "open_f1", "choice_accuracy", "exact_match", "bleu_4", "rouge_l", "cider",
    "findings_micro_f1", "finding_accuracy",
)  # fmt: skip
"""The few that stand beside licenses; every other one has its place further down."""
_HEADLINES = ("cider", "rouge_l", "bleu_4", "accuracy", "exact_match", "findings_micro_f1")
_MOST_CHARTS = 4
ROWS = {
    "model": "this model",
    "base": "base model, untuned",
    "constant": "best constant answer",
    "blank": "this model, blank images",
    "shuffled": "this model, another's images",
    "predictions": "predictions",
}


def name(key: str) -> str:
    """Return what a metric is called in tables."""
    return NAMES.get(key, key.replace("_", " "))


@dataclass(frozen=True, slots=True)
class Value:
    """A score with its interval, as far as they are known."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> bool:
        """Whether the interval is known."""
        return self.low is not None and self.high is not None

    def __str__(self) -> str:
        """Return "0.412 [0.38, 0.44]"; four decimals where there is no interval; "-" for nothing."""
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return _decimal(self.value, 4)
        return f"{_decimal(self.value, 3)} {bounds(self.low, self.high)}"

    def signed(self) -> str:
        """Return a difference with its sign, as "+0.412 [+0.38, +0.44]"."""
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return _decimal(self.value, 4, "+")
        return f"{_decimal(self.value, 3, '+')} {bounds(self.low, self.high, '+')}"


def bounds(low: float, high: float, sign: str = "") -> str:
    """Return "[0.38, 0.44]", with a third decimal where two would hide how narrow it is."""
    decimals = 2 if high - low >= 0.05 else 3
    return f"[{_decimal(low, decimals, sign)}, {_decimal(high, decimals, sign)}]"


def _decimal(value: float, decimals: int, sign: str = "") -> str:
    """Return a number with that many decimals; of one too large to be a score only the first figures."""
    if abs(value) >= 1e6:
        return f"{value:{sign}.4g}"
    # Adding 0 makes of -0.0 what a reader knows.
    return f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"


@dataclass(frozen=True, slots=True)
class Difference:
    """The model minus another row (or one run minus another) in one metric, on the same samples."""

    row: str
    key: str
    value: Value
    p: float | None = None
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        """Return "better", "worse" or "not clearly different"; "" where it was neither drawn nor tested."""
        if not self.value.interval and self.p_holm is None:
            return ""
        value = self.value
        cell = {"difference": value.value, "low": value.low, "high": value.high, "p_holm": self.p_holm}
        return found if (found := verdict(cell)) != "unclear" else "not clearly different"


def p_value(value: float | None) -> str:
    """Return a p-value in three figures, "-" where there is none."""
    return "-" if value is None else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Output:
    """How a row's texts look, whatever they say."""

    n: int | None
    distinct: int | None
    empty: int | None
    mean_words: float | None


@dataclass(frozen=True, slots=True)
class Slice:
    """The scores of the samples that have one value in one column."""

    column: str
    value: str
    n: int | None
    groups: int | None
    rows: dict[str, dict[str, Value]]


@dataclass(frozen=True, slots=True)
class Controls:
    """The model with its own, blank and other samples' images, on the same samples."""

    n: int | None
    of: int | None
    rows: dict[str, dict[str, float]]
    sensitivity: dict[str, float]
    """blank or shuffled -> share of the answers that change."""
    reliance: list[Difference]
    kept: dict[str, float]
    """metric -> score on blank images over the score on the right ones."""

    def __bool__(self) -> bool:
        return bool(self.rows or self.sensitivity or self.reliance or self.kept)


class Scored:
    """A reading of scores.json.

    Args:
        raw: its content; {} where there is none.
    """

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw

    @property
    def n(self) -> int | None:
        """Number of samples."""
        return whole(self.raw.get("n"))

    @property
    def groups(self) -> int | None:
        """Number of patients, articles or images that the samples belong to."""
        return whole(self.raw.get("groups"))

    @cached_property
    def rows(self) -> dict[str, dict[str, float]]:
        """Row -> metric -> score."""
        return _score_rows(self.raw.get("rows"))

    @cached_property
    def keys(self) -> list[str]:
        """The metrics that any row has, in the usual order."""
        return columns(self.rows)

    @property
    def main(self) -> list[str]:
        """The metrics for the first table: the few of `MAIN`, else all."""
        return [key for key in self.keys if key in MAIN and not self._says_nothing(key)] or self.keys

    def _says_nothing(self, key: str) -> bool:
        """Return whether it is BLEU-4 of answers that are all shorter than four words."""
        if key != "bleu_4" or texts(self.raw.get("tasks")) != ["vqa"]:
            return False
        return all(values.get(key, 0.0) < 0.00005 for values in self.rows.values())

    @property
    def charted(self) -> list[str]:
        """The main metrics that are drawn, the one of the sentences first."""
        return sorted(self.main, key=lambda key: key != self.headline)[:_MOST_CHARTS]

    @property
    def headline(self) -> str:
        """The one metric that sentences are about; "" where nothing is scored."""
        keys = self.rows.get("model") or {}
        if "accuracy" in keys and len(mapping(self.raw.get("by_task"))) < 2:
            return "accuracy"
        return next((key for key in _HEADLINES if key in keys), next(iter(keys), ""))

    @cached_property
    def tasks(self) -> dict[str, Scored]:
        """Task -> its own reading, where there are several and each was compared by itself."""
        parts = {task: mapping(part) for task, part in mapping(self.raw.get("by_task")).items()}
        if len(parts) < 2 or not all("comparisons" in part for part in parts.values()):
            return {}
        return {task: Scored({**part, "bootstrap": self.raw.get("bootstrap")}) for task, part in parts.items()}

    @property
    def confidence(self) -> str:
        """Return "95 %"."""
        share = number(mapping(self.raw.get("bootstrap")).get("confidence"))
        return f"{100 * share:g} %" if share is not None and 0 < share < 1 else "95 %"

    def value(self, row: str, key: str) -> Value:
        """Return one score with its interval."""
        pair = listed(mapping(mapping(self.raw.get("intervals")).get(row)).get(key))
        low, high = map(number, pair) if len(pair) == 2 else (None, None)
        return Value(self.rows.get(row, {}).get(key), low, high)

    @cached_property
    def differences(self) -> list[Difference]:
        """The model minus each other row."""
        found = mapping(self.raw.get("comparisons")).items()
        return [one for row, metrics in found for one in differences(row, metrics)]

    def difference(self, row: str, key: str) -> Difference | None:
        """Return the model minus `row` in `key`, where it was computed."""
        return next((one for one in self.differences if (one.row, one.key) == (row, key)), None)

    @cached_property
    def controls(self) -> Controls:
        """The model without its images; of schema 1 only what it kept of them."""
        told = mapping(self.raw.get("controls"))
        return Controls(
            whole(told.get("n")),
            whole(told.get("of")),
            _score_rows(told.get("rows")),
            numbers(told.get("image_sensitivity")),
            list(differences("shuffled", told.get("visual_reliance"))),
            numbers(told.get("kept_without_image")),
        )

    @cached_property
    def outputs(self) -> dict[str, Output]:
        """Row -> how its texts look."""
        told = mapping(self.raw.get("outputs"))
        if told:
            return {row: _output(mapping(part)) for row, part in told.items()}
        distinct, empty = counts(self.raw.get("distinct_outputs")), counts(self.raw.get("empty_predictions"))
        return {row: Output(self.n, count, empty.get(row), None) for row, count in distinct.items()}

    @property
    def reference_words(self) -> float | None:
        """Mean number of words of the references."""
        return number(mapping(self.raw.get("references")).get("mean_words"))

    @cached_property
    def slices(self) -> list[Slice]:
        """Scores by the columns of the samples."""
        return [_slice(mapping(part)) for part in listed(self.raw.get("slices"))]

    @property
    def left_out(self) -> list[tuple[str, str, int | None]]:
        """Column, value and n of the slices that are too small to mean something."""
        parts = map(mapping, listed(self.raw.get("slices_left_out")))
        return [(text(part.get("column")), text(part.get("value")), whole(part.get("n"))) for part in parts]

    @property
    def leakage(self) -> dict[str, Any]:
        """What was found of the test samples in the training data; {} where nobody looked."""
        return mapping(self.raw.get("leakage"))

    @property
    def warnings(self) -> list[str]:
        """The sentences of the evaluation itself."""
        return [line for line in texts(self.raw.get("warnings")) if line]

    @property
    def signatures(self) -> dict[str, str]:
        """Metric -> what it was computed with."""
        return {key: text(value) for key, value in mapping(self.raw.get("signatures")).items()}

    def setting(self, key: str) -> str:
        """Return what all signatures that name it say of a setting: "ptb" for "tok"; "" where they differ or do not."""
        parts = (part.partition(":") for one in self.signatures.values() for part in one.split("|"))
        found = {value for name, _, value in parts if name == key}
        return found.pop() if len(found) == 1 else ""


def columns(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the metrics that any of the rows has, in the usual order, others behind."""
    there = {key for values in rows.values() for key in values if number(values[key]) is not None}
    return [key for key in NAMES if key in there] + sorted(there - NAMES.keys())


def numbers(value: Any) -> dict[str, float]:
    """Return the finite numbers of a JSON object."""
    found = ((key, number(item)) for key, item in mapping(value).items())
    return {key: item for key, item in found if item is not None}


def whole(value: Any) -> int | None:
    """Return a JSON integer, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def differences(row: str, metrics: Any) -> Iterator[Difference]:
    """Yield what a JSON object {metric: {difference, low, high, p, p_holm}} says."""
    for key, part in mapping(metrics).items():
        told = mapping(part)
        value = Value(*(number(told.get(field)) for field in ("difference", "low", "high")))
        if value.value is not None:
            yield Difference(row, key, value, number(told.get("p")), number(told.get("p_holm")))


def ordered(keys: Iterable[str]) -> list[str]:
    """Return metrics in the usual order, unknown ones behind by name."""
    places = {key: place for place, key in enumerate(NAMES)}
    return sorted(set(keys), key=lambda key: (places.get(key, len(places)), key))


def _score_rows(value: Any) -> dict[str, dict[str, float]]:
    return {row: numbers(values) for row, values in mapping(value).items()}


def _output(part: Mapping[str, Any]) -> Output:
    n, distinct, empty = (whole(part.get(key)) for key in ("n", "distinct", "empty"))
    return Output(n, distinct, empty, number(part.get("mean_words")))


def _slice(part: Mapping[str, Any]) -> Slice:
    rows = {
        row: {key: _triple(value) for key, value in mapping(values).items()}
        for row, values in mapping(part.get("rows")).items()
    }
    return Slice(
        text(part.get("column")), text(part.get("value")), whole(part.get("n")), whole(part.get("groups")), rows
    )


def _triple(value: Any) -> Value:
    """Return [value, low, high], or a bare number."""
    parts = [number(item) for item in listed(value)[:3]] or [number(value)]
    return Value(*parts)
