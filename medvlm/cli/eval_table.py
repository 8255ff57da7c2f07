"""Scores as `medvlm eval` prints them: a table that fits 100 columns, then sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medvlm.cli.common import say
from medvlm.evaluate.cautions import by_text_alone, judged, leaked_in_words
from medvlm.evaluate.compare import verdict

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 100

LABELS = {"base": "the untuned base", "constant": "the constant answer"}

NAMES = {
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "accuracy": "accuracy",
    "closed_accuracy": "closed accuracy",
    "open_accuracy": "open accuracy",
    "open_recall": "open recall",
    "choice_accuracy": "choice accuracy",
    "findings_micro_f1": "findings F1",
    "finding_accuracy": "finding acc.",
    "radgraph_partial": "RadGraph F1",
    "chexbert_micro_f1": "CheXbert F1",
    "bertscore_f1": "BERTScore F1",
    "i2t_r1": "R@1 image to text",
    "i2t_r5": "R@5 image to text",
    "i2t_r10": "R@10 image to text",
    "t2i_r1": "R@1 text to image",
    "t2i_r5": "R@5 text to image",
    "t2i_r10": "R@10 text to image",
}

_MAIN = (
    "cider", "accuracy", "choice_accuracy", "radgraph_partial", "chexbert_micro_f1", "bertscore_f1",
    "findings_micro_f1", "bleu_4", "rouge_l", "finding_accuracy",
)  # fmt: skip
_QUESTIONS = ("accuracy", "closed_accuracy", "open_accuracy", "choice_accuracy", "open_recall")
_COLUMNS = 4
_NAME = 16
"""So much of a system's name stands in one line at least, where it is as long."""
_WORST = 3
_LEFT = {"cider": ("task", "answer_type", "question_type"), "accuracy": ("task", "finding")}
"""Columns that do not say what is hard in a metric: another kind of text, which has another scale."""


def print_scores(scores: Mapping[str, Any], title: str, model: str, all_columns: bool) -> None:
    """Print one table of scores.json and what it means; `model` is what the first row is called."""
    rows, intervals = scores["rows"], scores["intervals"]
    groups = f" in {scores['groups']} groups" if scores["groups"] < scores["n"] else ""
    title = f"{title}: n = {scores['n']}{groups}" + ("" if scores["bootstrap"] is None else ", 95 % intervals")
    shown = list(rows["model"]) if all_columns else columns(rows["model"], scores["tasks"])
    _print(title, {{"model": model}.get(name, name): rows[name] for name in rows}, list(intervals.values()), shown)
    lines = (*_tasks(scores), *_retrieval(scores, model), *_differences(scores), *_texts(scores, model))
    for line in (*lines, *_pictures(scores)):
        say(line)
    for line in (*_slices(scores), *_leakage(scores)):
        say(line)
    for metric, signature in scores["signatures"].items():
        say(f"{metric}: {signature}")
    if scores.get("retrieval"):
        say(f"retrieval: {scores['retrieval']['signature']}")


def print_comparison(found: Mapping[str, Any], all_columns: bool) -> None:
    """Print several systems side by side, and each two's difference in words."""
    rows, tested = found["rows"], len(found["pairs"])
    groups = f" in {found['groups']} groups" if found["groups"] < found["n"] else ""
    first = rows[found["runs"][0]]
    main = columns(first, found["tasks"])
    title = f"compared on n = {found['n']}{groups}"
    _print(title, rows, list(found["intervals"].values()), list(first) if all_columns else main)
    for name, count in found["left_out"].items():
        if count:
            say(f"{name}: {count} of its samples were not answered by all and are left out here")
    for line in _tasks(found):
        say(line)
    # Of several tasks each by itself: the scores of all together may say the opposite.
    parts = [(f"{task}: ", part, columns(_first(part), [task])) for task, part in found["by_task"].items()]
    for head, part, keys in parts or [("", found, main)]:
        for pair in part["pairs"]:
            for key in keys:
                if key in pair["keys"]:
                    say(head + in_words(pair["a"], pair["b"], key, pair["keys"][key]))
    say(
        f"p: paired approximate randomization, {found['trials']} trials"
        + (f", corrected for {tested} pairs (Holm)" if tested > 1 else "")
    )


def _first(part: Mapping[str, Any]) -> Mapping[str, float]:
    return next(iter(part["rows"].values()))


