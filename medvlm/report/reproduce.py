"""How to do it again: the exact commands, versions and the resolved recipe."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from medvlm.report.context import DataSet, Evaluation, RunContext
from medvlm.report.document import Block, Code, Facts, Table, Text
from medvlm.report.scored import whole
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
    scored = evaluation.scored
    yield f"--split {shlex.quote(evaluation.split)}"
    yield f"--metrics {shlex.quote(','.join(scored.signatures) or 'bleu,rouge,cider')}"
    for option, key, usual in (("tokenizer", "tok", "ptb"), ("case", "case", "lower")):
        said = scored.setting(key)
        if said not in ("", usual):
            yield f"--{option} {shlex.quote(said)}"
    limit, resamples = whole(scored.raw.get("limit")), whole(mapping(scored.raw.get("bootstrap")).get("resamples"))
    if limit is not None:
        yield f"--limit {limit}"
    if resamples is not None:
        yield f"--bootstrap {resamples}"
    if scored.controls.n is not None:
        yield "--controls all" if scored.controls.n == scored.n else f"--controls {scored.controls.n}"
    engine = text(scored.raw.get("engine"))
    if engine and engine != "transformers":
        yield f"--engine {shlex.quote(engine)}"
