"""The constant answer: the one training target that, said for every image, scores best on the validation split."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

CANDIDATES = 2000
"""At most so many distinct targets are tried: the most frequent half, and a seeded choice of the rest."""

ROWS = 300
"""On at most so many validation rows the best are compared."""

SCREEN_ROWS, SCREENED = 50, 50
"""All candidates are compared on so many rows first, and so many of them go on to all rows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Constant:
    """The best constant answer of a task, and how thoroughly it was looked for."""

    text: str
    tried: int
    distinct: int


def best_constants(
    train: Sequence[dict[str, Any]], validation: Sequence[dict[str, Any]], seed: int
) -> dict[str, Constant]:
    """Return the best constant answer of each task.

    Args:
        train: rows with `task` and `target` to choose from.
        validation: rows to choose by; where a task has fewer than two, the training rows stand in.
        seed: of the choice among many candidates and rows.

    Returns:
        Task -> Constant. Captions and reports are compared by CIDEr, as `medvlm eval` scores them; answers to questions
        by how often they are right, compared as the metric vqa compares words.
    """
    constants = {}
    for task in sorted({str(row["task"]) for row in train}):
        targets = Counter(str(row["target"]) for row in train if row["task"] == task)
        held_out = [str(row["target"]) for row in validation if row["task"] == task]
        if len(held_out) < 2:
            held_out = [str(row["target"]) for row in train if row["task"] == task]
        chance = random.Random(seed)
        # Sorted by text within a count, so that the choice does not depend on the order of the rows.
        ranked = sorted(targets, key=lambda text: (-targets[text], text))
        if task == "vqa":
            constants[task] = Constant(_most_right(ranked, held_out), len(ranked), len(ranked))
            continue
        candidates = _candidates(ranked, chance)
        text = _best_cider(candidates, chance.sample(held_out, min(ROWS, len(held_out))))
        constants[task] = Constant(text, len(candidates), len(ranked))
    return constants


def _candidates(ranked: list[str], chance: random.Random) -> list[str]:
    if len(ranked) <= CANDIDATES:
        return ranked
    half = CANDIDATES // 2
    return ranked[:half] + chance.sample(ranked[half:], half)


def _most_right(candidates: Sequence[str], references: Sequence[str]) -> str:
    from medvlm.evaluate.vqa import words

    counts = Counter(tuple(words(text)) for text in references)
    return max(candidates, key=lambda text: counts[tuple(words(text))])


def _best_cider(candidates: Sequence[str], references: Sequence[str]) -> str:
    from medvlm.evaluate.metrics import score

    if len(candidates) > SCREENED:
        screen = _screen(candidates, references[:SCREEN_ROWS])
        candidates = sorted(candidates, key=lambda text: -screen[text])[:SCREENED]
    listed = [[text] for text in references]
    return max(candidates, key=lambda text: score(["cider"], [text] * len(listed), listed).values["cider"])


def _screen(candidates: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return nearly each candidate's CIDEr when it is said for every reference.

    Many are scored in one call. Repeating all references alike leaves the IDF of their n-grams as it is; n-grams that
    no reference has weigh a little more than alone, so this chooses who goes on, not who wins.
    """
    from medvlm.evaluate.metrics import score

    listed = [[text] for text in references]
    at_once = max(1, 10_000 // len(listed))
    found: dict[str, float] = {}
    for start in range(0, len(candidates), at_once):
        block = candidates[start : start + at_once]
        said = [text for text in block for _ in listed]
        segments = score(["cider"], said, listed * len(block)).per_segment["cider"]
        means = segments.reshape(len(block), len(listed)).mean(axis=1)
        found |= dict(zip(block, means.tolist(), strict=True))
    return found
