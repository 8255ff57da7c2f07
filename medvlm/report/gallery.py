"""Contradictions, then the best, median and worst predictions of an evaluation, with images from the data set."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medvlm.report import marks
from medvlm.report.context import DataSet, Evaluation, Prediction, RunContext
from medvlm.report.document import Case
from medvlm.report.thumbnails import Thumbnails
from medvlm.report.values import mapping, number, text

KINDS = ("contradiction", "best", "median", "worst")
MAPS = (
    "Under some cases stands what the model's own prediction depends on (its probability when a part of the picture is "
    "hidden) and where it attends; the peak of each map has a frame. Attention says from where the model reads, not "
    "what its answer depends on."
)
ONE_ALONE = (
    "No maps: they are of one picture and its question, and this prediction was made with further pictures or with "
    "examples before it."
)
CREDIT = ("license", "license_evidence", "doi", "source")
_RANKED = KINDS[1:]
_MOST_REFERENCES = 5
_MAP_SIDE = 240
_SIDE = re.compile(r"\b(?:left|right)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A prediction with what it is ranked by.

    Attributes:
        measure: name of the score: CIDEr, and for answers the F1 of the words, or the accuracy of closed ones.
        right: whether an answer is right; None for captions and reports.
        flips: how it contradicts a reference: (place of the reference, `medvlm.evaluate.findings.Flip`).
    """

    row: Prediction
    score: float
    measure: str
    right: bool | None = None
    flips: Sequence[tuple[int, Any]] = ()


def cases(evaluation: Evaluation, data: Iterable[DataSet], each: int = 4) -> list[Case]:
    """Return the gallery of an evaluation; a case whose image is gone has none.

    Args:
        evaluation: its predictions are ranked, each task for itself.
        data: where the images are.
        each: how many of each kind and task.
    """
    chosen = choose(evaluation.predictions, each)
    folders = [part.folder for part in data if part.folder is not None]
    make = Thumbnails(len(chosen))
    images: dict[str, tuple[str | None, tuple[int, int] | None, str]] = {}
    for name, row in find_rows(folders, evaluation.split, {one.row.id for _, one in chosen}):
        image = row.get("image")
        found = make(image["bytes"]) if isinstance(image, Mapping) and image.get("bytes") else None
        credit = ", ".join(dict.fromkeys(text(row[column]) for column in CREDIT if row.get(column)))
        images[name] = (*(found or (None, None)), credit)
    return [_case(kind, one, *images.get(one.row.id, (None, None, ""))) for kind, one in chosen]


def choose(predictions: Sequence[Prediction], each: int = 4) -> list[tuple[str, Ranked]]:
    """Return up to `each` contradictions, best, median and worst predictions of each task, by kind.

    No prediction is taken twice. Contradictions with the highest scores come first: there the score hides most. Ties go
    by id.
    """
    chosen = [pair for ranked in rank(predictions).values() for pair in _choose(ranked, each)]
    return sorted(chosen, key=lambda pair: KINDS.index(pair[0]))


