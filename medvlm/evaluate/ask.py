"""Ask a run about pictures from files: in batches, kept as they come, and gone on with where it broke off.

`medvlm predict` calls it; what answers is one of `medvlm.evaluate.engines`, as in evaluation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from medvlm.cli.common import Progress
from medvlm.errors import InputError, UsageError
from medvlm.evaluate import pictures, report_format, resume
from medvlm.evaluate.engines import Choice
from medvlm.evaluate.generation import decoding
from medvlm.evaluate.prompting import Composed, Composer, Question
from medvlm.io import atomic_write, check_plain, resource_errors, stable_hash
from medvlm.recipe.models import Recipe, Task
from medvlm.runs import Run

if TYPE_CHECKING:
    from PIL.Image import Image

    from medvlm.evaluate.engines import FullEngine

    Seen = Image | tuple[Image, ...]
    """What one question is about."""

_SMALLER = "set --batch-size 1"

_BEGINNING = b'{"image": "'
"""Of every line that `ask` writes."""


def task_of(name: str | None, recipe: Recipe, prompt: str, report: bool) -> Task:
    """Return the task that is meant: the one named, or a report or question if there is one, or what was trained.

    Raises:
        UsageError: there is no such task, or the model only chooses answers.
    """
    task = _meant(name, recipe, prompt, report)
    from medvlm.models.backbones import BACKBONES

    if task != "vqa" and BACKBONES.get(recipe.model.backbone).output == "class":
        what = "--format report" if report else f"--task {task}"
        raise UsageError(f"{what}: {recipe.model.backbone} writes no text, it chooses answers; ask with --prompt TEXT")
    return task


def _meant(name: str | None, recipe: Recipe, prompt: str, report: bool) -> Task:
    for task in get_args(Task):
        if name == task:
            return cast(Task, task)
    if name is not None:
        raise UsageError(f'--task "{name}": expected {", ".join(get_args(Task))}')
    if report:
        return "report"
    if prompt:
        return "vqa"
    trained: set[Task] = {task for part in recipe.data for task in part.tasks or ["caption"]}
    return trained.pop() if len(trained) == 1 else "caption"


class Asker:
    """Answers a question about pictures.

    Args:
        predictor: of the tuned model (see `medvlm.evaluate.engines.load`).
        question: checked by `prompting.check`.
        views: pictures that are asked about at once.
    """

    def __init__(self, predictor: FullEngine, question: Question, views: int = 1) -> None:
        recipe = predictor.recipe
        self.predictor, self.question = predictor, question
        room = predictor.room() if views > 1 or question.pictured else None
        budget, answer = recipe.text.max_prefix_tokens, recipe.eval.max_new_tokens
        self.composer = Composer(question, recipe.prompts, budget, predictor.count, room, views, answer)

    def first(self) -> Composed:
        """Return the first prefix, the same for every picture.

        Raises:
            UsageError: it does not fit.
        """
        return self.composer.first_pass() if self.question.rationale else self.composer.plain()

    def records(self, images: Sequence[Seen]) -> list[dict[str, Any]]:
        """Return what is told of each picture: prompt, prediction, and rationale or report where asked for."""
        first = self.first()
        texts = self._answers(images, [first] * len(images))
        if self.question.rationale:
            rows = self._reasoned(images, texts)
        else:
            rows = [{"prefix": first.prefix, "prediction": text, "examples": _examples(first)} for text in texts]
        if self.question.report:
            asked = self._impressions(images, rows)
            for row, impression in zip(rows, asked, strict=True):
                row["report"] = report_format.record(row["prediction"], impression)
        return rows

    def _answers(self, images: Sequence[Seen], composed: Sequence[Composed]) -> list[str]:
        prefixes = [one.prefix for one in composed]
        if any(one.before for one in composed):
            return self.predictor.answers(images, prefixes, [one.before for one in composed])
        return self.predictor.answers(images, prefixes)

    def _reasoned(self, images: Sequence[Seen], rationales: Sequence[str]) -> list[dict[str, Any]]:
        composed = [self.composer.second_pass(text) for text in rationales]
        answers = self._answers(images, [second for second, _ in composed])
        return [
            {
                "prefix": second.prefix,
                "rationale": rationale,
                "rationale_cut": cut,
                "prediction": answer,
                "examples": _examples(second),
            }
            for rationale, (second, cut), answer in zip(rationales, composed, answers, strict=True)
        ]

    def _impressions(self, images: Sequence[Seen], rows: Sequence[dict[str, Any]]) -> list[str | None]:
        """Return what the model says when asked for the impression that its text does not state, else None."""
        wording = self.question.impression_prompt
        missing = [n for n, row in enumerate(rows) if report_format.parse(row["prediction"]).impression is None]
        answers: list[str | None] = [None] * len(rows)
        if wording and missing:
            prefix = self.composer.impression(wording)
            told = self.predictor.answers([images[n] for n in missing], [prefix] * len(missing))
            for n, text in zip(missing, told, strict=True):
                answers[n] = text
        return answers


def _examples(composed: Composed) -> dict[str, int]:
    return {"used": composed.shots, "dropped": composed.dropped}


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What is asked of which run, and where it is kept."""

    run: Run
    recipe: Recipe
    """With the decoding that is meant."""
    question: Question
    seed: int
    """Of what is drawn."""
    out: Path | None
    """JSONL file of the records; those it holds of the same picture, run, question and decoding are not made again."""
    overwrite: bool
    """Begin `out` anew where it holds predictions made otherwise."""
    choice: Choice = dataclasses.field(default_factory=Choice)
    """Who answers."""
    together: bool = False
    """Ask once, about all pictures: views of one study."""


