"""What a model is asked: examples in front of the question (few-shot), and a rationale asked for before the answer.

Both are plain text within the prefix. An example is written as training wrote it: its prefix, a line end, its answer.
Where the backbone takes several pictures and the examples have theirs, each stands before the question by itself.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError, UsageError
from medvlm.recipe.models import PromptsPart, Task

if TYPE_CHECKING:
    from medvlm.models.backbones.base import Example
    from medvlm.train.few_shot import Room

RATIONALE = "{prompt} Explain step by step."
"""Wording of the first of two passes; that a rationale comes first is arXiv:2201.11903, with pictures 2302.00923."""
ANSWER = "{prompt} Reasons: {rationale}"
"""Wording of the second."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shot:
    """An example of a prompt and its answer."""

    prompt: str
    answer: str
    image: str | None = None
    more_images: tuple[str, ...] = ()
    """Further pictures of the same example."""
    pictures: tuple[Any, ...] = dataclasses.field(default=(), compare=False, repr=False)
    """The pictures, where they are shown (see `with_pictures`)."""
    sha256: tuple[str, ...] = ()
    """Of their files."""

    def described(self) -> dict[str, Any]:
        """Return all that an answer may depend on."""
        told: dict[str, Any] = {"prompt": self.prompt, "answer": self.answer, "image": self.image}
        return told | ({"more_images": self.more_images, "sha256": self.sha256} if self.sha256 else {})


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every picture."""

    task: Task
    prompt: str = ""
    language: str = "en"
    shots: tuple[Shot, ...] = ()
    rationale: bool = False
    rationale_wording: str = RATIONALE
    answer_wording: str = ANSWER
    report: bool = False
    """Sort the answer into findings and impression."""
    impression_prompt: str | None = None
    """What asks for an impression, as a question, where the answer states none."""

    @property
    def pictured(self) -> bool:
        """Return True where examples are shown with their pictures."""
        return any(shot.pictures for shot in self.shots)

    def described(self) -> dict[str, Any]:
        """Return all that an answer may depend on."""
        names = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names} | {"shots": [shot.described() for shot in self.shots]}


@dataclasses.dataclass(frozen=True, slots=True)
class Composed:
    """A prefix within the budget."""

    prefix: str
    shots: int
    """Examples in it."""
    dropped: int
    """Examples that had no room."""
    before: tuple[Example, ...] = ()
    """Those that are shown with their pictures; they are no part of the prefix."""


def read_shots(path: Path) -> tuple[Shot, ...]:
    """Return the examples of a JSONL file: {"prompt": ..., "answer": ..., "image": optional} a line.

    `image` is a path, or a list of paths to several pictures of one example.

    Raises:
        InputError: unreadable, empty, or a line that is no such object; says which.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InputError(f"{path}: the examples cannot be read ({reason})") from error
    shots = tuple(_shot(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip())
    if not shots:
        raise InputError(f'{path}: no examples; each line must be {{"prompt": ..., "answer": ...}}')
    return shots


def _shot(line: str, where: str) -> Shot:
    try:
        value: Any = json.loads(line)
    except ValueError:
        value = None
    texts = isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("prompt", "answer"))
    images = value.get("image") if isinstance(value, dict) else None
    names = images if isinstance(images, list) else [] if images is None else [images]
    if not texts or not value["answer"].strip() or not all(map(_is_path, names)):
        raise InputError(f'{where}: expected {{"prompt": text, "answer": text, "image": optional path or paths}}')
    return Shot(value["prompt"], value["answer"], names[0] if names else None, tuple(names[1:]))


def _is_path(value: Any) -> bool:
    try:
        return isinstance(value, str) and value != "" and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def with_pictures(shots: Sequence[Shot], folder: Path) -> tuple[Shot, ...]:
    """Return the examples with their pictures read; as they are where none has one.

    Args:
        shots: of `read_shots`.
        folder: what relative paths start at.

    Raises:
        InputError: a picture cannot be read, or some examples have none.
    """
    if not any(shot.image for shot in shots):
        return tuple(shots)
    bare = next((number for number, shot in enumerate(shots, 1) if shot.image is None), None)
    if bare is not None:
        raise InputError(f"--examples: example {bare} has no image and others have; give all of them one, or none")
    return tuple(_pictured(shot, folder) for shot in shots)


def _pictured(shot: Shot, folder: Path) -> Shot:
    from medvlm.evaluate.pictures import read

    found = [read(folder / name, "--examples needs it") for name in (str(shot.image), *shot.more_images)]
    return dataclasses.replace(shot, pictures=tuple(one for one, _ in found), sha256=tuple(sha for _, sha in found))


