"""From run contexts to one document: the order of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from medvlm.report import (
    about_data,
    by_slice,
    cost,
    gallery,
    honesty,
    licensing,
    overview,
    pairs,
    reproduce,
    results,
    side_by_side,
    training,
)
from medvlm.report.context import Evaluation, RunContext
from medvlm.report.document import Block, Case, Cases, Caution, Document, Facts, Section, Table, Text
from medvlm.report.scored import columns, name
from medvlm.report.values import mapping, text

NOT_CLINICAL = "Not for clinical use: research output, not checked by a physician, no medical device."
SYNTHETIC = (
    "Synthetic data: the images were drawn by a program and show no patient; the scores say nothing about real images."
)
CASES = 4
"""So many best, median and worst cases are shown."""

Look = Callable[[RunContext, Evaluation, Sequence[Case]], list[Case]]
"""Gives cases of a run's evaluation the maps of where the model looks (see `gallery.look`)."""


def build(
    runs: Sequence[RunContext],
    each: int = CASES,
    comparisons: pairs.Comparisons | None = None,
    look: Look | None = None,
) -> Document:
    """Return the report on one run, or a comparison of several with a part for each.

    Args:
        runs: at least one.
        each: how many best, median and worst cases are shown of each evaluation.
        comparisons: of `pairs.compared`, where they are known already.
        look: where maps are asked for.
    """
    if len(runs) == 1:
        run = runs[0]
        sections = [
            Section("In short", list(overview.in_short(run))),
            *_sections(run, 2, each, look),
            licensing.published(),
        ]
        group = side_by_side.note_of_group(run)
        lead = [overview.summary(run), *([group] if group else []), *_cautions(run)]
        return Document(run.name, lead, _labels(run), sections)
    runs = side_by_side.order(runs)
    comparisons = pairs.compared(runs) if comparisons is None else comparisons
    sections = [side_by_side.section(runs), _comparison(runs), pairs.section(comparisons)]
    for run in runs:
        lines = [overview.summary(run), *_cautions(run)]
        blocks: list[Block] = [*map(Text, lines), *overview.in_short(run)]
        sections.append(Section(run.name, blocks))
        sections.extend(_sections(run, 3, each, look))
    sections.append(licensing.published())
    labels = list(dict.fromkeys(label for run in runs for label in _labels(run) if label != "finished"))
    lead = [NOT_CLINICAL, *([SYNTHETIC] if all(run.synthetic for run in runs) else [])]
    return Document(side_by_side.title(runs), lead, labels, sections)


def _labels(run: RunContext) -> list[str]:
    status = text(run.facts.get("status")) or "status unknown"
    return [status, *(["baseline"] if run.baseline else []), *(["synthetic data"] if run.synthetic else [])]


def _cautions(run: RunContext) -> list[str]:
    return [NOT_CLINICAL, *([SYNTHETIC] if run.synthetic else [])]


def _sections(run: RunContext, level: int, each: int, look: Look | None) -> Iterator[Section]:
    if run.problems:
        lines = "; ".join(run.problems)
        yield Section("Incomplete", [Caution(f"Parts of this run are missing or damaged: {lines}.")], level)
    for evaluation in run.evaluations:
        yield from _evaluation(run, evaluation, level)
    if not run.evaluations:
        yield Section("Scores", [Text(f"Not evaluated yet: run medvlm eval {run.path}")], level)
    yield Section("Licenses", list(licensing.license_blocks(run)), level)
    if run.evaluations:
        yield Section("Cases", list(_cases(run, run.evaluations[0], each, look)), level)
    yield Section("Training", list(training.training_blocks(run)), level)
    yield Section("Compute", list(_compute(run)), level)
    yield Section("Data", list(about_data.data_blocks(run)), level)
    yield Section("Reproduce", list(reproduce.reproduce_blocks(run)), level)