@dataclasses.dataclass(slots=True)
class Outcome:
    """What became of the pictures, filled while they are asked about."""

    done: int = 0
    kept: int = 0
    """Of these, found in the file of an earlier call."""
    damaged: list[str] = dataclasses.field(default_factory=list)

    def check(self) -> None:
        """Raise InputError where a picture could not be read."""
        if self.damaged:
            total = self.done + len(self.damaged)
            raise InputError(
                f"{len(self.damaged)} of {total} pictures could not be read (named above); others are done"
            )


def ask(
    job: Job,
    paths: Sequence[Path],
    asker: Callable[[], Asker],
    outcome: Outcome,
    show: Progress,
    warn: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Yield one record for each picture that can be read, in order; each batch is synced to disk before.

    With `job.together` there is one record for all pictures, and none where one of them cannot be read.

    Args:
        job: what is asked.
        paths: picture files.
        asker: makes the asker, called only when something is missing.
        outcome: counts what is done.
        show: told how many pictures are done.
        warn: told of each picture that cannot be read.

    Raises:
        InputError: `job.out` holds something else or is one of the pictures, or another process writes it.
        UsageError: `job.out` is no plain file.
        ResourceError: disk or memory is exhausted.
    """
    if job.out is not None:
        check_plain(job.out, "--out")
    if job.out is not None and job.out.resolve() in {path.resolve() for path in paths}:
        raise InputError(f"{job.out}: one of the pictures to be asked about; keep the predictions in another file")
    common = _common(job)
    ready: Asker | None = None
    # A batch for each copy of the model.
    size = len(paths) if job.together else job.recipe.eval.batch_size * job.choice.workers
    with resource_errors(job.out or Path(), _SMALLER), resume.held(job.out) if job.out else contextlib.nullcontext():
        known = _opened(job.out, common["made_by"], job.overwrite) if job.out is not None else {}
        for start in range(0, len(paths), size):
            batch = _together(paths) if job.together else _read(paths[start : start + size], outcome, warn)
            missing = [one for one in batch if one.key not in known]
            if missing:
                ready = ready or asker()
                rows = ready.records([one.seen for one in missing])
                made = [{**one.told, **common, **row} for one, row in zip(missing, rows, strict=True)]
                known |= {_key(row): row for row in made}
                if job.out is not None:
                    resume.append(job.out, made)
            outcome.kept += len(batch) - len(missing)
            outcome.done += len(batch)
            show.update(min(start + size, len(paths)), len(paths))
            yield from (known[one.key] for one in batch)


def _common(job: Job) -> dict[str, Any]:
    """Return what all records say alike; `made_by` is a hash of what a prediction depends on, the picture apart."""
    facts, recipe = job.run.facts(), job.recipe
    decoded = decoding(recipe, job.seed, job.run)
    asked = job.question.described()
    depends = [facts.get("recipe_hash"), facts.get("finished"), recipe.text.max_prefix_tokens, asked, decoded]
    if job.choice.name != "transformers":
        depends.append(job.choice.name)
    return {
        "model": recipe.model.label,
        "run": job.run.path.name,
        "task": job.question.task,
        "prompt": job.question.prompt,
        "decoding": decoded,
        "made_by": stable_hash(depends)[:16],
    }


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """One picture, or all of those that are asked about together."""

    names: tuple[str, ...]
    sha256: tuple[str, ...]
    images: tuple[Image, ...]

    @property
    def seen(self) -> Seen:
        return self.images[0] if len(self.images) == 1 else self.images

    @property
    def told(self) -> dict[str, Any]:
        """What the record says of the pictures."""
        first, *more = ({"image": name, "sha256": sha} for name, sha in zip(self.names, self.sha256, strict=True))
        return first | ({"more_images": more} if more else {})

    @property
    def key(self) -> tuple[str, ...]:
        return _key(self.told)


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    """Return by what a record is known: names and contents of its pictures."""
    more = row.get("more_images")
    told = [row, *(more if isinstance(more, list) else [])]
    return tuple(str(one.get(name)) for one in told if isinstance(one, dict) for name in ("image", "sha256"))


def _together(paths: Sequence[Path]) -> list[_Asked]:
    found = [pictures.read(path, "with --together nothing is asked without it") for path in paths]
    images, sums = zip(*found, strict=True)
    return [_Asked(tuple(map(str, paths)), sums, images)]


def _read(paths: Sequence[Path], outcome: Outcome, warn: Callable[[str], None]) -> list[_Asked]:
    found = []
    for path in paths:
        try:
            image, sha256 = pictures.read(path)
        except InputError as error:
            outcome.damaged.append(str(path))
            warn(str(error))
        else:
            found.append(_Asked((str(path),), (sha256,), (image,)))
    return found


def _opened(out: Path, made_by: str, overwrite: bool) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the records that `out` holds, and leave it without a line that a kill cut off.

    A file that holds none of ours is never touched.
    """
    try:
        # What follows the last line end was cut off, maybe within a character.
        *whole, cut = out.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    rows = [row for row in map(_record, whole) if row is not None]
    if not rows and (whole or not _cut_off(cut)):
        raise InputError(f"{out}: a file that holds no predictions of this command; name another one")
    known = {_key(row): row for row in rows if row["made_by"] == made_by}
    strangers = len(whole) - sum(row["made_by"] == made_by for row in rows)
    if strangers and not overwrite:
        raise InputError(
            f"{out}: {strangers} lines were made by another model, question or decoding, or are no predictions; name "
            "another file, or set --overwrite"
        )
    with atomic_write(out) as file:
        file.write("".join(map(resume.line, known.values())))
    return known


def _record(line: bytes) -> dict[str, Any] | None:
    """Return a line's record if it is one that `ask` writes."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and row.keys() >= {"image", "sha256", "made_by"} else None


def _cut_off(line: bytes) -> bool:
    """Whether a line may be the beginning of one that `ask` writes, and is no whole JSON of somebody else."""
    if not _BEGINNING.startswith(line[: len(_BEGINNING)]):
        return False
    try:
        json.loads(line)
    except ValueError:
        return True
    return _record(line) is not None
