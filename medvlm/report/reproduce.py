"""How to do it again: the exact commands, versions and the resolved recipe."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from medvlm.report.context import DataSet, Evaluation, RunContext
from medvlm.report.document import Block, Code, Facts, Table, Text
from medvlm.report.scored import Scored, whole
from medvlm.report.values import mapping, text


def _prepare_command(part: DataSet) -> str:
    """Return the command that makes a data set where the run looked for it; a manifest does not say where it lies."""
    command = text(part.manifest.get("command"))
    return f"{command} --out {shlex.quote(part.path)}" if command else ""


def _without_resume(command: str) -> str:
    """Return a command that begins a run anew."""
    return re.sub(r"\s--resume(?=\s|$)", "", command)


def reproduce_blocks(run: RunContext) -> Iterator[Block]:
    """Yield the commands in order, and what they were run with."""
    yield Code("\n".join(commands(run)), "sh")
    facts = [
        (key.replace("_", " "), text(run.facts.get(key))) for key in ("started", "finished", "seed", "recipe_hash")
    ]
    yield Facts([(label, value) for label, value in facts if value])
    versions = mapping(run.facts.get("versions"))
    if versions:
        yield Table(("package", "version"), [[name, text(found)] for name, found in versions.items()], "Versions")
    if run.recipe:
        yield Text("The resolved recipe:")
        yield Code(run.recipe, "yaml")


def commands(run: RunContext) -> list[str]:
    """Return the commands that make the data, the run, its scores and this report."""
    found = [_prepare_command(part) for part in run.data]
    found.append(_without_resume(text(run.facts.get("command"))))
    folder = shlex.quote(str(run.path))
    found += [f"medvlm eval {folder} {' '.join(_eval_options(evaluation))}" for evaluation in run.evaluations]
    found.append(f"medvlm report {folder}")
    return [line for line in found if line]


def _eval_options(evaluation: Evaluation) -> Iterator[str]:
    """Yield what `medvlm eval` was asked for; of scores that do not say it, as far as they show it."""
    scored = evaluation.scored
    asked = _shown(scored) | mapping(scored.raw.get("settings"))
    yield f"--split {shlex.quote(evaluation.split)}"
    yield f"--metrics {shlex.quote(','.join(scored.signatures) or 'bleu,rouge,cider')}"
    controls = asked.get("controls")
    for option, value, usual in (
        ("tokenizer", asked.get("tokenizer"), "ptb"),
        ("case", asked.get("case"), "lower"),
        ("stem", asked.get("stem") is True, False),
        ("negation", asked.get("negation"), "rules"),
        ("idf", asked.get("idf"), None),
        ("limit", whole(scored.raw.get("limit")), None),
        ("bootstrap", whole(asked.get("bootstrap")), None),
        ("groups", asked.get("groups"), "group"),
        ("seed", whole(asked.get("seed")), 0),
        ("controls", "none" if controls == 0 else controls, None),
        ("exclude-leaked", asked.get("exclude_leaked") is True, False),
        ("no-base", asked.get("base") is False, False),
        ("batch-size", whole(asked.get("batch_size")), None),
        ("shots", whole(asked.get("shots")), None),
        ("max-images", whole(asked.get("max_images")), None),
        ("engine", asked.get("engine"), "transformers"),
    ):
        if value not in (usual, None, ""):
            yield f"--{option}" if value is True else f"--{option} {shlex.quote(text(value))}"


def _shown(scored: Scored) -> dict[str, Any]:
    """Return the settings that scores show by themselves."""
    controls = scored.controls.n
    return {
        "tokenizer": scored.setting("tok"),
        "case": scored.setting("case"),
        "bootstrap": mapping(scored.raw.get("bootstrap")).get("resamples"),
        "controls": "all" if controls is not None and controls == scored.n else controls,
        "engine": scored.raw.get("engine"),
    }
