"""What made a picture (radiograph, CT, histology, plot, ...), told by its caption, else by keywords or its looks.

Precision comes first: where the words are weak or at odds, the answer is None. Every answer names its evidence.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medvlm.data.figures import cues, pixels
from medvlm.data.figures.captions import split_panels
from medvlm.data.figures.cues import Cue
from medvlm.errors import UsageError
from medvlm.registry import nearest

if TYPE_CHECKING:
    from medvlm.data.look import Look

GROUPS: dict[str, tuple[str, ...]] = {
    "radiology": (
        "radiograph",
        "ct",
        "mri",
        "ultrasound",
        "pet",
        "nuclear",
        "mammography",
        "fluoroscopy",
        "angiography",
    ),
    "microscopy": ("histology", "fluorescence", "electron_microscopy", "light_microscopy"),
    "visible_light": ("endoscopy", "fundus", "oct", "clinical_photo", "photo"),
    "drawn": ("plot", "diagram", "map", "table"),
}
"""Names that stand for several modalities; "clinical" for all that are taken of patients or their tissue."""

MODALITIES = (*(name for group in GROUPS.values() for name in group), "gel", "mixed")
"""All that `detect` can answer, "mixed" for panels of several kinds."""

GROUPS["clinical"] = (*GROUPS["radiology"], "histology", "endoscopy", "fundus", "oct", "clinical_photo")

_ALIASES = {
    "x-ray": "radiograph",
    "xray": "radiograph",
    "us": "ultrasound",
    "mr": "mri",
    "pathology": "histology",
    "histopathology": "histology",
    "spect": "nuclear",
    "scintigraphy": "nuclear",
    "photograph": "photo",
    "electron microscopy": "electron_microscopy",
}
_SENTENCE = re.compile(r"(?<=[.;!?])\s+(?=[^a-z\s])|\n")
_ENOUGH = 2
_MAJORITY = 0.6
_KNOWN = 0.5
# Panels of one study go on with what the first shows, without naming it again.
_SERIES = (*GROUPS["radiology"], *GROUPS["microscopy"], *GROUPS["visible_light"])


def resolve(names: Sequence[str]) -> tuple[str, ...]:
    """Return the modalities that names, groups and common other names stand for, in the order of `MODALITIES`.

    Raises:
        UsageError: a name is unknown; the message suggests the nearest.
    """
    asked: set[str] = set()
    known = (*MODALITIES, *GROUPS)
    for name in names:
        plain = _ALIASES.get(name.strip().lower(), name.strip().lower().replace("-", "_"))
        if plain not in known:
            raise UsageError(f'unknown modality "{name}"{nearest(plain, known)}; known: {", ".join(known)}')
        asked.update(GROUPS.get(plain, (plain,)))
    return tuple(name for name in MODALITIES if name in asked)


def detect(
    caption: str, mentions: Sequence[str] = (), keywords: Sequence[str] = (), look: Look | None = None
) -> tuple[str | None, str | None]:
    """Return the modality (one of `MODALITIES`) and what told it, or (None, None).

    The caption is asked first, panel by panel where it marks panels; then the sentences of `mentions` that point at a
    figure; then `keywords`, which count only for a picture that can be a scan. `look` vetoes scans
    that are plainly drawn and plots without a white ground.

    Measured on the labelled figures of `tests/data/figures/README.md`: 71 of 100 answers are right, and 41 of 100
    figures of a known kind get theirs. Clinical pictures are all but absent there.
    """
    traits = pixels.traits(look.thumb) if look is not None else None
    for source, told in (
        ("caption", _of_caption(caption)),
        ("mention", _of_mentions(mentions)),
        ("keyword", _of_keywords(keywords, traits)),
    ):
        if told is not None:
            return _checked(told, source, traits)
    return None, None


def _checked(told: tuple[str, str], source: str, traits: pixels.Traits | None) -> tuple[str | None, str | None]:
    """Return the answer unless the picture speaks against it."""
    modality, words = told
    if traits is not None and traits.drawn and modality in (*GROUPS["radiology"], "fluorescence"):
        return None, None
    if traits is not None and traits.filled and modality in ("plot", "diagram", "table"):
        return None, None
    return modality, f"{source}: {words}"


def _of_caption(caption: str) -> tuple[str, str] | None:
    """Return class and words for a caption: the class of most of its panels where it marks them, else of the whole."""
    split = split_panels(caption)
    if split is None:
        return _of_text(caption)
    shared = _of_text(split.lead)
    told = [(len(labels), answer) for labels, text in split.parts if (answer := _of_text(text) or shared)]
    if not told:
        return _of_text(caption)
    counts: collections.Counter[str] = collections.Counter()
    for panels, (name, _) in told:
        counts[name] += panels
    name, count = counts.most_common(1)[0]
    if count / counts.total() < _MAJORITY:
        return "mixed", ", ".join(list(dict.fromkeys(words for _, (_, words) in told))[:6])
    if count / sum(len(labels) for labels, _ in split.parts) < _KNOWN and name not in _SERIES:
        return None
    return name, next(words for _, (other, words) in told if other == name)


def _of_text(text: str) -> tuple[str, str] | None:
    """Return the class whose cues weigh most in a text, sentence by sentence; None where none stands out."""
    weights: collections.Counter[str] = collections.Counter()
    firsts: dict[str, Cue] = {}
    for sentence in _SENTENCE.split(text):
        found = cues.find(sentence)
        for cue in found:
            best = firsts.get(cue.modality)
            firsts[cue.modality] = cue if best is None or cue.strength > best.strength else best
            weights[cue.modality] += cue.strength
        # What a sentence names first is what it is about: "violin plot of MRI volumes".
        head = next((cue for cue in found if cue.strength >= cues.NAMES_IT), None)
        if head:
            weights[head.modality] += cues.NAMES_IT
    if not weights:
        return None
    (name, weight), *rest = weights.most_common()
    if weight < _ENOUGH or (rest and weight / (weight + rest[0][1]) < _MAJORITY):
        return None
    if firsts[name].strength < _ENOUGH:  # many weak words are no strong one
        return None
    return name, firsts[name].words


def _of_mentions(mentions: Sequence[str]) -> tuple[str, str] | None:
    """Return the one class that sentences with a reference to a figure name outright."""
    found = [
        cue
        for text in mentions
        for sentence in _SENTENCE.split(text)
        if re.search(r"\bfig", sentence, re.IGNORECASE)
        for cue in cues.find(sentence)
        if cue.strength >= cues.NAMES_IT
    ]
    if len({cue.modality for cue in found}) != 1:
        return None
    return found[0].modality, found[0].words


def _of_keywords(keywords: Sequence[str], traits: pixels.Traits | None) -> tuple[str, str] | None:
    """Return the one radiological class that keywords name, where the picture can be a scan."""
    if traits is None or not traits.scan:
        return None
    found = [cue for word in keywords for cue in cues.find(word) if cue.modality in GROUPS["radiology"]]
    if len({cue.modality for cue in found}) != 1:
        return None
    return found[0].modality, found[0].words
