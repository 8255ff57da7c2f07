"""The model card of a bill of materials: CycloneDX 1.6's `modelCard`, from a run's facts and scores.

cyclonedx-python-lib has no type for it as of 11.12, so it is built as the plain data of the schema, which the library's
validator then checks with all the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from medvlm.errors import InputError
from medvlm.recipe.models import Recipe
from medvlm.runs import Run

ROWS = {"model": "model", "base": "base before training", "constant": "constant answer"}
"""Rows of scores.json -> what they are, in words."""

CONSIDERATIONS: dict[str, Any] = {
    "users": ["radiologists and researchers who read, correct and answer for every text that it writes"],
    "useCases": ["research, and drafts of captions, answers and reports from radiology images"],
    "technicalLimitations": [
        "not a medical device: neither tested nor approved for diagnosis, screening or treatment",
        "it may describe what is not in the image, and miss what is",
        "scanners, views, populations and languages that its training data lack were not seen",
    ],
    "ethicalConsiderations": [
        {
            "name": "a wrong text may reach a patient's record",
            "mitigationStrategy": "a radiologist reads every draft before it is used",
        }
    ],
}


def card(run: Run, recipe: Recipe, datasets: list[str]) -> dict[str, Any]:
    """Return the `modelCard` of a run's model.

    Args:
        run: finished.
        recipe: of the run.
        datasets: the references (bom-ref) of the data sets it was trained on.

    Raises:
        InputError: a scores.json of the run is damaged.
    """
    scores = dict(_scores(run))
    considerations = dict(CONSIDERATIONS)
    warnings = [f"{split}: {text}" for split, found in scores.items() for text in found.get("warnings", [])]
    considerations["technicalLimitations"] = [*CONSIDERATIONS["technicalLimitations"], *warnings]
    found: dict[str, Any] = {
        "bom-ref": "model-card",
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "image and text to text",
            "architectureFamily": "transformer",
            "modelArchitecture": f"{recipe.model.backbone}: {recipe.model.label}",
            "datasets": [{"ref": name} for name in datasets],
            "inputs": [{"format": "image"}, {"format": "string"}],
            "outputs": [{"format": "string"}],
        },
        "considerations": considerations,
    }
    metrics = [metric for split, read in scores.items() for metric in _metrics(split, read)]
    if metrics:
        found["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return found


def _scores(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((run.path / "eval").glob("*/scores.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{path}: damaged; evaluate again with `medvlm eval`") from None
        if not isinstance(found, dict):
            raise InputError(f"{path}: damaged; evaluate again with `medvlm eval`")
        yield path.parent.name, found


def _metrics(split: str, scores: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each score of each row, with its interval where there is one; the model's by slice behind them."""
    intervals = scores.get("intervals") or {}
    for row, values in (scores.get("rows") or {}).items():
        for key, value in values.items():
            place = f"{split}, n = {scores.get('n')}, {ROWS.get(row, row)}"
            yield from _metric(key, value, place, (intervals.get(row) or {}).get(key))
    for part in scores.get("slices") or []:
        for key, (value, *interval) in (part.get("rows", {}).get("model") or {}).items():
            place = f"{split}, n = {part.get('n')}, model, {part.get('column')}: {part.get('value')}"
            yield from _metric(key, value, place, interval)


def _metric(key: str, value: Any, place: str, interval: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(value, int | float):
        # A score that is not defined on these rows.
        return
    metric: dict[str, Any] = {"type": key, "value": f"{value:.6g}", "slice": place}
    if interval and all(isinstance(bound, int | float) for bound in interval):
        low, high = interval
        metric["confidenceInterval"] = {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"}
    yield metric
