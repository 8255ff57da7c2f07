"""Where the tokens of an answer look in the picture: the attention of each layer, and rolled out over all of them.

An answer's token is said by the position before it, so the attention is that position's. Rolled out
(arXiv:2005.00928): each layer's attention, averaged over its heads, is mixed half and half with the residual path and
multiplied with that of the layers below, so that a share reaches the embedding that it came from. What a mask hides
has no weight at any layer, so causal and prefix masks need no care of their own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvlm.errors import UsageError
from medvlm.inspect.opened import Grid, bare, eager, grid_of, image_places

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from medvlm.evaluate.predict import Predictor

Floats = NDArray[np.float64]

FUNCTION_WORDS = frozenset(
    ("a", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "do", "does", "for", "from", "has", "have",
     "in", "into", "is", "it", "its", "nor", "not", "of", "on", "or", "seen", "than", "that", "the", "their", "there",
     "these", "this", "those", "to", "was", "were", "which", "with", "within", "without")
)  # fmt: skip
"""English words that say nothing of a picture by themselves; "no" is none of them, since it says what is not there."""
_WORD = re.compile(r"[^\W_]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Attention:
    """Where an answer's tokens look.

    Attributes:
        tokens: the answer in pieces, its end token last.
        content: which of them are parts of words that can be about the picture.
        layers: [L, A, N] attention of each layer, answer token and image token; the mean of the heads, or one head.
        rolled: [A, N] the same rolled out over all layers.
        grid: how the N image tokens lie over the picture; None where they are no one grid.
        head: the one head that `layers` shows; None is the mean.
    """

    tokens: list[str]
    content: list[bool]
    layers: Floats
    rolled: Floats
    grid: Grid | None
    head: int | None = None

    def map(self, layer: int | None = None, token: int | None = None) -> Floats:
        """Return [rows, columns], the mean of the content tokens or one token's; `layer` None is rolled out."""
        grid = self.grid
        if grid is None:
            raise ValueError("these image tokens are no one grid")
        values = self.rolled if layer is None else self.layers[layer]
        chosen = values[self.content].mean(axis=0) if token is None else values[token]
        found: Floats = chosen[grid.extra :].reshape(grid.rows, grid.columns)
        return found

    def share(self, layer: int | None = None) -> float:
        """Return how much of the content tokens' attention is on the picture at all, 0 to 1."""
        values = self.rolled if layer is None else self.layers[layer]
        return float(values[self.content].sum(axis=1).mean())


def of_answer(
    predictor: Predictor,
    image: Image,
    prefix: str,
    answer: str,
    *,
    words: Sequence[str] | None = None,
    head: int | None = None,
) -> Attention | str:
    """Return where an answer's tokens look, or why this model cannot tell.

    Args:
        predictor: the model.
        image: in RGB.
        prefix: of the question, its template filled.
        answer: what it said, or what it is made to say.
        words: the words of the answer that the maps are about; None is all that can be about a picture.
        head: one head of each layer instead of their mean; the rolled-out map is of the mean all the same.

    Raises:
        UsageError: there is no such head, or none of the words in the answer.
    """
    import torch

    from medvlm.models.backbones.base import IGNORED, Example

    backbone = predictor.loaded.backbone
    if backbone.output != "text":
        return f"{predictor.recipe.model.backbone}: it writes no tokens, so none of them looks anywhere"
    made = backbone.collate([Example(image, prefix, answer)])
    if "labels" not in made or made["labels"].ndim != 2:
        return f"{predictor.recipe.model.backbone}: its inputs do not tell which tokens are the answer"
    labels = made["labels"][0]
    inputs = {name: value.to(predictor.device) for name, value in made.items() if name not in ("labels", "example_ids")}
    with eager(predictor.model), torch.no_grad(), predictor.precision():
        output = predictor.model(**inputs, output_attentions=True, use_cache=False)
    # BLIP-2 keeps its language model's output apart.
    output = getattr(output, "language_model_outputs", None) or output
    found = [one for one in getattr(output, "attentions", None) or () if one is not None]
    spoken = (labels != IGNORED).nonzero()[:, 0]
    places = _places(predictor, inputs, found, len(labels))
    if places is None:
        return (
            f"{predictor.recipe.model.backbone}: its text does not attend to tokens of the picture in one sequence, so "
            "there is no such map; the occlusion map needs none"
        )
    if head is not None and not 0 <= head < found[0].shape[1]:
        raise UsageError(f"--head {head}: expected 0 to {found[0].shape[1] - 1}")
    queries = spoken - 1
    layers = torch.stack([_of_head(one[0], head)[queries][:, places] for one in found])
    rolled = rollout([_of_head(one[0], None) for one in found], queries)[:, places]
    grid = grid_of(predictor, inputs, int(places.sum()), image)
    if not bool(layers.isfinite().all() and rolled.isfinite().all()):
        return f"{predictor.recipe.model.backbone}: its attention is no finite numbers: the weights are damaged"
    pieces, marks = marked(predictor.loaded.processor.tokenizer, labels[spoken].tolist(), words)
    return Attention(pieces, marks, layers.double().cpu().numpy(), rolled.double().cpu().numpy(), grid, head)


