"""What an answer's probability loses when a part of the picture is hidden (arXiv:1311.2901, section 4.2).

A gray window slides over the picture; for every place the model is asked how probable the same answer is now. Unlike
attention this needs nothing of the model but its loss, and it says what the answer depends on.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvlm.errors import InputError, UsageError
from medvlm.inspect.opened import image_side

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from medvlm.evaluate.predict import Predictor

Floats = NDArray[np.float64]
SAME = math.log(1 / 0.9)
"""An answer that keeps nine tenths of its probability, in nats, is as probable as before."""
ACROSS = 8
"""By default so many cells lie along the picture's side, and the window is two strides wide."""


@dataclasses.dataclass(frozen=True, slots=True)
class Windows:
    """A sliding window over a square of `side` pixels, which is how the model sees the picture.

    Raises:
        InputError: window or stride are larger than the picture, or smaller than a pixel.
    """

    side: int
    window: int
    stride: int

    def __post_init__(self) -> None:
        if not 1 <= self.window <= self.side or not 1 <= self.stride <= self.side:
            raise InputError(
                f"--window {self.window} --stride {self.stride}: expected 1 to {self.side} pixels, the side of the "
                "picture as the model sees it"
            )

    def starts(self) -> list[int]:
        """Return where windows begin along a side; the first and last hang over the edges.

        So as many windows cover what lies at an edge as what lies in the middle, and none of both is favored.
        """
        return list(range(min(0, self.stride - self.window), self.side, self.stride))

    def boxes(self) -> list[tuple[float, float, float, float]]:
        """Return the windows (x0, y0, x1, y1) in shares of the picture, row by row, cut at its edges."""
        spans = [
            (max(start, 0) / self.side, min(start + self.window, self.side) / self.side) for start in self.starts()
        ]
        return [(left, top, right, bottom) for top, bottom in spans for left, right in spans]

    def spread(self, values: Sequence[float]) -> Floats:
        """Return a map [C, C] of equal cells, about a stride wide: the mean of the windows over each cell's middle.

        Args:
            values: one for each of `boxes`.
        """
        # Whatever draws or reads a map takes its cells for equal; so many that none strays half a stride from its own.
        cells = math.floor(self.side / self.stride + 0.5)
        middles = (np.arange(cells) + 0.5) * self.side / cells
        starts = np.array(self.starts())
        # A window that is narrower than the stride leaves gaps: there the nearest window speaks.
        covers = (starts[:, None] <= middles) & (middles < starts[:, None] + self.window)
        nearest = np.abs(starts[:, None] + self.window / 2 - middles).argmin(axis=0)
        covers[nearest, np.arange(cells)] |= ~covers.any(axis=0)
        weights = covers / covers.sum(axis=0)
        found: Floats = weights.T @ np.asarray(values, dtype=np.float64).reshape(len(starts), -1) @ weights
        return found


