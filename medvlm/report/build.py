"""From run contexts to one document: the order of a report and the words in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from medvlm.licenses import registry
from medvlm.licenses.listing import short
from medvlm.report import cost, gallery, plots, results, side_by_side
from medvlm.report.context import DataSet, Evaluation, RunContext
from medvlm.report.document import Block, Cases, Caution, Chart, Code, Document, Facts, Section, Table, Text
from medvlm.report.values import counts, mapping, number, text, texts, words

NOT_CLINICAL = "Not for clinical use: research output, not checked by a physician, no medical device."
SYNTHETIC = (
    "Synthetic data: the images were drawn by a program and show no patient; the scores say nothing about real images."
)


def build(runs: Sequence[RunContext]) -> Document:
    """Return the report on one run, or a comparison of several with a part for each."""
    if len(runs) == 1:
        run = runs[0]
        sections = [*_sections(run, 2), _baselines()]
        group = side_by_side.note_of_group(run)
        lead = [_summary(run), *([group] if group else []), *_cautions(run)]
        return Document(run.name, lead, _labels(run), sections)
    runs = side_by_side.order(runs)
    sections = [side_by_side.section(runs), _comparison(runs)]
    for run in runs:
        blocks: list[Block] = [Text(_summary(run)), *(Text(line) for line in _cautions(run))]
        sections.append(Section(run.name, blocks))
        sections.extend(_sections(run, 3))
    sections.append(_baselines())
    labels = list(dict.fromkeys(label for run in runs for label in _labels(run) if label != "finished"))
    return Document(side_by_side.title(runs), [NOT_CLINICAL], labels, sections)


def _labels(run: RunContext) -> list[str]:
    status = text(run.facts.get("status")) or "status unknown"
    return [status, *(["synthetic data"] if run.synthetic else [])]


def _summary(run: RunContext) -> str:
    base = run.model_id or "an unrecorded base model"
    data = ", ".join(part.title for part in run.data) or "unrecorded data"
    rows = sum(run.licenses.values())
    trained = f", {rows:,} training samples" if rows else ""
    scored = [f"{text(e.scores.get('n'))} of {e.split}" for e in run.evaluations if e.scores.get("n") is not None]
    measured = f"; scored on {', '.join(scored)}" if scored else "; not scored yet"
    return f"{base} fine-tuned on {data}{trained}{measured}."


def _cautions(run: RunContext) -> list[str]:
    return [NOT_CLINICAL, *([SYNTHETIC] if run.synthetic else [])]


def _sections(run: RunContext, level: int) -> Iterator[Section]:
    if run.problems:
        lines = "; ".join(run.problems)
        yield Section("Incomplete", [Caution(f"Parts of this run are missing or damaged: {lines}.")], level)
    for evaluation in run.evaluations:
        yield Section(f"Scores: {evaluation.split}", list(results.score_blocks(run, evaluation)), level)
    if not run.evaluations:
        yield Section("Scores", [Text("Not evaluated yet: run medvlm eval.")], level)
    yield Section("Licenses", list(_licenses(run)), level)
    if run.evaluations:
        yield Section("Cases", list(_cases(run, run.evaluations[0])), level)
    yield Section("Training", list(_training(run)), level)
    yield Section("Compute", list(_compute(run)), level)
    yield Section("Data", list(_data(run)), level)
    yield Section("Reproduce", list(_reproduce(run)), level)


def _comparison(runs: Sequence[RunContext]) -> Section:
    scored = [(run, evaluation) for run in runs for evaluation in run.evaluations if evaluation.scores.get("rows")]
    rows = {
        f"{run.path}/{evaluation.split}": mapping(mapping(evaluation.scores["rows"]).get("model"))
        for run, evaluation in scored
    }
    keys = results.columns(rows)
    scores = [results.NAMES.get(key, key) for key in keys]
    header = ["run", *results.RIGHTS_HEADER, "base model", "data", "split", "n", *scores, *results.LICENSE_HEADER]
    body = []
    for run in runs:
        for evaluation in run.evaluations or [Evaluation("-", {}, [])]:
            values = rows.get(f"{run.path}/{evaluation.split}", {})
            about = [run.model_id or "-", ", ".join(part.title for part in run.data) or "-", evaluation.split]
            size = text(evaluation.scores.get("n")) or "-"
            cells = [results.shown(values, key) for key in keys]
            rights, licenses = results.rights_cells(run, "model"), results.license_cells(run, "model")
            body.append([run.name, *rights, *about, size, *cells, *licenses])
    if not scored:
        return Section("Comparison", [Text("None of these runs is evaluated yet: run medvlm eval RUN.")])
    blocks: list[Block] = [Caution(line) for line in _incomparable(scored)]
    caption = "The tuned models, with what their licenses allow"
    blocks.append(Table(header, body, caption, frozenset(range(6, 7 + len(keys))), frozenset({1, 2})))
    return Section("Comparison", blocks)


def _incomparable(scored: Sequence[tuple[RunContext, Evaluation]]) -> Iterator[str]:
    hashes = {text(evaluation.scores.get("split_hash")) for _, evaluation in scored}
    if len(hashes) > 1:
        yield "These scores are not all on the same samples (split hashes differ), so they do not compare directly."
    signatures = {tuple(sorted(map(str, mapping(e.scores.get("signatures")).items()))) for _, e in scored}
    if len(signatures) > 1:
        yield "These scores were not all computed the same way (signatures differ), so they do not compare directly."


def _licenses(run: RunContext) -> Iterator[Block]:
    verdict = run.verdict()
    yield Facts(
        [
            ("commercial use", verdict.commercial_use),
            ("may be shared", verdict.may_share),
            ("license to carry", verdict.license),
        ]
    )
    rights = [*_base_row(run)]
    for part in run.data:
        rights += [[f"data: {part.title}", license, f"{count:,}"] for license, count in part.licenses.items()]
    yield Table(("input", "license", "samples"), rights, "What went in", numeric=frozenset({2}))
    if verdict.reasons:
        yield Table(("why",), [[reason] for reason in verdict.reasons], "What limits it")
    if verdict.obligations:
        yield Table(("what follows",), [[line] for line in verdict.obligations], "Obligations when it is passed on")
    yield Text(verdict.notice)


def _base_row(run: RunContext) -> Iterator[list[str]]:
    for name, entry in (run.parts or {"": None}).items():
        if entry is None:
            yield [f"base model: {name or 'not recorded'}", "not in the license registry", "-"]
            continue
        yield [f"code: {entry.name}", entry.marked("code_license"), "-"]
        yield [f"weights: {entry.name}", entry.marked("weights_license"), "-"]
        yield [f"pre-training data: {entry.name}", entry.marked("data_license"), "-"]


def _baselines() -> Section:
    header = (
        "system",
        "code",
        "weights",
        "data",
        "commercial use",
        "may share",
        "gated",
        "conflict",
        "published scores",
    )
    body = [
        [
            entry.name,
            short(entry.marked("code_license")),
            short(entry.marked("weights_license")),
            short(entry.marked("data_license")),
            entry.commercial_use,
            entry.may_share,
            entry.gated,
            entry.conflict or "",
            entry.scores or "",
        ]
        for entry in registry.load()
    ]
    words = (
        "Published systems and their licenses. Their scores are on other splits and by other scorers: they do not "
        "compare with the tables above. The command medvlm licenses show NAME gives the evidence for each row. A "
        "question mark stands behind what has not been checked against its source."
    )
    return Section("Baselines", [Text(words), Table(header, body, "License registry", rights=frozenset({4, 5}))])


def _cases(run: RunContext, evaluation: Evaluation) -> Iterator[Block]:
    if not evaluation.predictions:
        yield Text("No predictions were kept.")
        return
    found = gallery.cases(evaluation, run.data)
    yield Text(
        f"The best, median and worst of {len(evaluation.predictions):,} predictions on the {evaluation.split} split, "
        "by the CIDEr of each."
    )
    if not any(case.image for case in found):
        gone = ", ".join(part.path for part in run.data if part.folder is None) or "the data set"
        yield Caution(f"No images: they lie in {gone}, which is not there any more or holds other rows.")
    yield Cases(found)


def _training(run: RunContext) -> Iterator[Block]:
    drawn = False
    names = side_by_side.data_sets(run)
    # A part by data set repeats the whole where there is only one.
    parts = [(f"training, {name}", f"losses/{name}") for name in names] if len(names) > 1 else []
    for title, y_label, lines in (
        ("Loss by step", "loss", [("training", "loss"), ("validation", "eval_loss")]),
        ("Loss by data set", "loss", parts),
        ("Learning rate by step", "learning rate", [("learning rate", "learning_rate")]),
    ):
        series = [plots.Series(label, side_by_side.points(run, key)) for label, key in lines]
        svg = plots.line_chart(title, series, "step", y_label)
        if svg:
            drawn = True
            yield Chart(svg, f"{title}: {side_by_side.in_words(series)}")
    if not drawn:
        yield Text("No training curve was recorded.")
    yield from _validation(run, names)
    census = [
        [name, *(f"{counts(part).get(key, 0):,}" for key in ("total", "trainable", "quantized"))]
        for name, part in mapping(run.facts.get("census")).items()
    ]
    if census:
        header = ("component", "parameters", "trained", "4-bit")
        yield Table(header, census, "Parameters", numeric=frozenset({1, 2, 3}))
    model = mapping(run.facts.get("model"))
    if model:
        yield Facts([(key.replace("_", " "), words(value)) for key, value in model.items() if value is not None])


_MOST_VALIDATIONS = 20


def _validation(run: RunContext, names: Sequence[str]) -> Iterator[Block]:
    """Yield the validation loss against what was spent up to there, which a scaling law is fitted to."""
    validated = [row for row in run.steps if number(row.get("eval_loss")) is not None]
    # One at the end of an epoch that is also due by its step is one.
    rows = list({text(row.get("step")): row for row in validated}.values())
    keys = [key for key in ("samples", "tokens", "flops") if any(number(row.get(key)) is not None for row in rows)]
    if not rows:
        return
    by_set = names if len(names) > 1 else []
    shown = rows[:: -(-len(rows) // _MOST_VALIDATIONS)]
    shown += [] if shown[-1] is rows[-1] else [rows[-1]]
    body = []
    for row in shown:
        values = [number(row.get(key)) for key in ("step", *keys)]
        losses = [number(row.get("eval_loss")), *(number(mapping(row.get("losses")).get(name)) for name in by_set)]
        cells = ["-" if value is None else f"{value:,.0f}" if value < 1e12 else f"{value:.4g}" for value in values]
        body.append([*cells, *("-" if value is None else f"{value:.4f}" for value in losses)])
    header = ("step", *keys, "validation loss", *(f"on {name}" for name in by_set))
    yield Table(header, body, "Validation loss and what was spent", numeric=frozenset(range(1, len(header))))


def _compute(run: RunContext) -> Iterator[Block]:
    if not run.compute:
        yield Text("Nothing was recorded.")
        return
    yield Facts(cost.facts(run))


def _data(run: RunContext) -> Iterator[Block]:
    if not run.data:
        yield Text("Nothing was recorded.")
    for part in run.data:
        yield Facts(_data_facts(part))
        yield from _manifest_tables(part)


_STATES = {"there": "", "gone": " (not there any more)", "changed": " (has changed since)"}


def _data_facts(part: DataSet) -> list[tuple[str, str]]:
    rows = part.facts.get("rows")
    trained = counts(rows).get("train") if isinstance(rows, dict) else number(rows)
    facts = [
        ("data set", part.title),
        ("path", part.path + _STATES[part.state]),
        ("synthetic", "yes: drawn by a program" if part.synthetic else "no"),
        ("command", text(part.manifest.get("command"))),
        ("training rows", f"{trained:,.0f}" if trained is not None else ""),
        ("weight", text(part.facts.get("weight"))),
        ("fingerprint", text(part.facts.get("fingerprint"))),
    ]
    for key in ("description", "homepage", "citation", "known_problems"):
        value = part.card.get(key)
        facts.append((key.replace("_", " "), "; ".join(texts(value)) if isinstance(value, list) else text(value)))
    return [(label, value) for label, value in facts if value]


def _manifest_tables(part: DataSet) -> Iterator[Table]:
    counted = mapping(part.manifest.get("counts"))
    tables = {
        "samples by split": counted.get("split"),
        "groups (articles, patients or images) by split": counted.get("groups_by_split"),
        "samples by license": counted.get("license") or part.licenses,
        "samples by modality": counted.get("modality"),
        "dropped, by reason": part.manifest.get("drops"),
    }
    for caption, value in tables.items():
        found = counts(value)
        if found:
            body = [[name, f"{count:,}"] for name, count in found.items()]
            yield Table((caption, "count"), body, numeric=frozenset({1}))


def _prepare_command(part: DataSet) -> str:
    """Return the command that makes a data set where the run looked for it; a manifest does not say where it lies."""
    command = text(part.manifest.get("command"))
    return f"{command} --out {shlex.quote(part.path)}" if command else ""


def _without_resume(command: str) -> str:
    """Return a command that begins a run anew."""
    return re.sub(r"\s--resume(?=\s|$)", "", command)


def _reproduce(run: RunContext) -> Iterator[Block]:
    commands = [_prepare_command(part) for part in run.data]
    commands.append(_without_resume(text(run.facts.get("command"))))
    folder = shlex.quote(str(run.path))
    for evaluation in run.evaluations:
        names = ",".join(mapping(evaluation.scores.get("signatures"))) or "bleu,rouge,cider"
        commands.append(f"medvlm eval {folder} --split {shlex.quote(evaluation.split)} --metrics {shlex.quote(names)}")
    commands.append(f"medvlm report {folder}")
    yield Code("\n".join(line for line in commands if line), "sh")
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
