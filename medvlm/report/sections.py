"""What the card of a model on the Hub takes from a report: scores with intervals, controls, leakage, signatures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from medvlm.report import by_slice, honesty, markdown, results
from medvlm.report.context import Evaluation, RunContext
from medvlm.report.document import Block, Caution, Chart, Document, Facts, Section, Text
from medvlm.report.overview import questions
from medvlm.report.scored import name

NOT_EVALUATED = "Not evaluated."


def scores(run: RunContext, level: int = 3) -> str:
    """Return Markdown on the scores of every evaluated split, beside what keeps them honest.

    Args:
        run: the run.
        level: of the headings, one for each split.
    """
    scored = [evaluation for evaluation in run.evaluations if evaluation.scored.rows]
    if not scored:
        return NOT_EVALUATED
    return as_markdown([Section(f"Split {one.split}", list(_score_blocks(one)), level) for one in scored])


def in_short(run: RunContext) -> str:
    """Return Markdown with the first questions on a model, and their answers."""
    rows = [(about, answer) for about, answer in questions(run) if about not in ("commercial use", "may be shared")]
    return as_markdown([Section("", [Facts(rows)])]) if rows else ""


def _score_blocks(evaluation: Evaluation) -> Iterator[Block]:
    scored = evaluation.scored
    yield Text(results.what(evaluation))
    yield from map(Caution, results.warnings(scored))
    yield results.every_score(scored)
    yield from _without_charts(results.difference_blocks(scored))
    yield from _without_charts(honesty.control_blocks(scored))
    yield from _without_charts(by_slice.slice_blocks(scored) if scored.slices else ())
    yield from honesty.leakage_blocks(scored)
    yield from results.signature_blocks(scored)


def _without_charts(blocks: Any) -> Iterator[Block]:
    """Yield all but the charts: their words repeat a table."""
    return (block for block in blocks if not isinstance(block, Chart))


def as_markdown(sections: Sequence[Section]) -> str:
    """Return sections as Markdown, without a title over them; a section without a title is its blocks alone."""
    rendered = markdown.render(Document("", [], [], list(sections)))
    lines = (line for line in rendered.split("\n")[1:] if line.strip("# ") or not line.startswith("#"))
    return "\n".join(lines).strip()


def eval_results(run: RunContext, dataset: str = "") -> list[Any]:
    """Return the scores as huggingface_hub's EvalResult, for the `model-index` of a model's card.

    Args:
        run: the run.
        dataset: id of the data set on the Hub; a word made of its title where it is not there.
    """
    from huggingface_hub import EvalResult

    title = ", ".join(part.title for part in run.data) or "unrecorded data"
    kind = dataset or "-".join("".join(letter if letter.isalnum() else " " for letter in title.lower()).split())
    return [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=kind or "unrecorded",
            dataset_name=title,
            dataset_split=evaluation.split,
            metric_type=key,
            metric_name=name(key),
            metric_value=round(value, 6),
        )
        for evaluation in run.evaluations
        for key, value in evaluation.scored.rows.get("model", {}).items()
    ]