def check(question: Question, prompts: PromptsPart) -> None:
    """Make sure that nothing asked for is silently lost.

    Raises:
        UsageError: a question without its text, a text for which the task's template has no place, or a wording
            without its fields.
    """
    template: str = getattr(prompts, question.task)
    if question.task == "vqa" and not question.prompt.strip():
        raise UsageError("--task vqa needs the question: --prompt TEXT")
    if (question.prompt or question.rationale) and "{prompt}" not in template:
        asked = "--prompt" if question.prompt else "--rationale"
        raise UsageError(
            f'{asked}: the {question.task} template of this run is "{template}" and has no place for a prompt; use '
            "--task vqa"
        )
    for option, wording, fields in (
        ("--rationale-prompt", question.rationale_wording, ("{prompt}",)),
        ("--answer-prompt", question.answer_wording, ("{prompt}", "{rationale}")),
    ):
        missing = [field for field in fields if field not in wording]
        if missing:
            raise UsageError(f'{option} "{wording}": expected {" and ".join(missing)} in it')


class Composer:
    """Writes prefixes that fit.

    Args:
        question: what is asked.
        prompts: the recipe's templates, as in training.
        budget: most tokens of a prefix, examples before it included.
        count: text -> its tokens.
        room: of the model, where pictures take of it; None asks for none.
        views: pictures that are asked about at once.
        answer: most tokens of the answer, which `room` must hold, too.
    """

    def __init__(
        self,
        question: Question,
        prompts: PromptsPart,
        budget: int,
        count: Callable[[str], int],
        room: Room | None = None,
        views: int = 1,
        answer: int = 0,
    ) -> None:
        self.question, self.prompts, self.budget, self.count = question, prompts, budget, count
        self.room, self.views, self.answer = room, views, answer

    def prefix(self, prompt: str, task: Task | None = None) -> str:
        """Return a bare prompt in its task's template."""
        from medvlm.train.collate import prefix

        row = {"task": task or self.question.task, "prompt": prompt, "language": self.question.language}
        return prefix(row, self.prompts)

    def plain(self) -> Composed:
        """Return the prefix that asks for the answer at once."""
        return self._with_shots(self.prefix(self.question.prompt))

    def first_pass(self) -> Composed:
        """Return the prefix that asks for a rationale."""
        return self._with_shots(self.prefix(_fill(self.question.rationale_wording, prompt=self.question.prompt)))

    def second_pass(self, rationale: str) -> tuple[Composed, bool]:
        """Return the prefix that gives a rationale and asks for the answer, and whether its end had to be cut."""
        words = rationale.split()
        kept = len(words)
        while kept and not self._fits((), self._reasoned(words[:kept])):
            kept -= 1
        return self._with_shots(self._reasoned(words[:kept])), kept < len(words)

    def impression(self, wording: str) -> str:
        """Return the prefix that asks for an impression."""
        return self._with_shots(self.prefix(wording, "vqa"), ()).prefix

    def _reasoned(self, words: Sequence[str]) -> str:
        wording = self.question.answer_wording
        return self.prefix(_fill(wording, prompt=self.question.prompt, rationale=" ".join(words)))

    def _with_shots(self, last: str, shots: Sequence[Shot] | None = None) -> Composed:
        """Return as many examples as fit in front of `last`, the nearest kept longest; `last` itself is never cut."""
        length = self.count(last)
        if length > self.budget:
            raise UsageError(
                f"the prompt takes {length} tokens and this model was trained with prompts of at most {self.budget}; "
                "shorten it, or set --max-prefix-tokens"
            )
        if not self._fits((), last):
            raise UsageError(
                f"{self.views} pictures and the prompt take more than the {self.room.positions if self.room else 0} "
                "tokens that this model reads at once; ask about fewer"
            )
        shots = list(self.question.shots if shots is None else shots)
        kept = list(shots)
        while kept and not self._fits(kept, last):
            kept.pop(0)
        dropped = len(shots) - len(kept)
        if any(shot.pictures for shot in kept):
            return Composed(last, len(kept), dropped, tuple(map(self._example, kept)))
        return Composed(self._written(kept, last), len(kept), dropped)

    def _written(self, shots: Sequence[Shot], last: str) -> str:
        return "\n".join([*(f"{self.prefix(shot.prompt)}\n{shot.answer}" for shot in shots), last])

    def _fits(self, shots: Sequence[Shot], last: str) -> bool:
        text = self._written(shots, last)
        if self.count(text) > self.budget:
            return False
        if self.room is None:
            return True
        from medvlm.train.few_shot import stand_in

        pictured = any(shot.pictures for shot in shots)
        before = list(map(self._example, shots)) if pictured else []
        return self.room.holds(stand_in(self.views, last if pictured else text, None, before), self.answer)

    def _example(self, shot: Shot) -> Example:
        from medvlm.models.backbones.base import Example

        first, *more = shot.pictures
        return Example(first, self.prefix(shot.prompt), shot.answer, more_images=tuple(more))


def _fill(wording: str, *, prompt: str, rationale: str = "") -> str:
    """Return a wording with its fields filled, each from the wording only: a prompt may itself hold braces."""
    parts = wording.split("{rationale}")
    return rationale.join(part.replace("{prompt}", prompt) for part in parts).strip()
