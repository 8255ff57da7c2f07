"""Scores of parts of a test set: by modality, organ, kind of question, data set, normal or not.

Slices sum the statistics that exist; CIDEr's document frequencies stay those of the whole set, so that a slice compares
with the whole. What is too small to mean something is named, not scored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medvlm.evaluate.metrics import Scores
from medvlm.evaluate.statistics import Bootstrap

COLUMNS = (
    "task", "data", "source", "modality", "organ", "question_type", "answer_type", "language", "finding", "normal",
)  # fmt: skip
"""What slices go by, where a data set has it."""

LEAST = 30
"""Of fewer segments an interval says more about chance than about the model."""

LEAST_GROUPS = 10
"""Of fewer groups a bootstrap draws nearly the same each time."""

_MOST_VALUES = 40
"""A column with more values than this is a free text, of which the largest are looked at and the others counted."""


def slices(
    rows: Sequence[Mapping[str, Any]],
    groups: Sequence[str],
    scored: Mapping[str, Scores],
    resamples: int = 1000,
    seed: int = 0,
    columns: Sequence[str] = COLUMNS,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the scores by slice, and the slices that are too small to be scored.

    Args:
        rows: [n] the columns of each segment.
        groups: [n] the cluster of each.
        scored: system -> its scores of the same segments.
        resamples: of the intervals; 0 for none.
        seed: of the intervals.
        columns: what to go by; one with a single value for all is no slice.

    Returns:
        Slices of {column, value, n, groups, rows: {system: {key: [score, low, high]}}} (low and high None without
        resamples), by column, then largest first; and of {column, value, n} what was left out, values beyond the
        forty largest of a column together.
    """
    kept, small = [], []
    for column in columns:
        parts = _parts(rows, column)
        for value, places in parts[:_MOST_VALUES]:
            inside = [groups[place] for place in places]
            head = {"column": column, "value": value, "n": len(places)}
            if len(places) < LEAST or len(set(inside)) < LEAST_GROUPS:
                small.append(head)
                continue
            bootstrap = Bootstrap(inside, resamples, seed) if resamples else None
            found = {name: _scores(one, np.asarray(places), bootstrap) for name, one in scored.items()}
            kept.append({**head, "groups": len(set(inside)), "rows": found})
        if further := parts[_MOST_VALUES:]:
            n = sum(len(places) for _, places in further)
            small.append({"column": column, "value": f"{len(further)} further values", "n": n})
    return kept, small


def _parts(rows: Sequence[Mapping[str, Any]], column: str) -> list[tuple[str, list[int]]]:
    """Return the values of a column with the places of their rows, largest first; none where all are alike."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        value = row.get(column)
        if value is not None and str(value).strip():
            places.setdefault(str(value).strip(), []).append(place)
    if len(places) == 1 and len(next(iter(places.values()))) == len(rows):
        return []
    return sorted(places.items(), key=lambda item: (-len(item[1]), item[0]))


def _scores(scored: Scores, places: Any, bootstrap: Bootstrap | None) -> dict[str, list[float | None]]:
    found: dict[str, list[float | None]] = {}
    for name, metric in scored.metrics.items():
        statistics = scored.statistics[name][places]
        if bootstrap is not None:
            intervals = bootstrap.intervals(metric, statistics)
            found |= {key: [one.estimate, one.low, one.high] for key, one in intervals.items()}
            continue
        values = metric.of_sums(statistics.sum(axis=0, keepdims=True))[0].tolist()
        found |= {key: [value, None, None] for key, value in zip(metric.keys, values, strict=True) if value == value}
    return found


# The rules know chest radiographs: "no effusion" of a knee, or a normal CT of the head, says nothing about one.
_RADIOGRAPH = re.compile(r"radiograph|x[\s_-]?ray|\bfilms?\b|\b(?:cr|dr|dx|xr|cxr)\b", re.IGNORECASE)
_NOT_SAID = ("", "unknown", "unspecified", "n/a")
_NO_FINDING = ("none", "no finding", "normal")


def is_radiograph(modality: str) -> bool:
    """Return True where a modality is one of the ordinary words for a radiograph, or a DICOM code of one."""
    return bool(_RADIOGRAPH.search(modality))


def with_normal(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with a column `normal`: what is known, or what a report or caption to match says by rule.

    A column `finding` is what is known where it says that there is none, or is in the words of the embedded sample:
    what other data sets call a finding may be a normal one. The rules are those of `medvlm.evaluate.findings`; a text
    that says nothing about it gets no value, nor does one about a picture that is known to be no radiograph.
    """
    return [{**row, "normal": _normal(row)} for row in rows]


def _normal(row: Mapping[str, Any]) -> str | None:
    from medvlm.evaluate.findings import is_normal, is_phantom

    finding = str(row.get("finding") or "").strip().casefold()
    if finding in _NO_FINDING:
        return "normal"
    if finding and is_phantom(finding):
        return "abnormal"
    references = row.get("references") or []
    modality = str(row.get("modality") or "").strip().casefold()
    if modality not in _NOT_SAID and not is_radiograph(modality):
        return None
    if row.get("task") not in ("caption", "report") or not references:
        return None
    found = is_normal(str(references[0]))
    return None if found is None else "normal" if found else "abnormal"