def windows_of(predictor: Predictor, window: int | None = None, stride: int | None = None) -> Windows:
    """Return the windows of a model's picture; by default a quarter of the side wide, an eighth apart."""
    side = image_side(predictor)
    step = stride or -(-side // ACROSS)
    return Windows(side, window or min(side, 2 * step), step)


@dataclasses.dataclass(frozen=True, slots=True)
class Occlusion:
    """How an answer depends on parts of a picture; probabilities as natural logarithms.

    Attributes:
        losses: [C, C] log-probability that hiding costs, from the top left; below 0 where the answer gains.
        whole: log-probability of the answer with the whole picture.
        blank: that with a blank one.
        tokens: how many tokens the answer has, its end token among them.
        windows: what slid over the picture.
        whole_answer: whether all its tokens count, or only some of its words.
    """

    losses: Floats
    whole: float
    blank: float
    tokens: int
    windows: Windows
    whole_answer: bool = True

    def sentences(self) -> list[str]:
        """Return what it says, in plain sentences."""
        what = "the answer" if self.whole_answer else "these words of the answer"
        shares = f"{_percent(self.whole)} with the picture, {_percent(self.blank)} with a blank one"
        nats = f"{self.whole:.2f} and {self.blank:.2f} nats, {self.tokens} token{'s' * (self.tokens != 1)}"
        told = [f"Probability of {what}: {shares} ({nats})."]
        highest = float(self.losses.max())
        if self.blank > self.whole + SAME:
            told.append(f"The picture does not speak for {what}: without it the same is more probable.")
        elif self.blank >= self.whole - SAME:
            told.append(f"The picture does not matter for {what}: without it the same is just as probable.")
        elif highest < SAME:
            told.append(
                f"Hiding any one part of the picture changes little, though hiding all of it does: what {what} needs "
                "is seen in several places, or is larger than the window."
            )
        else:
            told.append(
                f"Hiding the part marked costs most: {highest:.2f} nats (the probability is divided by "
                f"{math.exp(min(highest, 50)):.3g}), the mean of the windows over it."
            )
        return told


def _percent(value: float) -> str:
    share = 100 * math.exp(value)
    return f"{share:.3g} %" if share >= 0.001 else "less than 0.001 %"


Batches = Callable[[int, int], Any]
"""Told (done, total)."""


def of_answer(
    predictor: Predictor,
    image: Image,
    prefix: str,
    answer: str,
    windows: Windows,
    *,
    words: Sequence[str] | None = None,
    batch_size: int | None = None,
    advance: Batches | None = None,
) -> Occlusion:
    """Return what hiding parts of the picture costs the answer.

    Args:
        predictor: the model.
        image: in RGB.
        prefix: of the question, its template filled.
        answer: whose probability is asked for.
        windows: see `windows_of`.
        words: only the probability of these words of the answer, given what stands before each; None is the whole.
        batch_size: pictures at a time; None takes the recipe's of evaluation.
        advance: told how many pictures are done, of how many.

    Raises:
        InputError: the model gives no probability of an answer (see `log_probabilities`).
    """
    from medvlm.evaluate.shown import blank

    boxes = windows.boxes()

    def pictures() -> Iterator[Image]:
        yield image
        yield blank(image.size)
        for box in boxes:
            yield hidden(image, box)

    def told(done: int) -> None:
        if advance is not None:
            advance(done, len(boxes) + 2)

    question = Question(prefix, answer, words)
    values, tokens = log_probabilities(predictor, pictures(), question, batch_size, told)
    losses = windows.spread([values[0] - value for value in values[2:]])
    return Occlusion(losses, values[0], values[1], tokens, windows, words is None)


def hidden(image: Image, box: tuple[float, float, float, float]) -> Image:
    """Return a copy of a picture with an even gray over a box."""
    from medvlm.evaluate.shown import GRAY

    wide, high = image.size
    x0, y0, x1, y1 = (round(value * side) for value, side in zip(box, (wide, high, wide, high), strict=True))
    found = image.copy()
    found.paste(GRAY, (x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the answer whose probability counts: the whole of it, or some of its words."""

    prefix: str
    answer: str
    words: Sequence[str] | None = None


def log_probabilities(
    predictor: Predictor,
    pictures: Iterator[Image],
    question: Question,
    batch_size: int | None = None,
    advance: Callable[[int], Any] | None = None,
) -> tuple[list[float], int]:
    """Return the natural logarithm of the answer's probability for each picture, and how many tokens count.

    Raises:
        InputError: the model compares whole batches with one another, so an answer has no probability of its own; or
            what it computes are no finite numbers.
        UsageError: none of the question's words is in the answer.
    """
    import torch

    from medvlm.models.backbones.base import Example

    backbone = predictor.loaded.backbone
    if backbone.output == "match":
        raise InputError(
            f"{predictor.recipe.model.backbone}: it matches pictures with texts and writes none, so no answer has a "
            "probability that could be lost"
        )
    values: list[float] = []
    tokens = 0
    size = batch_size or predictor.recipe.eval.batch_size
    while batch := list(itertools.islice(pictures, size)):
        made = backbone.collate([Example(picture, question.prefix, question.answer) for picture in batch])
        if question.words is not None:
            _count_only(made, predictor.loaded.processor.tokenizer, question.words)
        inputs = {name: value.to(predictor.device) for name, value in made.items()}
        with torch.no_grad(), predictor.precision():
            _, sums, counts = backbone.losses(predictor.model, inputs)
        if not int(counts[0]):
            raise InputError(f'the answer "{question.answer}" is none that this model can give')
        values += [-float(value) for value in sums]
        if not all(map(math.isfinite, values)):
            raise InputError(
                "the answer's probability is no finite number: the weights are damaged, or training diverged"
            )
        tokens = int(counts[0])
        if advance is not None:
            advance(len(values))
    return values, tokens


def _count_only(inputs: dict[str, torch.Tensor], tokenizer: Any, words: Sequence[str]) -> None:
    """Take the labels of all other words away, in place; every row has the same answer."""
    from medvlm.inspect.attention import marked
    from medvlm.models.backbones.base import IGNORED
    from medvlm.models.backbones.rows import kept

    labels = inputs["labels"]
    if labels.ndim != 2:
        raise UsageError(f'"{" ".join(words)}": this model chooses a whole answer, so no words of it count alone')
    spoken = (labels[0] != IGNORED).nonzero()[:, 0]
    _, marks = marked(tokenizer, labels[0][spoken].tolist(), words)
    labels[:, [int(place) for place, mark in zip(spoken, marks, strict=True) if not mark]] = IGNORED
    if "logits_to_keep" in inputs:
        inputs["logits_to_keep"] = kept(labels)