def _choose(ranked: Sequence[Ranked], each: int) -> list[tuple[str, Ranked]]:
    """Choose among the predictions of one task, the best first."""
    opposite = [one for one in ranked if one.flips][:each]
    taken = {id(one) for one in opposite}
    rest = [one for one in ranked if id(one) not in taken]
    each = min(each, -(-len(rest) // len(_RANKED)))
    middle = max(each, (len(rest) - each) // 2)
    places = {
        "best": range(each),
        "worst": range(len(rest) - 1, len(rest) - 1 - each, -1),
        "median": range(middle, middle + each),
    }
    seen: set[int] = set()
    chosen = [("contradiction", one) for one in opposite]
    for kind, wanted in places.items():
        for place in wanted:
            if 0 <= place < len(rest) and place not in seen:
                seen.add(place)
                chosen.append((kind, rest[place]))
    return chosen


def rank(predictions: Sequence[Prediction]) -> dict[str, list[Ranked]]:
    """Return the predictions of each task, the best first; those without a reference are left out."""
    tasks: dict[str, list[Prediction]] = {}
    for row in predictions:
        if row.references:
            tasks.setdefault(row.task, []).append(row)
    return {
        task: sorted(_answers(rows) if task == "vqa" else _texts(rows), key=lambda one: (-one.score, one.row.id))
        for task, rows in tasks.items()
    }


def _texts(rows: Sequence[Prediction]) -> list[Ranked]:
    """Rank by the CIDEr of each; document frequencies are those of all references together."""
    values = _score("cider", rows)["cider"]
    return [Ranked(row, value, "CIDEr", None, _flips(row)) for row, value in zip(rows, values, strict=True)]


def _answers(rows: Sequence[Prediction]) -> list[Ranked]:
    """Rank answers by the F1 of their words, those to closed and multiple-choice questions by right or wrong."""
    found = _score("vqa", rows)
    ranked = []
    for row, right, overlap in zip(rows, found["accuracy"], found["open_f1"], strict=True):
        correct = None if math.isnan(right) else right > 0
        known = math.isnan(overlap)
        score = right if known else overlap
        measure = "accuracy" if known else "token F1"
        ranked.append(Ranked(row, 0.0 if math.isnan(score) else score, measure, correct, _flips(row)))
    return ranked


def _score(metric: str, rows: Sequence[Prediction]) -> dict[str, list[float]]:
    from medvlm.evaluate.metrics import score

    found = score(
        [metric], [row.prediction for row in rows], [row.references for row in rows], [row.row for row in rows]
    )
    return {key: values.tolist() for key, values in found.per_segment.items()}


def _flips(row: Prediction) -> list[tuple[int, Any]]:
    """Return where a prediction says the opposite of its nearest reference."""
    from medvlm.evaluate.findings import Flip, flips

    place = marks.nearest(row.references, row.prediction)
    reference = row.references[place]
    found = flips(reference, row.prediction)
    if row.task == "vqa" and not found:
        # "The left side" names no finding: its question does.
        ours, theirs = (list(_SIDE.finditer(text)) for text in (row.prediction, reference))
        if {side[0].lower() for side in ours + theirs} == {"left", "right"} and len(ours) == len(theirs) == 1:
            found = [Flip("side", "answer", theirs[0].span(), ours[0].span())]
    return [(place, flip) for flip in found]


def find_rows(
    folders: Iterable[Path], split: str, ids: set[str], wanted: Sequence[str] = ("image", *CREDIT)
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield id, and the wanted columns that there are, of the rows with these ids, one at a time.

    Only row groups that hold one of them are read beyond their ids, a few rows at once.
    """
    missing = set(ids)
    for folder in folders:
        for shard in sorted((folder / "data").glob(f"{split}-*.parquet")):
            if not missing:
                return
            for name, row in _shard_rows(shard, missing, wanted):
                missing.discard(name)
                yield name, row


def _shard_rows(shard: Path, ids: set[str], names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = pa.array(sorted(ids))
    try:
        with pq.ParquetFile(shard, memory_map=True) as file:
            columns = ["id", *(name for name in names if name in file.schema_arrow.names)]
            for group in range(file.num_row_groups):
                if not pc.any(pc.is_in(file.read_row_group(group, columns=["id"])["id"], wanted)).as_py():
                    continue
                for batch in file.iter_batches(16, row_groups=[group], columns=columns, use_threads=False):
                    for row in batch.filter(pc.is_in(batch["id"], wanted)).to_pylist():
                        yield row["id"], row
    except (OSError, KeyError, pa.ArrowException):
        # A damaged or foreign shard has no images for us; the gallery says that they are missing.
        return


def _case(kind: str, one: Ranked, image: str | None, size: tuple[int, int] | None, credit: str) -> Case:
    row = one.row
    compared = marks.nearest(row.references, row.prediction)
    opposite = [(flip.reference, flip.prediction) for place, flip in one.flips if place == compared]
    own, said = marks.compare(row.references[compared], row.prediction, opposite)
    others = [text for text in dict.fromkeys(row.references) if text != row.references[compared]]
    shown = [row.references[compared], *others[: _MOST_REFERENCES - 1]]
    return Case(
        kind=kind,
        score=one.score,
        id=row.id,
        task=row.task,
        prompt=row.prompt,
        references=shown,
        prediction=row.prediction,
        image=image,
        credit=credit,
        measure=one.measure,
        right=one.right,
        reference_marks=[marks.shortened(own), *(marks.shortened(marks.plain(text)) for text in shown[1:])],
        prediction_marks=marks.shortened(said),
        flips=list(dict.fromkeys(_in_words(flip) for _, flip in one.flips)),
        size=size,
        language=text(row.row.get("language")),
        more_references=len(others) - len(shown[1:]),
    )


def _in_words(flip: Any) -> str:
    if flip.kind == "side":
        return f"{flip.observation}: left and right are exchanged"
    return f"{flip.observation}: one says that it is there, the other that it is not"


class Looker:
    """Puts maps of where a run's model looks under the first cases of its gallery, kinds in turn.

    Args:
        each: how many cases of a run.
        total: how many of all runs.
        advance: told how many are done, of how many.
    """

    def __init__(self, each: int, total: int, advance: Callable[[int, int], Any] | None = None) -> None:
        self.each, self.total, self.advance = each, total, advance
        self.done = 0

    def __call__(self, run: RunContext, evaluation: Evaluation, found: Sequence[Case]) -> list[Case]:
        """Return the cases, some with maps.

        Raises:
            InputError: the run's weights are gone or damaged.
            AccessError: its base is not at hand.
        """
        from medvlm.inspect.opened import open_model
        from medvlm.runs import Run

        wanted = {id(case): case.id for case in _in_turn([case for case in found if case.image])[: self.each]}
        if not wanted:
            return list(found)
        own = Run(run.path)
        predictor = open_model(own, own.recipe())
        folders = [part.folder for part in run.data if part.folder is not None]
        several = (number(mapping(evaluation.scores.get("decoding")).get("max_images")) or 1) > 1
        columns = ("image", "more_images") if several else ("image",)
        rows = dict(find_rows(folders, evaluation.split, set(wanted.values()), columns))
        predictions = {row.id: row.row for row in evaluation.predictions}
        looked = []
        for case in found:
            row = rows.get(case.id) if id(case) in wanted else None
            if row is None:
                looked.append(case)
                continue
            told = predictions.get(case.id, {})
            if told.get("shots") or row.get("more_images"):
                looked.append(replace(case, maps_said=[ONE_ALONE]))
            else:
                language = text(told.get("language")) or "en"
                looked.append(_with_maps(case, row["image"]["bytes"], language, predictor))
            self.done += 1
            if self.advance is not None:
                self.advance(self.done, self.total)
        return looked


def _in_turn(found: Sequence[Case]) -> list[Case]:
    """Return cases so that every kind has its turn before one has another."""
    seen: dict[str, int] = {}
    ranked = []
    for case in found:
        ranked.append((seen.setdefault(case.kind, 0), case))
        seen[case.kind] += 1
    return [case for _, case in sorted(ranked, key=lambda pair: pair[0])]


def _with_maps(case: Case, data: bytes, language: str, predictor: Any) -> Case:
    """Return the case with the maps of its prediction."""
    from medvlm.data.images import decode
    from medvlm.inspect import draw
    from medvlm.inspect.maps import NOT_CAUSE, Asked, of_picture
    from medvlm.train.collate import prefix

    # Halves of surrogate pairs, which JSON can hold, are no text to a tokenizer.
    prompt, said = (told.encode("utf-8", "replace").decode() for told in (case.prompt, case.prediction))
    asked = prefix({"task": case.task, "prompt": prompt, "language": language}, predictor.recipe.prompts)
    image = decode(data)
    found = of_picture(predictor, image, Asked(asked, said))
    drawn = draw.beside(
        [draw.panel(image, one.drawn, _MAP_SIDE) for one in found.layers() if "layer" not in one.drawn.title]
    )
    sentences = [sentence for sentence in found.sentences() if sentence != NOT_CAUSE]
    if drawn is None:
        return replace(case, maps_said=sentences)
    return replace(case, maps=draw.data_uri(drawn, small=True), maps_size=drawn.size, maps_said=sentences)
