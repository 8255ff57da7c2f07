"""A report as data: `report.json`, beside the page.

    schema        1
    medvlm        the version that wrote it
    title         of the report
    notice        what the report is not
    runs          a list; of each run
        name, path, kind ("run" or "baseline"), status, synthetic, group, problems (sentences)
        model         as run.json says: id, revision, parts, ...
        in_short      the first questions with their answers, in words
        license       commercial_use, may_share, license, obligations, reasons, notice
        inputs        of each part of the base: name, and its entry in the license registry, or null
        data          of each data set: title, path, state, fingerprint, rows, licenses, synthetic, counts, drops, card
        earlier_data  what run.json of earlier stages says of each other data set that they were trained on
        training      curves (line -> [[step, value], ...]) and census (parameters by component)
        compute       compute.json, and in_words: the same as the page tells it
        evaluations   of each split: split, headline (the metric of the sentences), warnings, scores (scores.json)
        commands, versions, recipe (YAML text)
    comparisons   split -> what medvlm.evaluate.compare found of these runs, or {"why_not": a sentence}
    baselines     the license registry, entry by entry; published scores are on other splits and by other scorers
    document      what the page says, in its order: sections of title, level and blocks; a block has a type and its
                  fields. Charts are in words, and cases hold no images.

Numbers that are not finite are null; characters that no page can hold are U+FFFD. A key that is here stays.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import medvlm
from medvlm.licenses import registry
from medvlm.report import cost, overview, reproduce, results, side_by_side
from medvlm.report.context import DataSet, Evaluation, RunContext
from medvlm.report.document import Block, Document, printable
from medvlm.report.pairs import Comparisons
from medvlm.report.values import mapping, text

SCHEMA = 1
_PICTURES = frozenset({"svg", "image", "maps"})
_DEEPEST = 40


def content(
    document: Document, runs: Sequence[RunContext], comparisons: Comparisons, notice: str = ""
) -> dict[str, Any]:
    """Return report.json.

    Args:
        document: the report of `runs`.
        runs: in the order of the report.
        comparisons: of `pairs.compared`; {} for one run.
        notice: what the report is not.
    """
    found = {
        "schema": SCHEMA,
        "medvlm": medvlm.__version__,
        "title": document.title,
        "notice": notice,
        "runs": [_run(run) for run in runs],
        "comparisons": {split: {"why_not": one} if isinstance(one, str) else one for split, one in comparisons.items()},
        "baselines": [entry.model_dump(mode="json") for entry in registry.load()],
        "document": [
            {"title": one.title, "level": one.level, "blocks": [_block(block) for block in one.blocks]}
            for one in document.sections
        ],
    }
    return mapping(_clean(found))


def _run(run: RunContext) -> dict[str, Any]:
    verdict = run.verdict()
    return {
        "name": run.name,
        "path": str(run.path),
        "kind": "baseline" if run.baseline else "run",
        "status": text(run.facts.get("status")) or "unknown",
        "synthetic": run.synthetic,
        "group": run.group,
        "problems": run.problems,
        "model": mapping(run.facts.get("model")),
        "in_short": {"what it is": overview.summary(run), **dict(overview.questions(run))},
        "license": verdict.as_dict(),
        "inputs": {name: entry and entry.model_dump(mode="json") for name, entry in run.parts.items()},
        "data": [_data(part) for part in run.data],
        "earlier_data": run.earlier_data,
        "training": {
            "curves": {key: side_by_side.points(run, key) for key in ("loss", "eval_loss", "learning_rate")},
            "census": mapping(run.facts.get("census")),
        },
        "compute": {**run.compute, "in_words": dict(cost.facts(run)) if run.compute else {}},
        "evaluations": [_evaluation(one) for one in run.evaluations],
        "commands": reproduce.commands(run),
        "versions": mapping(run.facts.get("versions")),
        "recipe": run.recipe,
    }


def _data(part: DataSet) -> dict[str, Any]:
    return {
        "title": part.title,
        "path": part.path,
        "state": part.state,
        "fingerprint": text(part.facts.get("fingerprint")),
        "rows": part.facts.get("rows"),
        "licenses": part.licenses,
        "synthetic": part.synthetic,
        "counts": mapping(part.manifest.get("counts")),
        "drops": mapping(part.manifest.get("drops")),
        "card": part.card,
    }


def _evaluation(one: Evaluation) -> dict[str, Any]:
    return {
        "split": one.split,
        "headline": one.scored.headline,
        "warnings": results.warnings(one.scored),
        "scores": one.scores,
    }


def _block(block: Block) -> dict[str, Any]:
    return {"type": type(block).__name__.lower(), **mapping(_plain(block))}


def _plain(value: Any) -> Any:
    """Return the fields of a block, and of the blocks within it, without pictures."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value) if field.name not in _PICTURES)
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _clean(value: Any, depth: int = 0) -> Any:
    """Return a value that any reader of JSON takes; what is nested deeper than 40 levels is cut off."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if depth > _DEEPEST:
        return None
    if isinstance(value, Mapping):
        return {printable(str(key)): _clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return [_clean(item, depth + 1) for item in sorted(value)]
    if isinstance(value, list | tuple):
        return [_clean(item, depth + 1) for item in value]
    return str(value) if isinstance(value, Path) else printable(str(value))
