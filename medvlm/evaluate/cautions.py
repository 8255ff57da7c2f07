"""What a reader of scores must be told in words: a constant answer as good, pictures not looked at, leakage, few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medvlm.evaluate.compare import verdict

NAMES = {"cider": "CIDEr", "rouge_l": "ROUGE-L", "bleu_4": "BLEU-4"}
ROWS = {"constant": "the best constant answer", "base": "its untuned base"}

KEPT = 0.8
"""From this share of a score on, that blank pictures keep, it is said; the share that VQA-RAD's answers keep
(arXiv:2603.03437)."""

FEW, FEW_GROUPS = 100, 30
"""Fewer samples, or groups, than these are called few."""

LENGTHS = (0.5, 2.0)
"""Answers shorter or longer than the references by these factors are named."""

LEAKS = {
    "images_same": "the same image",
    "images_near": "nearly the same image",
    "texts_same": "the same text",
    "groups_shared": "the same article or patient",
}

_ALIKE = 0.1
"""Distinct answers by distinct references below which they are called alike."""


def judged(table: Mapping[str, Any]) -> list[str]:
    """Return the metrics that a model is judged by in words: CIDEr and accuracy, or else one other.

    Answers to questions alone are judged by accuracy alone: they are too short for CIDEr.
    """
    keys = list(table["rows"]["model"])
    if table["tasks"] == ["vqa"] and "accuracy" in keys:
        return ["accuracy"]
    return [key for key in ("cider", "accuracy") if key in keys] or [
        *(key for key in ("rouge_l", "bleu_4") if key in keys),
        *keys,
    ][:1]


def cautions(table: Mapping[str, Any], train_known: bool = True) -> list[str]:
    """Return one sentence for each thing that limits what the scores say.

    Args:
        table: the content of scores.json without its warnings.
        train_known: False for a model whose training data is not known.
    """
    found = [
        *_against_rows(table),
        *_vocabulary(table),
        *_texts(table),
        *_pictures(table),
        *_leakage(table, train_known),
        *_few(table),
    ]
    if table["bootstrap"] is None:
        found.append("no intervals were computed (--bootstrap 0), so how sure the scores are is not known")
    return found


def _against_rows(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the model does not beat; of several tasks each by itself, since one may hide another."""
    by_task = table.get("by_task") or {}
    for row, label in ROWS.items():
        for task, part in by_task.items():
            yield from _against(
                part["comparisons"].get(row, {}), judged({**part, "tasks": [task]}), label, f" of {task}"
            )
        if not by_task:
            yield from _against(table["comparisons"].get(row, {}), judged(table), label)


def _against(cells: Mapping[str, Any], keys: list[str], label: str, of: str = "") -> Iterator[str]:
    for key in keys:
        cell = cells.get(key)
        if cell is None or verdict(cell) == "better":
            continue
        words = "scores lower than" if verdict(cell) == "worse" else "does not clearly beat"
        yield f"the model {words} {label} in {NAMES.get(key, key)}{of}: {_difference(cell)}"


def _difference(cell: Mapping[str, float]) -> str:
    drawn = f" [{cell['low']:+.3f}, {cell['high']:+.3f}]" if "low" in cell else ""
    tested = f" (p = {cell['p_holm']:.2g})" if "p_holm" in cell else ""
    return f"difference {cell['difference']:+.3f}{drawn}{tested}"


