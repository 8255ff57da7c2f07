"""What a run folder says, read into types; whatever is missing or damaged becomes a problem that is told."""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from medvlm.errors import InputError, MedvlmError
from medvlm.export.rights import Rights, distinct, licenses_of, of_export, of_run, recorded, stricter
from medvlm.licenses import policy, registry
from medvlm.report.scored import Scored
from medvlm.report.values import listed, mapping, text, texts
from medvlm.runs import Run, group_of

_MARKS = ("run.json", "recipe.yaml", "metrics.jsonl", "compute.json", "eval")


@dataclass(slots=True)
class Prediction:
    """One line of predictions.jsonl."""

    id: str
    prediction: str
    references: list[str]
    task: str
    prompt: str
    row: dict[str, Any] = field(default_factory=dict)
    """The whole line: group, modality, answer_type, choices, ..., where it has them."""


@dataclass
class Evaluation:
    """What lies under eval/<split>/."""

    split: str
    scores: dict[str, Any]
    """scores.json; empty where it is missing."""
    predictions: list[Prediction]

    @cached_property
    def scored(self) -> Scored:
        """The scores as types."""
        return Scored(self.scores)


@dataclass(slots=True)
class DataSet:
    """A data set of the run, with its manifest where the folder is still there."""

    path: str
    facts: dict[str, Any]
    folder: Path | None
    manifest: dict[str, Any]
    state: str = "there"
    """Whether the folder is "there", "gone", or "changed": it holds other data than the run was made from."""
    readme: str = ""
    """The data set's own card, without its front matter."""

    @property
    def card(self) -> dict[str, Any]:
        """What its source says of it: title, description, homepage, citation, known problems."""
        return mapping(self.manifest.get("card"))

    @property
    def title(self) -> str:
        """What the data set calls itself, else its path."""
        return text(self.card.get("title")) or text(self.facts.get("title")) or self.path

    @property
    def synthetic(self) -> bool:
        """Whether it was drawn by a program."""
        return bool(self.facts.get("synthetic") or self.manifest.get("synthetic"))

    @property
    def licenses(self) -> dict[str, int]:
        """Training samples by license; "unknown" where it was not recorded."""
        return dict(licenses_of([self.facts]))


@dataclass(slots=True)
class RunContext:
    """Everything that a report says about one run."""

    path: Path
    facts: dict[str, Any]
    recipe: str
    steps: list[dict[str, Any]]
    compute: dict[str, Any]
    evaluations: list[Evaluation]
    data: list[DataSet]
    problems: list[str] = field(default_factory=list)
    rights: Rights | None = None
    """What follows by today's registry, of earlier stages too; None of a baseline, and where the run is damaged."""

    @property
    def name(self) -> str:
        """The folder's own name, which is unique among runs."""
        return self.path.resolve().name

    @property
    def model_id(self) -> str:
        """What the recipe called the base model."""
        return text(mapping(self.facts.get("model")).get("id"))

    @property
    def baseline(self) -> bool:
        """Whether it is a model as it was published, which nothing was trained of."""
        return text(self.facts.get("kind")) == "baseline"

    @property
    def parts(self) -> dict[str, registry.Entry | None]:
        """What the base is made of -> its registry entry: one checkpoint, or an image tower and a language model."""
        names = mapping(mapping(self.facts.get("model")).get("parts")).values()
        return {name: registry.of_model(name) for name in map(text, names or [self.model_id]) if name}

    @property
    def group(self) -> dict[str, Any]:
        """Of which stages or variants it is one: id, kind, member, members; empty where it stands alone."""
        return group_of(self.facts)

    @property
    def member(self) -> str:
        """Its name within the group."""
        return text(self.group.get("member"))

    @property
    def synthetic(self) -> bool:
        """Whether any of the data was drawn by a program."""
        return any(part.synthetic for part in self.data)

    @property
    def data_licenses(self) -> dict[str, int]:
        """Training samples by license over all data sets; of a baseline, of the data that it answers about."""
        return dict(licenses_of(distinct(part.facts for part in self.data)))

    @property
    def licenses(self) -> dict[str, int]:
        """What the model was trained on here: samples by license over all data sets."""
        return {} if self.baseline else self.data_licenses

    @property
    def earlier_data(self) -> list[dict[str, Any]]:
        """What run.json of earlier stages says of data sets that they were trained on."""
        own = distinct(part.facts for part in self.data)
        return distinct([*own, *self.rights.data])[len(own) :] if self.rights else []

    @property
    def exported_data(self) -> list[dict[str, Any]]:
        """Of a baseline that medvlm exported: what export.json says of data sets that it was trained on."""
        told = of_export(self.facts) if self.baseline else None
        return told.data if told else []

    @property
    def all_licenses(self) -> dict[str, int]:
        """What the model was trained on here and in earlier stages: samples by license."""
        own = distinct(part.facts for part in self.data)
        return {} if self.baseline else dict(licenses_of([*own, *self.earlier_data]))

    def base_verdict(self) -> policy.Verdict:
        """Return what follows for the base model as it is: of a baseline, for the model itself."""
        return policy.verdict_of_parts(self.parts or {"": None}, None)

    def verdict(self) -> policy.Verdict:
        """Return the stricter of the verdict that the run recorded and of the one that follows from its inputs today.

        A recorded one that is damaged counts for nothing.
        """
        if self.baseline:
            told = of_export(self.facts)
            return policy.Verdict(**told.verdict) if told else self.base_verdict()
        if self.rights:
            return policy.Verdict(**self.rights.verdict)
        return stricter(self._of_damaged(), recorded(self.facts.get("license")))

    def _of_damaged(self) -> policy.Verdict:
        """Return what follows from what can be read: a start that may stand in a damaged recipe is unknown."""
        recipe = parsed(self.recipe)
        start = mapping(mapping(recipe).get("model")).get("start")
        gone = [text(start)] if start else [] if isinstance(recipe, dict) else ["(recipe.yaml cannot be read)"]
        return policy.verdict_of_parts(self.parts or {"": None}, self.licenses, gone=gone)


