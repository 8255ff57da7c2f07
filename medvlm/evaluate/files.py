"""Scores of predictions that lie in files, and of several systems side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.evaluate import predictions_file
from medvlm.evaluate.cautions import cautions
from medvlm.evaluate.compare import compare, in_common, tasks_of
from medvlm.evaluate.score_table import Row, Settings, automatic, grouped_by, table


def rows_of(path: Path, references: Path | None, settings: Settings) -> list[Row]:
    """Return the rows of a predictions file as `score_table` takes them.

    Raises:
        InputError: the file is wrong, or no row has the column that groups are asked by.
    """
    found = predictions_file.read(path, references)
    rows = [
        {
            **predictions_file.columns(row),
            "id": row.id,
            "prediction": row.prediction,
            "references": row.references,
            "group": row.group,
        }
        for row in found
    ]
    return grouped_by(rows, settings.group_by)


def score_rows(rows: Sequence[Row], settings: Settings) -> dict[str, Any]:
    """Return the scores of one list of predictions, in the form of scores.json, with its warnings."""
    found = table({"model": rows}, settings)
    return {**found, "warnings": cautions(found)}


def compare_rows(rows: Mapping[str, Sequence[Row]], settings: Settings) -> dict[str, Any]:
    """Return several systems on the samples that all of them answered (see `medvlm.evaluate.compare`)."""
    first = next(iter(in_common(rows).values()))
    names = settings.metrics or automatic(first)
    found = compare(rows, names, settings.options, settings.bootstrap, seed=settings.seed)
    return {**found, "tasks": tasks_of(first)}