def _vocabulary(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a classifier could get right at most."""
    if told := table.get("vocabulary"):
        yield (
            f"the model chooses from {told['answers']} answers of its training rows, and {told['known']} of "
            f"{_samples(told['n'])} have a reference among them: no more than {told['share']:.0%} can be right"
        )


def _texts(table: Mapping[str, Any]) -> Iterator[str]:
    own = table["outputs"]["model"]
    if own["empty"] == own["n"]:
        yield f"all {own['n']} answers of the model are empty"
        return
    if own["n"] > 1 and own["distinct"] == 1:
        yield f"all {own['n']} answers of the model are the same text"
    elif own["distinct"] < _ALIKE * table["references"].get("distinct", 0):
        yield (
            f"the model gave {own['distinct']} distinct answers to {own['n']} samples, whose references are "
            f"{table['references']['distinct']} distinct texts"
        )
    for name, listed in table["outputs"].items():
        if listed["empty"]:
            label = {"model": "the model", **ROWS}.get(name, name)
            are = (
                "is empty; it is scored as it is" if listed["empty"] == 1 else "are empty; they are scored as they are"
            )
            yield f"{listed['empty']} of {listed['n']} answers of {label} {are}"
    words, expected = own["mean_words"], table["references"]["mean_words"]
    if expected and not LENGTHS[0] <= words / expected <= LENGTHS[1]:
        much = "shorter" if words < expected else "longer"
        yield f"the model's answers are much {much} than the references: {words:.1f} words against {expected:.1f}"


def _pictures(table: Mapping[str, Any]) -> Iterator[str]:
    if "controls" not in table:
        return
    controls = table["controls"]
    if controls is None:
        yield (
            "blank and shuffled pictures were left out (--controls none), so these scores do not show that the model "
            "looks at the picture"
        )
        return
    of = " over all tasks" if len(table["tasks"]) > 1 else ""
    for key in judged(table):
        name = NAMES.get(key, key)
        share = controls["kept_without_image"].get(key)
        if share is not None and share >= KEPT:
            yield f"with blank pictures the model keeps {share:.0%} of its {name}{of}: the prompts may tell the answers"
        cell = controls["visual_reliance"].get(key)
        if cell and verdict(cell) != "better":
            said = (
                "another sample's picture does the model better than the right one"
                if verdict(cell) == "worse"
                else "the right picture does the model not clearly better than another sample's"
            )
            yield f"{said} in {name}{of}: {_difference(cell)} on {_samples(controls['n'])}"


def _leakage(table: Mapping[str, Any], train_known: bool) -> Iterator[str]:
    if not train_known:
        yield (
            "what this model was trained on is not known, so whether it has seen these samples is not known either; "
            "where its data is at hand, pass --trained-on FOLDER"
        )
    leakage = table.get("leakage")
    if not leakage:
        return
    yield from leakage["missing"]
    if leakage["leaked"] and not by_text_alone(leakage):
        they, them = ("it is", "it") if leakage["leaked"] == 1 else ("they are", "them")
        yield f"{leaked_in_words(leakage)}; " + (
            f"{they} left out" if "with_leaked" in table else f"--exclude-leaked scores without {them}"
        )


def by_text_alone(leakage: Mapping[str, Any]) -> bool:
    """Return True where only texts were found, which is no alarm: like cases are described in like words."""
    return not any(leakage[key] for key in LEAKS if key != "texts_same")


def leaked_in_words(leakage: Mapping[str, Any]) -> str:
    """Return in words how many samples the training data holds too, and by what."""
    counts = ", ".join(f"{label} {leakage[key]}" for key, label in LEAKS.items() if leakage[key])
    are = "is" if leakage["leaked"] == 1 else "are"
    return f"{leakage['leaked']} of {_samples(leakage['n'])} {are} in the training data too ({counts})"


def _few(table: Mapping[str, Any]) -> Iterator[str]:
    if table["n"] < FEW:
        yield f"{_samples(table['n'], 'is', 'are')} few: read the intervals, not the scores"
    elif table["groups"] < FEW_GROUPS:
        groups = "1 group" if table["groups"] == 1 else f"{table['groups']} groups"
        yield f"the {table['n']} samples come from {groups} only (patients, articles or images)"


def _samples(n: int, one: str = "", many: str = "") -> str:
    """Return "1 sample" or "2 samples", and the verb that goes with it."""
    return f"{n} sample {one}".rstrip() if n == 1 else f"{n} samples {many}".rstrip()