# Asked for in many places of a page, and a damaged file may take a second to be found so.
@functools.lru_cache(maxsize=64)
def parsed(recipe: str) -> object:
    """Return what a recipe's text holds, not to be changed; None where it is damaged."""
    try:
        found: object = yaml.safe_load(recipe)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return found


def _rights(path: Path, facts: dict[str, Any]) -> Rights | None:
    if text(facts.get("kind")) == "baseline":
        return None
    try:
        return of_run(Run(path))
    except MedvlmError:
        return None


def read(path: Path) -> RunContext:
    """Read a run folder.

    Raises:
        InputError: there is no such folder, or nothing in it is of a run.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such run folder; `ls runs` shows those there are")
    if not any((path / mark).exists() for mark in _MARKS):
        raise InputError(f"{path}: not the folder of a run: it has none of {', '.join(_MARKS)}")
    problems: list[str] = []
    facts = _json(path / "run.json", problems)
    recipe = _text_file(path / "recipe.yaml", problems)
    # What was not trained has neither losses nor costs of training.
    trained = problems if text(facts.get("kind")) != "baseline" else []
    steps = _json_lines(path / "metrics.jsonl", trained)
    compute = _json(path / "compute.json", trained)
    evaluations = _evaluations(path, problems)
    data = [_data_set(path, mapping(part), problems) for part in listed(facts.get("data"))]
    return RunContext(path, facts, recipe, steps, compute, evaluations, data, problems, _rights(path, facts))


def _text_file(path: Path, problems: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")
    return ""


def _json(path: Path, problems: list[str]) -> dict[str, Any]:
    content = _text_file(path, problems)
    if not content:
        return {}
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        problems.append(f"{path.name} is damaged")
    return mapping(found)


def _json_lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    rows, damaged = [], 0
    for line in _text_file(path, problems).split("\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            damaged += 1
    if damaged:
        problems.append(f"{path.name}: {damaged} damaged line{'s' if damaged > 1 else ''} left out")
    return rows


def _evaluations(path: Path, problems: list[str]) -> list[Evaluation]:
    order = {"test": 0, "validation": 1, "train": 2}
    folders = [folder for folder in (path / "eval").glob("*") if folder.is_dir()]
    found = []
    for folder in sorted(folders, key=lambda folder: (order.get(folder.name, 9), folder.name)):
        own: list[str] = []
        scores = _json(folder / "scores.json", own)
        rows = _json_lines(folder / "predictions.jsonl", own)
        problems.extend(f"eval/{folder.name}: {problem}" for problem in own)
        predictions = [_prediction(row) for row in rows if "id" in row]
        if isinstance(scores.get("scored_ids"), list):
            # Others were made too, but are no part of what was scored: beyond a limit, or in the training data.
            scored = set(texts(scores["scored_ids"]))
            predictions = [row for row in predictions if row.id in scored]
        found.append(Evaluation(folder.name, scores, predictions))
    return found


def _prediction(row: dict[str, Any]) -> Prediction:
    return Prediction(
        text(row["id"]),
        text(row.get("prediction")),
        texts(row.get("references")),
        text(row.get("task")),
        text(row.get("prompt")),
        row,
    )


def _data_set(run: Path, facts: dict[str, Any], problems: list[str]) -> DataSet:
    """Find a data set where the run found it: from the working directory, else from beside `runs/`."""
    path = text(facts.get("path"))
    state = "gone"
    for folder in (Path(path), run.resolve().parent.parent / path):
        # A path that no file system takes (too long, a NUL in it) is no folder either.
        with contextlib.suppress(OSError, ValueError):
            if not path or not (folder / "data").is_dir():
                continue
            manifest = _json(folder / "manifest.json", [])
            known, found = text(facts.get("fingerprint")), text(manifest.get("fingerprint"))
            if not (known and found) or known == found:
                return DataSet(path, facts, folder, manifest, readme=_readme(folder))
            state = "changed"
    if state == "changed":
        problems.append(f"the data set at {path} has changed since")
    return DataSet(path, facts, None, {}, state)


def _readme(folder: Path) -> str:
    """Return the card beside the shards, without the YAML block that is for the Hub."""
    content = _text_file(folder / "README.md", [])
    if content.startswith("---\n"):
        _, _, content = content[4:].partition("\n---\n")
    return content.strip()
