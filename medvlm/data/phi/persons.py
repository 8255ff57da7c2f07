"""Persons as an installed spaCy pipeline sees them: optional, since no pipeline comes along with any package here."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.errors import InputError, MissingExtraError

LABELS = ("PERSON", "PER")
"""What pipelines of spaCy call persons: English, and the other languages."""
_NOT_NEEDED = ["parser", "tagger", "lemmatizer", "attribute_ruler"]
_SLICE = 50_000
"""Characters read at once: spaCy refuses texts above a million, and its memory grows with their length."""
_OVERLAP = 200


@functools.cache
def load(name: str) -> Any:
    """Return the installed pipeline `name`, or the one in folder `name`. Nothing is downloaded.

    Raises:
        MissingExtraError: spaCy is not installed.
        InputError: there is no such pipeline, or it knows no persons.
    """
    if importlib.util.find_spec("spacy") is None:
        raise MissingExtraError("finding persons by a spaCy pipeline", "clinical")
    import spacy

    installed = sorted(spacy.util.get_installed_models())
    if name not in installed and not (Path(name) / "meta.json").is_file():
        raise InputError(
            f"{name}: no spaCy pipeline of this name is installed (installed: {', '.join(installed) or 'none'}), "
            "nor is it the folder of one"
        )
    try:
        pipeline = spacy.load(name, exclude=_NOT_NEEDED)
    except (OSError, ValueError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: spaCy cannot load this pipeline: {first}") from None
    if not any(set(LABELS) & set(labels) for labels in pipeline.pipe_labels.values()):
        raise InputError(f"{name}: this spaCy pipeline knows no persons; choose one with PERSON among its entities")
    return pipeline


def find(text: str, name: str) -> Iterator[tuple[int, int]]:
    """Yield where persons stand."""
    pipeline = load(name)
    for start in range(0, max(len(text), 1), _SLICE - _OVERLAP):
        for entity in pipeline(text[start : start + _SLICE]).ents:
            if entity.label_ in LABELS:
                yield start + entity.start_char, start + entity.end_char
