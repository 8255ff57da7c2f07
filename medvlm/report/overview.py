"""What a radiologist reads first: what it is, how well it does, whether it looks at images, what is allowed."""

from __future__ import annotations

from collections.abc import Iterator

from medvlm.report.context import Evaluation, RunContext
from medvlm.report.document import Block, Caution, Facts, Text
from medvlm.report.honesty import leaked_in_words, percent
from medvlm.report.results import warnings
from medvlm.report.scored import Difference, Scored, name, p_value
from medvlm.report.values import text

_MOST_SCORES = 4


def in_short(run: RunContext) -> Iterator[Block]:
    """Yield the answers to a reader's first questions, then every warning of every evaluation."""
    yield Facts(questions(run))
    for evaluation in run.evaluations:
        split = f"{evaluation.split}: " if len(run.evaluations) > 1 else ""
        for line in warnings(evaluation.scored):
            yield Caution(f"{split}{line}")
    if not run.evaluations:
        yield Text(f"Not evaluated yet: run medvlm eval {run.path}")


def questions(run: RunContext) -> list[tuple[str, str]]:
    """Return what a reader asks first, with the answers; those on scores are of the first evaluated split."""
    rows = []
    evaluation = next((one for one in run.evaluations if one.scored.rows), None)
    if evaluation is not None:
        rows += [
            ("how well it does", how_well(evaluation)),
            ("better than one fixed answer", against(evaluation.scored, "constant")),
            ("looks at the image", looks(evaluation.scored)),
            ("test samples seen in training", seen(evaluation.scored)),
        ]
    verdict = run.verdict()
    return [
        *rows,
        ("commercial use", _right(verdict.commercial_use, [*verdict.forbids, *verdict.reasons])),
        ("may be shared", _right(verdict.may_share, [f"license to carry: {verdict.license}"])),
    ]


def summary(run: RunContext) -> str:
    """Return in one sentence what the run is and what it was scored on."""
    base = run.model_id or "an unrecorded base model"
    scored = [f"{text(e.scores.get('n'))} of {e.split}" for e in run.evaluations if e.scores.get("n") is not None]
    measured = f"; scored on {', '.join(scored)}" if scored else "; not scored yet"
    if run.baseline:
        return f"{base} as it was published, with no training here{measured}."
    data = ", ".join(part.title for part in run.data) or "unrecorded data"
    rows = sum(run.licenses.values())
    trained = f", {rows:,} training samples" if rows else ""
    return f"{base} fine-tuned on {data}{trained}{measured}."


def how_well(evaluation: Evaluation) -> str:
    """Return the main scores with their intervals, of several tasks each by itself."""
    scored = evaluation.scored
    told = [f"{task}: {_main_scores(part, 2)}" for task, part in scored.tasks.items() if _main_scores(part, 2)]
    main = "; ".join(told) or _main_scores(scored, _MOST_SCORES)
    if not main:
        return "The model itself was not scored."
    groups = "" if scored.groups is None else f" from {scored.groups:,} patients, articles or images"
    size = "" if scored.n is None else f" On {scored.n:,} samples of the {evaluation.split} split{groups}."
    brackets = f" In brackets: {scored.confidence} intervals." if "[" in main else ""
    return f"{main}.{size}{brackets}"


def _main_scores(scored: Scored, most: int) -> str:
    keys = [scored.headline, *(key for key in scored.main if key != scored.headline)]
    values = ((key, scored.value("model", key)) for key in keys if key)
    return ", ".join([f"{name(key)} {value}" for key, value in values if value.value is not None][:most])


def against(scored: Scored, row: str) -> str:
    """Return whether the model beats another row in the metric that leads; of several tasks in each by itself.

    Scores over all tasks may hide that it loses in one.
    """
    if not scored.tasks:
        return _against(scored, row)
    parts = ((task, _against(part, row)) for task, part in scored.tasks.items())
    return "; ".join(f"in {task}, {said[:1].lower()}{said[1:]}".removesuffix(".") for task, said in parts) + "."


def _against(scored: Scored, row: str) -> str:
    key = scored.headline
    mine, other = scored.rows.get("model", {}).get(key), scored.rows.get(row, {}).get(key)
    found = scored.difference(row, key) or next((one for one in scored.differences if one.row == row), None)
    if found is not None and found.verdict:
        return _in_words(found)
    if mine is None or other is None:
        return "Not measured."
    how = "Higher" if mine > other else "Not higher"
    return f"{how} in {name(key)}: {mine:.4f} against {other:.4f}; no interval was computed."


_ANSWERS = {"better": "Yes", "worse": "No, it is worse", "not clearly different": "Not shown"}


def _in_words(found: Difference) -> str:
    chance = "" if found.p is None else f", p = {p_value(found.p)}"
    chance += "" if found.p_holm is None else f" ({p_value(found.p_holm)} corrected)"
    return f"{_ANSWERS[found.verdict]}: the {name(found.key)} difference is {found.value.signed()}{chance}."


def looks(scored: Scored) -> str:
    """Return what the controls say of the image's part in the answers."""
    controls, key = scored.controls, scored.headline
    if not controls:
        blank = _against(scored, "blank")
        return f"Against itself on blank images: {blank}" if blank != "Not measured." else blank
    reliance = next((one for one in controls.reliance if one.key == key), next(iter(controls.reliance), None))
    parts = []
    if reliance is not None and reliance.verdict:
        parts.append(
            f"{_LOOKS[reliance.verdict]}: with its own picture instead of another sample's, the {name(reliance.key)} "
            f"changes by {reliance.value.signed()}"
        )
    changed = controls.sensitivity.get("blank")
    if changed is not None:
        parts.append(f"{percent(changed)} of its answers change when the picture is blank")
    kept = controls.kept.get(key)
    if kept is not None:
        parts.append(f"without any picture it keeps {percent(kept)} of its {name(key)}")
    return "; ".join(parts) + "." if parts else "Not measured."


_LOOKS = {"better": "Yes", "worse": "No, another picture does better", "not clearly different": "Not shown"}


def seen(scored: Scored) -> str:
    """Return how many of the test samples were found in the training data."""
    return leaked_in_words(scored) or "Not looked for."


def _right(verdict: str, reasons: list[str]) -> str:
    return f"{verdict}; {reasons[0]}" if reasons else verdict
