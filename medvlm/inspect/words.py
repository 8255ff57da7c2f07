"""Which words of the vocabulary lie nearest to a picture's tokens, behind the projector.

A picture reaches the language model as vectors among those of words, so each can be compared with the rows of the
embeddings; whether it resembles a word at all is another question, for one row is always the nearest. So every figure
stands beside two controls: the same for a blank picture, and how near the average row is.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError
from medvlm.inspect.opened import Grid, bare, grid_of, image_places, looks_aside

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from medvlm.evaluate.predict import Predictor

_NO_WORD = re.compile(r"^(<(loc|seg|unused|extra_id_|reserved)[^>]*>|\[unused\d+\]|<\|[^|]*\|>)$", re.IGNORECASE)
_ROWS = 16384
"""Rows of embeddings that are compared at a time."""

NO_MEANING = (
    "A nearest word always exists, so it need not mean anything: image tokens usually lie apart from all words. "
    "Read the controls before reading a word."
)


@dataclasses.dataclass(frozen=True, slots=True)
class Near:
    """A word and how near it is: the cosine of the angle between its row and the image token, 1 at best."""

    word: str
    cosine: float

    @property
    def distance(self) -> float:
        """Return 1 minus the cosine."""
        return 1.0 - self.cosine


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """One image token.

    Attributes:
        near: the nearest words, the nearest first.
        mean: cosine to all words on average.
        blank: the nearest word of the token at the same place of a blank picture.
    """

    near: list[Near]
    mean: float
    blank: Near


@dataclasses.dataclass(frozen=True, slots=True)
class Words:
    """The words of a picture.

    Attributes:
        tokens: one for each image token, in the order of the model.
        grid: where they lie; None where they are no one grid.
        vocabulary: how many words were compared.
        left_out: rows that are no words: special, location and segment tokens, and unused ones.
    """

    tokens: list[Token]
    grid: Grid | None
    vocabulary: int
    left_out: int

    def counts(self) -> list[tuple[str, int, float]]:
        """Return (word, tokens that it is nearest to, their mean cosine), the most frequent first."""
        found = Counter(token.near[0].word for token in self.tokens)
        sums: Counter[str] = Counter()
        for token in self.tokens:
            sums[token.near[0].word] += token.near[0].cosine  # type: ignore[assignment]
        return [(word, count, sums[word] / count) for word, count in sorted(found.items(), key=lambda p: (-p[1], p[0]))]

    def controls(self) -> dict[str, float]:
        """Return what tells whether the words say anything of the picture.

        Returns:
            nearest: mean cosine of the nearest word; mean: that of all words; blank: that of the nearest word on a
            blank picture; same_as_blank: share of tokens with the same nearest word there; distinct: different words.
        """
        size = len(self.tokens)
        return {
            "nearest": sum(token.near[0].cosine for token in self.tokens) / size,
            "mean": sum(token.mean for token in self.tokens) / size,
            "blank": sum(token.blank.cosine for token in self.tokens) / size,
            "same_as_blank": sum(token.near[0].word == token.blank.word for token in self.tokens) / size,
            "distinct": float(len({token.near[0].word for token in self.tokens})),
        }

    def sentences(self) -> list[str]:
        """Return what the words are worth, in plain sentences."""
        told, size = self.controls(), len(self.tokens)
        same, distinct = round(told["same_as_blank"] * size), round(told["distinct"])
        found = f"{told['nearest']:.3f} on average over {size} image tokens"
        beside = f"an average word has {told['mean']:.3f}, and on a blank picture the nearest has {told['blank']:.3f}"
        sentences = [
            NO_MEANING,
            f"Nearest word: cosine {found}; {beside}.",
            f"On a blank picture {same} of {size} tokens have the same nearest word as here.",
        ]
        if same > size / 2:
            sentences.append("Most of these words do not depend on what the picture shows.")
        if distinct <= max(2, size // 20):
            count = "one word is" if distinct == 1 else f"{distinct} words are"
            sentences.append(f"Only {count} nearest to all {size} tokens, so the words do not tell its places apart.")
        return sentences


def of_picture(predictor: Predictor, image: Image, k: int = 5) -> Words:
    """Return the `k` words nearest to each of the picture's tokens.

    Raises:
        InputError: the model has no image tokens beside its words (see `image_embeddings`).
    """
    from medvlm.evaluate.shown import blank

    own, inputs = image_embeddings(predictor, image)
    other, _ = image_embeddings(predictor, blank(image.size))
    table = bare(predictor.model).get_input_embeddings().weight
    ids, texts = vocabulary(predictor.loaded.processor.tokenizer, len(table))
    best, places, mean = nearest(own, table, ids, min(k, len(ids)))
    first, there, _ = nearest(other, table, ids, 1)
    tokens = [
        Token(
            [Near(texts[at], float(value)) for at, value in zip(row, values, strict=True)],
            float(average),
            Near(texts[there[number][0]], float(first[number, 0])),
        )
        for number, (row, values, average) in enumerate(zip(places, best, mean, strict=True))
    ]
    return Words(tokens, grid_of(predictor, inputs, len(tokens), image), len(ids), len(table) - len(ids))


def vocabulary(tokenizer: Any, rows: int) -> tuple[list[int], list[str]]:
    """Return the rows of the embeddings that are words, and each one's text.

    Left out are special tokens, location and segment tokens, rows that no token has, and tokens without text (blanks,
    and bytes that are a part of a letter).
    """
    size = min(rows, len(tokenizer))
    special = set(tokenizer.all_special_ids)
    names = tokenizer.convert_ids_to_tokens(list(range(size)))
    texts = tokenizer.batch_decode([[number] for number in range(size)], clean_up_tokenization_spaces=False)
    kept = [
        (number, text.strip())
        for number, (name, text) in enumerate(zip(names, texts, strict=True))
        if number not in special and name and not _NO_WORD.match(name) and text.strip() and "\ufffd" not in text
    ]
    return [number for number, _ in kept], [text for _, text in kept]


def nearest(
    vectors: torch.Tensor, table: torch.Tensor, ids: list[int], k: int
) -> tuple[torch.Tensor, list[list[int]], torch.Tensor]:
    """Return cosines [N, k] of the nearest of `table`'s rows `ids`, their places in `ids`, and the mean cosine [N].

    Args:
        vectors: [N, W].
        table: [V, W].
        ids: rows of the table that count.
        k: at most as many as there are ids.
    """
    import torch

    with torch.no_grad():
        unit = torch.nn.functional.normalize(vectors.float(), dim=1)
        best = unit.new_zeros(len(unit), 0)
        places = torch.zeros(len(unit), 0, dtype=torch.long, device=unit.device)
        total = unit.new_zeros(len(unit))
        chosen = torch.tensor(ids, device=table.device)
        for start in range(0, len(ids), _ROWS):
            rows = torch.nn.functional.normalize(table[chosen[start : start + _ROWS]].float(), dim=1)
            cosines = unit @ rows.to(unit.device).T
            total += cosines.sum(dim=1)
            own, at = cosines.topk(min(k, cosines.shape[1]), dim=1)
            best, order = torch.cat([best, own], dim=1).topk(min(k, best.shape[1] + own.shape[1]), dim=1)
            places = torch.cat([places, at + start], dim=1).gather(1, order)
    return best.cpu(), places.tolist(), (total / len(ids)).cpu()


class _Enough(Exception):
    """What was looked for is there; the rest of the forward pass is not needed."""


def image_embeddings(predictor: Predictor, image: Image) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return what stands for the picture among the words' embeddings [N, W], and the model's inputs.

    It is what the language model is given at the places of the image tokens; where the picture has no places among the
    text's tokens (GIT, BLIP-2), what the projector gives.

    Raises:
        InputError: the model has neither, or its image tokens are not as wide as the embeddings of its words, or they
            are no finite numbers.
    """
    import torch

    from medvlm.models.backbones.base import Example

    model, backbone = bare(predictor.model), predictor.loaded.backbone
    made = backbone.collate_prompts([Example(image, "")])
    inputs = {name: value.to(predictor.device) for name, value in made.items()}
    table = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    if table is None or backbone.output != "text" or looks_aside(predictor):
        raise _no_words(predictor)
    width = table.weight.shape[1]
    places = image_places(predictor, inputs)
    seen: list[torch.Tensor] = []
    part = "projector" if places is None else "language_model"
    hooks = [
        _watch(module, part, seen) for module in _modules(model, backbone.components_of(model.config).get(part, ()))
    ]
    try:
        with torch.no_grad(), predictor.precision():
            predictor.model(**inputs)
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    if not seen or seen[0].shape[-1] != width:
        raise _no_words(predictor)
    found = (seen[0][0] if places is None else seen[0][0][places]).detach()
    if not bool(found.isfinite().all()):
        raise InputError(f"{type(model).__name__}: its image tokens are no finite numbers: the weights are damaged")
    return found, inputs


def _no_words(predictor: Predictor) -> InputError:
    return InputError(
        f"model.backbone: {predictor.loaded.facts['backbone']}: it has no image tokens beside the embeddings of "
        "words, so none is nearest; see `medvlm inspect attention`"
    )


def _modules(model: Any, prefixes: tuple[str, ...]) -> list[Any]:
    known = dict(model.named_modules())
    return [known[name.rstrip(".")] for name in prefixes if name.rstrip(".") in known]


def _watch(module: Any, part: str, seen: list[torch.Tensor]) -> Any:
    import torch

    def given(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        embeds = kwargs.get("inputs_embeds")
        if isinstance(embeds, torch.Tensor):
            seen.append(embeds)
            raise _Enough

    def made(_: Any, args: tuple[Any, ...], output: Any) -> None:
        value = output[0] if isinstance(output, tuple) else output
        if isinstance(value, torch.Tensor) and value.ndim == 3:
            seen.append(value)
            raise _Enough

    if part == "language_model":
        return module.register_forward_pre_hook(given, with_kwargs=True)
    return module.register_forward_hook(made)