def _evaluation(run: RunContext, evaluation: Evaluation, level: int) -> Iterator[Section]:
    scored, split = evaluation.scored, evaluation.split
    yield Section(f"Scores: {split}", list(results.score_blocks(run, evaluation)), level)
    if not scored.rows:
        return
    yield Section(f"Does it look at the image: {split}", list(honesty.control_blocks(scored)), level)
    if scored.slices or scored.left_out:
        yield Section(f"Slices: {split}", list(by_slice.slice_blocks(scored)), level)
    yield Section(f"Leakage: {split}", list(honesty.leakage_blocks(scored)), level)


def _comparison(runs: Sequence[RunContext]) -> Section:
    """Return the table of all runs with what their licenses allow, published systems' columns beside their scores."""
    scored = [(run, evaluation) for run in runs for evaluation in run.evaluations if evaluation.scored.rows]
    if not scored:
        return Section("Comparison", [Text("None of these runs is evaluated yet: run medvlm eval RUN.")])
    known = columns({str(place): one.scored.rows.get("model", {}) for place, (_, one) in enumerate(scored)})
    keys = [key for key in known if any(key in one.scored.main for _, one in scored)]
    header = ["run", *results.RIGHTS_HEADER, "base model", "data", "split", "n", *map(name, keys)]
    body = []
    for run in runs:
        for evaluation in run.evaluations or [Evaluation("-", {}, [])]:
            earlier = (text(part.get("title")) or text(part.get("path")) for part in run.earlier_data)
            data = ", ".join(dict.fromkeys([*(part.title for part in run.data), *earlier])) or "-"
            about = [run.model_id or "-", data, evaluation.split]
            size = text(evaluation.scores.get("n")) or "-"
            cells = [str(evaluation.scored.value("model", key)) for key in keys]
            rights, licenses = results.rights_cells(run, "model"), results.license_cells(run, "model")
            body.append([run.name, *rights, *about, size, *cells, *licenses])
    blocks: list[Block] = [Caution(line) for line in _incomparable(scored)]
    missing = [run.path for run in runs if not any(one.scored.rows for one in run.evaluations)]
    blocks += [Text(f"Not scored yet: run medvlm eval {path}") for path in missing]
    caption = "The models, with what their licenses allow"
    numeric = frozenset(range(6, 7 + len(keys)))
    blocks.append(Table([*header, *results.LICENSE_HEADER], body, caption, numeric, frozenset({1, 2}), sortable=True))
    return Section("Comparison", blocks)


def _incomparable(scored: Sequence[tuple[RunContext, Evaluation]]) -> Iterator[str]:
    hashes = {text(evaluation.scores.get("split_hash")) for _, evaluation in scored}
    if len(hashes) > 1:
        yield "These scores are not all on the same samples (split hashes differ), so they do not compare directly."
    signatures = {tuple(sorted(map(str, mapping(e.scores.get("signatures")).items()))) for _, e in scored}
    if len(signatures) > 1:
        yield "These scores were not all computed the same way (signatures differ), so they do not compare directly."


def _cases(run: RunContext, evaluation: Evaluation, each: int, look: Look | None) -> Iterator[Block]:
    if not evaluation.predictions:
        yield Text("No predictions were kept.")
        return
    found = gallery.cases(evaluation, run.data, each)
    if look is not None:
        found = look(run, evaluation, found)
    yield Text(
        f"Of {len(evaluation.predictions):,} predictions on the {evaluation.split} split: first what contradicts its "
        "reference (a finding denied or asserted, left for right), by rules that can err; then the best, median and "
        "worst by the score that each names."
    )
    if not any(case.image for case in found):
        gone = ", ".join(part.path for part in run.data if part.folder is None) or "the data set"
        yield Caution(f"No images: they lie in {gone}, which is not there any more or holds other rows.")
    if any(case.maps_said for case in found):
        yield Text(gallery.MAPS)
    yield Cases(found)


def _compute(run: RunContext) -> Iterator[Block]:
    if not run.compute:
        yield Text("Nothing was trained, so nothing was spent on it." if run.baseline else "Nothing was recorded.")
        return
    yield Facts(cost.facts(run))
