"""The constant answer: the one training target that, said for every image, scores best on the validation split."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

CANDIDATES = 200
"""At most so many targets are tried: the most frequent half, and a seeded choice of the rest."""

VALIDATION_ROWS = 300
"""On so many validation rows they are compared."""


def best_constants(train: Sequence[dict[str, Any]], validation: Sequence[dict[str, Any]], seed: int) -> dict[str, str]:
    """Return the best constant answer of each task.

    Args:
        train: rows with `task` and `target` to choose from.
        validation: rows to choose by; where a task has none, the training rows stand in.
        seed: of the choice among many candidates.

    Returns:
        Task -> text. Captions and reports are compared by CIDEr, as `medvlm eval` scores them; answers to questions by
        how often they are right.
    """
    constants = {}
    for task in sorted({str(row["task"]) for row in train}):
        targets = Counter(str(row["target"]) for row in train if row["task"] == task)
        held_out = [str(row["target"]) for row in validation if row["task"] == task]
        if len(held_out) < 2:
            held_out = [str(row["target"]) for row in train if row["task"] == task]
        chance = random.Random(seed)
        if len(held_out) > VALIDATION_ROWS:
            held_out = chance.sample(held_out, VALIDATION_ROWS)
        candidates = _candidates(targets, chance)
        constants[task] = _most_right(candidates, held_out) if task == "vqa" else _best_cider(candidates, held_out)
    return constants


def _candidates(targets: Counter[str], chance: random.Random) -> list[str]:
    # Sorted by text within a count, so that the choice does not depend on the order of the rows.
    ranked = sorted(targets, key=lambda text: (-targets[text], text))
    if len(ranked) <= CANDIDATES:
        return ranked
    half = CANDIDATES // 2
    return ranked[:half] + chance.sample(ranked[half:], half)


def _most_right(candidates: Sequence[str], references: Sequence[str]) -> str:
    counts = Counter(text.strip().lower() for text in references)
    return max(candidates, key=lambda text: counts[text.strip().lower()])


def _best_cider(candidates: Sequence[str], references: Sequence[str]) -> str:
    from medvlm.evaluate.metrics import score

    listed = [[text] for text in references]
    return max(candidates, key=lambda text: score(["cider"], [text] * len(listed), listed).values["cider"])