def in_words(a: str, b: str, key: str, cell: Mapping[str, float]) -> str:
    """Return what the difference of two systems in one metric says, as a sentence."""
    numbers = f"{_difference(cell)}, p = {p_value(cell['p_holm'])}"
    if (found := verdict(cell)) == "unclear":
        return f"{a} and {b} do not clearly differ in {name_of(key)}: {numbers}"
    return f"{a} is {found} than {b} in {name_of(key)}: {numbers}"


def name_of(key: str) -> str:
    """Return what a metric is called in print."""
    return NAMES.get(key, key.replace("_", " "))


def columns(values: Mapping[str, float], tasks: Sequence[str]) -> list[str]:
    """Return the few metrics that a calm table shows, of those there are."""
    wanted = _QUESTIONS if list(tasks) == ["vqa"] else _MAIN
    return [key for key in wanted if key in values][:_COLUMNS] or list(values)[:_COLUMNS]


def cell(value: float | None, interval: Sequence[float] | None) -> str:
    """Return a score with its interval, as in `0.412 [.38, .44]`."""
    if value is None:
        return "-"
    if interval is None:
        return f"{value:.4f}"
    low, high = interval
    # Two digits must neither hide how narrow an interval is nor leave the score beside it.
    digits = 2 if high - low >= 0.02 and round(low, 2) <= round(value, 3) <= round(high, 2) else 3
    return f"{value:.3f} [{_bare(low, digits)}, {_bare(high, digits)}]"


def p_value(p: float) -> str:
    """Return a p-value as papers print it, as in `.003`; never 0."""
    return f"{p:.1g}".removeprefix("0") if p < 0.001 else _bare(p, 3)


def _bare(value: float, digits: int, sign: str = "") -> str:
    """Return a number without a zero before the point."""
    text = f"{value:{sign}.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else text


def _difference(found: Mapping[str, float]) -> str:
    text = _bare(found["difference"], 3, "+")
    return f"{text} [{_bare(found['low'], 3, '+')}, {_bare(found['high'], 3, '+')}]" if "low" in found else text


def _print(
    title: str,
    rows: Mapping[str, Mapping[str, float]],
    intervals: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
) -> None:
    """Print systems by metrics; with many metrics, each as a row of its own."""
    import sys

    from rich.console import Console
    from rich.markup import escape

    say(title)
    # A table in a log must not be cut; on a screen, longer lines than its own would be broken anywhere.
    console = Console() if sys.stdout.isatty() else Console(width=max(Console().width, WIDTH))
    cells = {
        escape(name): [cell(values.get(key), own.get(key)) for key in keys]
        for (name, values), own in zip(rows.items(), intervals, strict=True)
    }
    wide = _a_system_a_row(keys, cells)
    needed = console.measure(wide, options=console.options.update(width=10_000)).minimum
    fits = len(keys) <= _COLUMNS and needed <= console.width
    console.print(wide if fits else _a_metric_a_row(keys, cells))


def _a_system_a_row(keys: Sequence[str], cells: Mapping[str, Sequence[str]]) -> Table:
    from rich.table import Table

    shown = Table()
    shown.add_column("", overflow="fold", min_width=min(_NAME, max(map(len, cells))))
    for place, key in enumerate(keys):
        width = max(len(name_of(key)), *(len(line[place]) for line in cells.values()))
        shown.add_column(name_of(key), justify="right", min_width=width)
    for name, line in cells.items():
        shown.add_row(name, *line)
    return shown


def _a_metric_a_row(keys: Sequence[str], cells: Mapping[str, Sequence[str]]) -> Table:
    from rich.table import Table

    shown = Table()
    shown.add_column("metric", overflow="fold")
    for name in cells:
        shown.add_column(name, justify="right", overflow="fold")
    for key, *line in zip(keys, *cells.values(), strict=True):
        shown.add_row(key, *line)
    return shown


def _tasks(scores: Mapping[str, Any]) -> Iterator[str]:
    for task, part in scores["by_task"].items():
        key = "accuracy" if task == "vqa" else "cider"
        if any(key in values for values in part["rows"].values()):
            each = ", ".join(f"{name} {v[key]:.3f}" for name, v in part["rows"].items() if key in v)
            own = ", with document frequencies of its own" if key == "cider" else ""
            yield f"{task} alone (n = {part['n']}{own}): {name_of(key)} {each}"