def _of_head(attention: torch.Tensor, head: int | None) -> torch.Tensor:
    return (attention.float().mean(dim=0) if head is None else attention[head].float()).cpu()


def _places(
    predictor: Predictor, inputs: dict[str, torch.Tensor], attentions: list[torch.Tensor], length: int
) -> torch.Tensor | None:
    """Return [S] bool, True at image tokens of the attended sequence; None where there are none in it."""
    import torch

    if not attentions or attentions[0].ndim != 4 or any(one.shape != attentions[0].shape for one in attentions):
        return None
    side = attentions[0].shape[-1]
    if attentions[0].shape[-2] != side or side != length:
        return None
    words = inputs["input_ids"].shape[1] if "input_ids" in inputs else side
    if side > words and bare(predictor.model).config.model_type == "git":
        # GIT puts its picture in front of the tokens without placeholders.
        return torch.arange(side) < side - words
    places = image_places(predictor, inputs)
    return None if places is None else places.cpu()


def rollout(attentions: list[torch.Tensor], queries: torch.Tensor) -> torch.Tensor:
    """Return [A, S]: how much of each query's last hidden state goes back to each position's embedding.

    Args:
        attentions: of each layer from the first, [S, S], rows that sum to 1.
        queries: [A] positions.
    """
    import torch

    found = torch.eye(attentions[0].shape[-1], dtype=attentions[0].dtype)[queries]
    for attention in reversed(attentions):
        found = 0.5 * found + 0.5 * found @ attention
    return found


def split(tokenizer: Any, ids: list[int]) -> list[str]:
    """Return the text of each token, blanks kept; letters that several tokens make up stand at the last of them."""
    pieces, before = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False)
        if text.endswith("\ufffd"):
            pieces.append("")
            continue
        pieces.append(text[len(before) :])
        before = text
    return pieces


def marked(tokenizer: Any, ids: list[int], words: Sequence[str] | None = None) -> tuple[list[str], list[bool]]:
    """Return the pieces of an answer's tokens, and which belong to a word that counts.

    Args:
        tokenizer: the model's.
        ids: the answer's tokens.
        words: those that count; None is every word that can be about a picture: no punctuation, special token or
            English function word. Where an answer has no such word, all its tokens but the special ones count.

    Raises:
        UsageError: the answer has none of `words`.
    """
    special = set(tokenizer.all_special_ids)
    pieces = split(tokenizer, ids)
    wanted = None if words is None else {own.lower() for word in words for own in _WORD.findall(word)}
    text, spans = "", []
    for piece, number in zip(pieces, ids, strict=True):
        own = " " if number in special else piece
        spans.append((len(text), len(text) + len(own)))
        text += own
    counting = [found.span() for found in _WORD.finditer(text) if _counts(found[0].lower(), wanted)]
    marks = [any(start < end and begin < stop for begin, end in counting) for start, stop in spans]
    if any(marks):
        return pieces, marks
    if wanted is not None:
        raise UsageError(f'"{" ".join(words or ())}": none of these words is in the answer "{text.strip()}"')
    plain = [number not in special for number in ids]
    return pieces, plain if any(plain) else [True] * len(ids)


def _counts(word: str, wanted: set[str] | None) -> bool:
    return word not in FUNCTION_WORDS if wanted is None else word in wanted


def same_answer(predictor: Predictor, image: Image, prefix: str, answer: str) -> bool:
    """Return whether the model says the same when its attention is computed so that it can be read."""
    with eager(predictor.model):
        return predictor.answers([image], [prefix])[0] == answer
