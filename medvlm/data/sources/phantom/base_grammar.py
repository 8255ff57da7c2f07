"""Pre-training tasks for the tiny base model: other phantoms, other tasks and other wording than the embedded sample.

The base must see (findings, sides, places) and must know every word, for LoRA cannot teach words to frozen, tied
embeddings; but it must never have seen a caption or report of the sample's kind. The mixture follows PaliGemma's
pre-training (Beyer et al. 2024, arXiv:2407.07726): detection with location tokens, short answers, and text to copy.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from medvlm.data.sample import Image, Sample
from medvlm.data.sources.phantom import grammar
from medvlm.data.sources.phantom.draw import draw, encode
from medvlm.data.sources.phantom.spec import SIDES, SIZES, ZONES, Spec, all_specs, random_spec
from medvlm.evaluate.findings import FINDINGS
from medvlm.io import sha256_bytes

SOURCE = "phantom-base"
LICENSE = "CC0-1.0"
BINS = 1024
"""PaliGemma's location tokens: `<loc0000>` to `<loc1023>`, ordered y0 x0 y1 x1."""
RARE = 0.05
"""Share of the pictures that have an exercise of detection, and of copying."""
# Words that recipes put around a prompt, which the base must know too.
TEMPLATE_WORDS = ("caption", "answer", "report", "describe", "question", "en")
_WORD = re.compile(r"[A-Za-z]+")


class Exercise(NamedTuple):
    """One thing to learn from a picture: a prompt and what to say."""

    task: str
    prompt: str
    target: str


def base_samples(seed: int, index: int) -> Iterator[Sample]:
    """Yield all pre-training samples of phantom number `index`, one picture with its exercises."""
    rng = random.Random(f"base:{seed}:{index}")
    spec = random_spec(rng)
    # The first word keeps these pictures apart from the sample's, whose streams start otherwise.
    drawing = draw(spec, np.random.default_rng([0xBA5E, seed, index]))
    data = encode(drawing.pixels)
    group = f"{SOURCE}-{seed}-{index:06d}"
    name = f"{group}.jpg"
    for ordinal, exercise in enumerate(exercises(spec, drawing.finding_box, rng)):
        yield Sample(
            id=f"{group}/image/-/{exercise.task}/{ordinal}",
            image=Image(data, name),
            task=exercise.task,
            prompt=exercise.prompt,
            target=exercise.target,
            language="en",
            modality=spec.modality,
            kind="graphic",
            compound=False,
            organ="chest",
            finding=spec.finding,
            answer_type="open" if exercise.task == "vqa" else None,
            source=SOURCE,
            group=group,
            figure_id="image",
            file_name=name,
            sha256=sha256_bytes(data),
            license=LICENSE,
            license_scope="dataset",
            license_evidence="drawn by code from a seed; dedicated to the public domain (CC0 1.0)",
            commercial_use="yes",
        )


def exercises(spec: Spec, box: tuple[float, float, float, float] | None, rng: random.Random) -> list[Exercise]:
    """Return the exercises of one picture: keywords, an index of words, two short answers; now and then others.

    Detection and copying are rare because most of their tokens cannot be foreseen: their loss would drown the rest.
    """
    listed = [
        Exercise("caption", "keywords", keywords(spec)),
        Exercise("caption", "index", index(spec)),
        *(Exercise("vqa", *pair) for pair in rng.sample(_short_answers(spec, rng), 2)),
    ]
    if rng.random() < RARE:
        listed.append(Exercise("caption", "detect", f"{locate(box)} {spec.finding}" if box else "nothing to detect"))
    if rng.random() < RARE:
        listed.append(_copying(rng))
    return listed


@functools.cache
def index(spec: Spec) -> str:
    """Return the words that describe a picture in alphabetical order: every word is seen, no sentence is.

    Words of all wordings at once, so that the picture alone decides the index and nothing in it is chance.
    """
    return " ".join(sorted(set(_WORD.findall(" ".join(grammar.descriptions(spec))))))


def locate(box: tuple[float, float, float, float]) -> str:
    """Return (x0, y0, x1, y1), each 0 to 1, as four location tokens."""
    x0, y0, x1, y1 = box
    return "".join(f"<loc{min(BINS - 1, int(value * BINS)):04d}>" for value in (y0, x0, y1, x1))


def keywords(spec: Spec) -> str:
    """Return a picture's facts in telegram style, in an order that no caption has."""
    facts = {
        "place": " ".join(word for word in (spec.zone, spec.side) if word) or "nowhere",
        "extent": spec.size or "nil",
        "sign": spec.finding,
        "heart": "wide" if spec.finding == "cardiomegaly" else "usual",
        "kind": grammar.MODALITY_NAMES[spec.modality],
    }
    return " ; ".join(f"{key} = {value}" for key, value in facts.items())


def vocabulary() -> tuple[str, ...]:
    """Return every word of the sample's texts, in each of its spellings (with and without a capital), sorted."""
    return _vocabulary()


def vocabulary_corpus(pictures: int = 400) -> Iterator[str]:
    """Yield texts to train a tokenizer on: all of the sample's wording, and base exercises of `pictures` pictures."""
    for spec in all_specs():
        yield from grammar.all_texts(spec)
    yield from TEMPLATE_WORDS
    specs = all_specs()
    for index in range(pictures):
        rng = random.Random(f"corpus:{index}")
        for exercise in exercises(specs[index % len(specs)], (0.1, 0.2, 0.3, 0.4), rng):
            yield exercise.prompt
            # Location tokens are special tokens: no tokenizer should learn them from text.
            yield re.sub(r"<loc\d{4}>", "", exercise.target).strip()


def _short_answers(spec: Spec, rng: random.Random) -> list[tuple[str, str]]:
    """Return pairs of question and answer in a phrasing of their own."""
    other = rng.choice([name for name in FINDINGS if name not in (spec.finding, "none")])
    pair = [other, spec.finding] if rng.random() < 0.5 else [spec.finding, other]
    zones = "/".join(ZONES[spec.modality])
    return [
        ("sign ?", spec.finding),
        (f"pick {pair[0]} / {pair[1]}", spec.finding),
        (f"{rng.choice((spec.finding, other))} or other kind ?", grammar.MODALITY_NAMES[spec.modality]),
        (f"place {'/'.join(SIDES)} ?", spec.side or "nowhere"),
        (f"extent {'/'.join(SIZES)} ?", spec.size or "nil"),
        (f"zone {zones} ?", spec.zone or "nowhere"),
    ]


def _copying(rng: random.Random) -> Exercise:
    """Copy words of the sample's vocabulary in no order of any sentence, with marks thrown in."""
    words = [
        word + rng.choice(("", "", "", ".", ",", ":", "?")) for word in rng.sample(vocabulary(), rng.randint(2, 4))
    ]
    text = " ".join(words)
    return Exercise("vqa", f"repeat {text}", text)


@functools.cache
def _vocabulary() -> tuple[str, ...]:
    texts = [text for spec in all_specs() for text in grammar.all_texts(spec)]
    return tuple(sorted({word for text in (*texts, *TEMPLATE_WORDS) for word in _WORD.findall(text)}))