def _retrieval(scores: Mapping[str, Any], model: str) -> Iterator[str]:
    told: Mapping[str, Any] = scores.get("retrieval") or {}
    for direction, kind in (("i2t", "texts"), ("t2i", "pictures")) if told else ():
        keys = [f"{direction}_r{at}" for at in (1, 5, 10)]
        parts = []
        for row, medians in told["median_rank"].items():
            if row == "constant":
                continue
            recalls = ", ".join(cell(scores["rows"][row][key], scores["intervals"][row].get(key)) for key in keys)
            rank, *interval = (f"{one:.4g}" for one in medians[direction])
            drawn = f" [{', '.join(interval)}]" if interval else ""
            parts.append(f"{ {'model': model}.get(row, LABELS.get(row, row)) } {recalls}, median rank {rank}{drawn}")
        chance = ", ".join(f"{told['chance'][key]:.3f}" for key in keys)
        sizes = ", ".join(f"{task} {one[kind]}" for task, one in told["candidates"].items())
        name = "image to text" if direction == "i2t" else "text to image"
        yield f"{name}, recall at 1, 5, 10: {'; '.join(parts)}; at chance {chance} (among {kind}: {sizes})"


def _differences(scores: Mapping[str, Any]) -> Iterator[str]:
    for row, cells in scores["comparisons"].items():
        for key in judged(scores):
            if key in cells:
                numbers = f"{_difference(cells[key])}, p = {p_value(cells[key]['p_holm'])}"
                yield f"model minus {LABELS.get(row, row)}: {name_of(key)} {numbers}"


def _texts(scores: Mapping[str, Any], model: str) -> Iterator[str]:
    own, references = scores["outputs"]["model"], scores["references"]
    yield (
        f"{model}: {own['distinct']} distinct {'answer' if own['distinct'] == 1 else 'answers'} to {own['n']} "
        f"{'sample' if own['n'] == 1 else 'samples'}, {own['mean_words']:.1f} words on average "
        f"(references {references['mean_words']:.1f})"
    )


def _pictures(scores: Mapping[str, Any]) -> Iterator[str]:
    controls = scores.get("controls")
    if not controls:
        return
    changed = controls["image_sensitivity"]
    yield (
        f"controls on {controls['n']} of {controls['of']} samples: a blank picture changes {changed['blank']:.0%} of "
        f"the answers, another sample's {changed['shuffled']:.0%}"
    )
    for key in judged(scores):
        values = {name: row.get(key) for name, row in controls["rows"].items()}
        if all(value is not None for value in values.values()):
            share = controls["kept_without_image"].get(key)
            keeps = "" if share is None else f" (keeps {share:.0%})"
            yield (
                f"{name_of(key)} with the right picture {values['model']:.3f}, blank {values['blank']:.3f}{keeps}, "
                f"another sample's {values['shuffled']:.3f}; visual reliance "
                f"{_difference(controls['visual_reliance'][key])}"
            )


def _slices(scores: Mapping[str, Any]) -> Iterator[str]:
    for key in judged(scores):
        found: dict[tuple[int, float], Mapping[str, Any]] = {}
        for part in scores["slices"]:
            if part["column"] not in _LEFT.get(key, ()) and key in part["rows"]["model"]:
                # "finding none" and "normal" are the same samples.
                found.setdefault((part["n"], part["rows"]["model"][key][0]), part)
        worst = sorted(found.values(), key=lambda part: part["rows"]["model"][key][0])[:_WORST]
        if len(found) > 1:
            yield f"lowest of {len(found)} slices in {name_of(key)}: " + ", ".join(
                f"{part['column'].replace('_', ' ')} {part['value']} {part['rows']['model'][key][0]:.3f} "
                f"(n = {part['n']})"
                for part in worst
            )


def _leakage(scores: Mapping[str, Any]) -> Iterator[str]:
    found = scores.get("leakage")
    if found and not found["leaked"]:
        if found["train_rows"]:
            yield f"none of {found['n']} samples was found in the training data"
    elif found and by_text_alone(found):
        yield f"{leaked_in_words(found)}; like cases are often described in like words"
    if "with_leaked" in scores:
        before = scores["with_leaked"]
        for key in judged(scores):
            now = scores["rows"]["model"].get(key)
            if now is not None and key in before["rows"]["model"]:
                yield (
                    f"without leaked samples (n = {scores['n']}): {name_of(key)} {now:.3f}; with them "
                    f"(n = {before['n']}): {before['rows']['model'][key]:.3f}"
                )
