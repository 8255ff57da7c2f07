"""Where an answer looks and what it depends on, side by side: attention and occlusion of one picture and question."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError, UsageError
from medvlm.inspect import attention, draw, occlusion
from medvlm.inspect.attention import Attention
from medvlm.inspect.occlusion import Occlusion
from medvlm.inspect.page import Layer, Page, Table, maps_explorer

if TYPE_CHECKING:
    from PIL.Image import Image

    from medvlm.evaluate.predict import Predictor

NOT_CAUSE = (
    "Attention says from where the model reads, not what its answer depends on; the occlusion map says that. Where the "
    "two differ, trust the occlusion map."
)


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What is looked into.

    Attributes:
        prefix: the question, its template filled.
        answer: what the model is made to say; None lets it answer.
        words: the words of the answer that count; None is all.
        head: one attention head of each layer; None is their mean.
        window: of the occlusion in pixels of the model's picture; None is a quarter of its side.
        stride: between windows; None is an eighth.
        occlude: whether there is an occlusion map at all.
        batch_size: pictures at a time; None takes the recipe's.
    """

    prefix: str
    answer: str | None = None
    words: Sequence[str] | None = None
    head: int | None = None
    window: int | None = None
    stride: int | None = None
    occlude: bool = True
    batch_size: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Maps:
    """Both maps of one answer.

    Attributes:
        answer: what the model said, or was made to say.
        generated: whether it said so itself.
        same: whether it says the same when its attention is computed so that it can be read; None where not tried.
        left_out: how many tokens at the end of the answer are more than the recipe's budget, and do not count.
        attention: None where the model has none that can be read, as `no_attention` says.
        occlusion: None where it was not asked for, or as `no_occlusion` says.
    """

    asked: Asked
    answer: str
    generated: bool
    same: bool | None
    attention: Attention | None
    occlusion: Occlusion | None
    no_attention: str = ""
    no_occlusion: str = ""
    left_out: int = 0

    def sentences(self) -> list[str]:
        """Return what the maps say, in plain sentences."""
        told = self.occlusion.sentences() if self.occlusion is not None else []
        if self.left_out:
            last = "token is" if self.left_out == 1 else f"{self.left_out} tokens are"
            told.insert(
                0,
                f"The answer is longer than text.max_suffix_tokens of the recipe: its last {last} left out, so "
                "probabilities and maps are of its beginning.",
            )
        told += [f"No occlusion map: {self.no_occlusion}."] if self.no_occlusion else []
        if self.attention is None:
            return [*told, f"No attention map: {self.no_attention}."]
        by_layer = ", ".join(
            f"{_percent(self.attention.share(number))}" for number in range(len(self.attention.layers))
        )
        told.append(
            f"Attention on the picture: {_percent(self.attention.share())} rolled out; layer by layer {by_layer}."
        )
        if self.attention.grid is None:
            told.append("The picture's tokens are no one grid (tiles or queries), so attention has a share and no map.")
        else:
            told.append(NOT_CAUSE)
        if self.same is False:
            told.append(
                "With the attention that can be read (eager) the model answers otherwise than with its own: rounding "
                "decides between words that are nearly as probable. The maps are of the answer above."
            )
        return told

    def layers(self) -> list[Layer]:
        """Return the maps, occlusion first, then attention rolled out, then layer by layer."""
        found = []
        if self.occlusion is not None:
            note = f"Window {self.occlusion.windows.window}, stride {self.occlusion.windows.stride} of "
            note += f"{self.occlusion.windows.side} pixels"
            found.append(Layer(draw.Map("Occlusion", self.occlusion.losses, "nats lost when hidden", note=note)))
        seen = self.attention
        if seen is None or seen.grid is None:
            return found
        for layer in (None, *range(len(seen.layers))):
            values = seen.map(layer)
            heads = "" if seen.head is None else f", head {seen.head}"
            title = "Attention, rolled out" if layer is None else f"Attention, layer {layer + 1}{heads}"
            peak = values.max() / values.mean() if values.mean() > 0 else 1.0
            note = f"{_percent(seen.share(layer))} on the picture; peak {peak:.1f} times the mean"
            own = [seen.map(layer, token) for token in range(len(seen.tokens))]
            tokens = None if not own else draw.stacked(own)
            found.append(Layer(draw.Map(title, values, "share of the attention", seen.grid.view, note), tokens))
        return found

    def panels(self, image: Image, layer: int | None = None, side: int = draw.SIDE) -> list[draw.Image]:
        """Return the picture, its occlusion, its attention rolled out, and one layer's where asked for.

        Raises:
            UsageError: there is no such layer.
        """
        self.check_layer(layer)
        drawn = [one.drawn for one in self.layers()]
        rest = [one for one in drawn if "layer" not in one.title]
        if layer is not None:
            rest.append([one for one in drawn if "layer" in one.title][layer - 1])
        return [draw.panel(image, None, side), *(draw.panel(image, one, side) for one in rest)]

    def check_layer(self, layer: int | None) -> None:
        """Make sure that there is a map of a layer.

        Raises:
            UsageError: there is none.
        """
        seen = self.attention
        if layer is None:
            return
        if seen is None or seen.grid is None:
            raise UsageError(f"--layer: {self.no_attention or 'there is no attention map'}")
        if not 1 <= layer <= len(seen.layers):
            raise UsageError(f"--layer {layer}: expected 1 to {len(seen.layers)}")

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON: maps as lists of rows from the top left."""
        seen, hidden = self.attention, self.occlusion
        return {
            "prefix": self.asked.prefix,
            "answer": self.answer,
            "generated": self.generated,
            "same_with_eager_attention": self.same,
            "left_out_tokens": self.left_out,
            "words": None if self.asked.words is None else list(self.asked.words),
            "sentences": self.sentences(),
            "occlusion": None
            if hidden is None
            else {
                "log_probability": hidden.whole,
                "log_probability_blank": hidden.blank,
                "tokens": hidden.tokens,
                "window": hidden.windows.window,
                "stride": hidden.windows.stride,
                "side": hidden.windows.side,
                "losses": hidden.losses.tolist(),
            },
            "attention": None
            if seen is None
            else {
                "head": seen.head,
                "tokens": [{"text": t, "counts": mark} for t, mark in zip(seen.tokens, seen.content, strict=True)],
                "share": seen.share(),
                "share_by_layer": [seen.share(number) for number in range(len(seen.layers))],
                "maps": [
                    {"name": one.drawn.title, "view": list(one.drawn.view), "values": one.drawn.values.tolist()}
                    for one in self.layers()
                    if one.tokens is not None
                ],
            },
        }

    def sheet(self, image: Image, title: str, layer: int | None = None) -> draw.Image:
        """Return the maps as one picture."""
        return draw.sheet(self.panels(image, layer), title, [f"Answer: {self.answer or '(empty)'}", *self.sentences()])

    def page(self, image: Image, title: str, facts: Sequence[tuple[str, str]], layer: int | None = None) -> Page:
        """Return the page of the maps."""
        layers, tables = self.layers(), []
        tokens = self.attention.tokens if self.attention is not None else []
        marks = self.attention.content if self.attention is not None else []
        if self.attention is not None:
            shares = [("rolled out", self.attention.share())]
            shares += [(f"layer {at + 1}", self.attention.share(at)) for at in range(len(self.attention.layers))]
            rows = [[name, _percent(share)] for name, share in shares]
            tables.append(Table("Attention on the picture altogether", ["layer", "share"], rows))
        said = "answer" if self.generated else "answer (given)"
        return Page(
            title,
            [*facts, ("prompt", self.asked.prefix), (said, self.answer or "(empty)")],
            self.sentences(),
            maps_explorer(image, layers, tokens, marks) if layers else None,
            self.sheet(image, title, layer),
            "The picture, and over it: "
            + ", ".join(one.drawn.title for one in layers if "layer" not in one.drawn.title),
            tables,
        )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def of_picture(
    predictor: Predictor, image: Image, asked: Asked, advance: Callable[[int, int], Any] | None = None
) -> Maps:
    """Return both maps of a picture and a question.

    Args:
        predictor: the model.
        image: in RGB.
        asked: what is looked into.
        advance: told how many pictures of the occlusion are done, of how many.

    Raises:
        InputError: the window does not fit the picture.
        UsageError: no such head, or words that the answer has not.
    """
    answer = predictor.answers([image], [asked.prefix])[0] if asked.answer is None else asked.answer
    seen = attention.of_answer(predictor, image, asked.prefix, answer, words=asked.words, head=asked.head)
    readable = not isinstance(seen, str)
    same = attention.same_answer(predictor, image, asked.prefix, answer) if asked.answer is None and readable else None
    cut = left_out(predictor, asked.prefix, answer)
    hidden, why = None, ""
    if asked.occlude:
        windows = occlusion.windows_of(predictor, asked.window, asked.stride)
        try:
            hidden = occlusion.of_answer(
                predictor,
                image,
                asked.prefix,
                answer,
                windows,
                words=asked.words,
                batch_size=asked.batch_size,
                advance=advance,
            )
        except InputError as error:
            why = str(error)
    if isinstance(seen, str):
        return Maps(asked, answer, asked.answer is None, same, None, hidden, seen, why, cut)
    return Maps(asked, answer, asked.answer is None, same, seen, hidden, "", why, cut)


def left_out(predictor: Predictor, prefix: str, answer: str) -> int:
    """Return how many tokens of an answer are more than the recipe's budget; 0 where answers are only chosen."""
    loaded, text = predictor.loaded, predictor.recipe.text
    if loaded.backbone.output != "text":
        return 0
    roomy = type(loaded.backbone)(
        loaded.processor,
        image_tokens=loaded.facts["image_tokens"],
        max_prefix_tokens=text.max_prefix_tokens,
        # No text has more tokens than bytes but for its end.
        max_suffix_tokens=text.max_suffix_tokens + len(answer.encode("utf-8", "replace")) + 8,
    )
    return roomy.text_tokens(prefix, answer)[1] - loaded.backbone.text_tokens(prefix, answer)[1]
