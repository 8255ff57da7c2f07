"""Counts over millions of rows in bounded memory: numbers by value, words, repeated answers."""

from __future__ import annotations

import array
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from medvlm.data.splits import SPLITS

OTHERS = "(others)"
MOST_VALUES = 1000
"""So many values of a column are told apart; later ones are counted together."""

_PENDING = 1 << 16


def summary(numbers: Mapping[int, int]) -> dict[str, int]:
    """Return {"min", "median", "p95", "max"} of numbers by how often each occurs.

    A quantile is the smallest number that at least so large a share does not exceed (numpy's `inverted_cdf`), so it is
    one that occurs. Empty where there are none.
    """
    if not numbers:
        return {}
    ranked = sorted(numbers)
    reached = np.cumsum([numbers[number] for number in ranked])

    def at(percent: int) -> int:
        # In whole numbers: 0.95 times a count is a hair more than it should be.
        return ranked[int(np.searchsorted(reached * 100, percent * int(reached[-1])))]

    return {"min": ranked[0], "median": at(50), "p95": at(95), "max": ranked[-1]}


class Table:
    """How often each value of a column occurs in each split."""

    def __init__(self) -> None:
        self.rows: dict[str, Counter[str]] = {}

    def place(self, value: str) -> str:
        """Return the value, or `OTHERS` where too many others came before."""
        if value in self.rows:
            return value
        kept = value if len(self.rows) < MOST_VALUES else OTHERS
        self.rows.setdefault(kept, Counter())
        return kept

    def add(self, value: str, split: str) -> str:
        """Count one, and return under which value."""
        kept = self.place(value)
        self.rows[kept][split] += 1
        return kept

    def ranked(self) -> dict[str, dict[str, int]]:
        """Return value -> split -> number, the most frequent value first."""
        order = sorted(self.rows, key=lambda value: (-self.rows[value].total(), value))
        return {
            value: {split: self.rows[value][split] for split in SPLITS if self.rows[value][split]} for value in order
        }


class Words:
    """Different words of each split; about 8 bytes a word."""

    def __init__(self) -> None:
        self._known = {split: np.zeros(0, np.int64) for split in SPLITS}
        self._pending: dict[str, set[int]] = {split: set() for split in SPLITS}

    def add(self, words: Iterable[str], split: str) -> None:
        """Take in words."""
        pending = self._pending[split]
        pending.update(map(hash, words))
        if len(pending) > _PENDING:
            self._settle(split)

    def _settle(self, split: str) -> Any:
        fresh = np.fromiter(self._pending[split], np.int64, len(self._pending[split]))
        self._known[split] = np.union1d(self._known[split], fresh)
        self._pending[split].clear()
        return self._known[split]

    def told(self) -> dict[str, dict[str, int]]:
        """Return for each split with words {"words", "not_in_train"}."""
        known = {split: self._settle(split) for split in SPLITS}
        return {
            split: {"words": len(words), "not_in_train": len(np.setdiff1d(words, known["train"], assume_unique=True))}
            for split, words in known.items()
            if len(words)
        }


class Answers:
    """Which answer is given how often, by split and by another column's value; 17 bytes an answer.

    Answers are known by a hash; `name` is told them once more to learn what the frequent ones are.
    """

    def __init__(self) -> None:
        self._answers, self._sides, self._values = array.array("q"), array.array("b"), array.array("i")
        self._groups: list[str] = []
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def add(self, answer: str, split: str, value: str) -> None:
        """Take in one answer."""
        if value not in self._numbers:
            self._numbers[value] = len(self._groups)
            self._groups.append(value)
        self._answers.append(hash(answer))
        self._sides.append(SPLITS.index(split))
        self._values.append(self._numbers[value])

    def wanted(self, top: int) -> set[int]:
        """Return the hashes whose words are needed for `ranked` and `constant`, with or without a value."""
        found: set[int] = set()
        for value in (None, *self._groups):
            for split in (None, *SPLITS):
                found |= {answer for answer, _ in self._top(split, value, top if value is None else 1)}
        return found

    def name(self, hashes: set[int], answers: Iterable[str]) -> None:
        """Take the words of `hashes` from `answers`, and strike them off."""
        for answer in answers:
            if hash(answer) in hashes:
                self._names[hash(answer)] = answer
                hashes.discard(hash(answer))

    def total(self, split: str | None = None, value: str | None = None) -> int:
        """Return the number of answers."""
        return int(self._chosen(split, value).sum())

    def ranked(self, top: int, split: str | None = None, value: str | None = None) -> list[tuple[str, int]]:
        """Return the `top` most frequent answers with their numbers; of equals the one that came first."""
        return [(self._names[answer], count) for answer, count in self._top(split, value, top)]

    def times(self, answer: str, split: str, value: str | None = None) -> int:
        """Return how often one answer is given in a split."""
        return int((np.asarray(self._answers)[self._chosen(split, value)] == hash(answer)).sum())

    def _chosen(self, split: str | None, value: str | None) -> Any:
        chosen = np.ones(len(self._answers), bool)
        if split is not None:
            chosen &= np.asarray(self._sides) == SPLITS.index(split)
        if value is not None:
            chosen &= np.asarray(self._values) == self._numbers.get(value, -1)
        return chosen

    def _top(self, split: str | None, value: str | None, top: int) -> list[tuple[int, int]]:
        answers = np.asarray(self._answers)[self._chosen(split, value)]
        known, first, counts = np.unique(answers, return_index=True, return_counts=True)
        order = np.lexsort((first, -counts))[:top]
        return [(int(known[at]), int(counts[at])) for at in order]
