"""Persons as an installed spaCy pipeline sees them: optional, since no pipeline comes along with any package here."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from typing import Any

from medvlm.errors import InputError, MissingExtraError

LABELS = ("PERSON", "PER")
"""What pipelines of spaCy call persons: English, and the other languages."""
_SLICE = 50_000
"""Characters read at once: spaCy refuses texts above a million, and its memory grows with their length."""
_OVERLAP = 200


@functools.cache
def load(name: str) -> Any:
    """Return the installed pipeline `name` with only what finding persons needs. Nothing is downloaded.

    Raises:
        MissingExtraError: spaCy is not installed.
        InputError: the pipeline is not installed, or knows no persons.
    """
    if importlib.util.find_spec("spacy") is None:
        raise MissingExtraError("finding persons by a spaCy pipeline", "clinical")
    import spacy

    if name not in spacy.util.get_installed_models():
        installed = ", ".join(sorted(spacy.util.get_installed_models())) or "none"
        raise InputError(f"{name}: no installed spaCy pipeline (installed: {installed}); see: python -m spacy download")
    pipeline = spacy.load(name, exclude=["parser", "lemmatizer", "attribute_ruler", "tagger"])
    if "ner" not in pipeline.pipe_names or not set(LABELS) & set(pipeline.get_pipe("ner").labels):
        raise InputError(f"{name}: this spaCy pipeline knows no persons; choose one with PERSON among its entities")
    return pipeline


def find(text: str, name: str) -> Iterator[tuple[int, int]]:
    """Yield where persons stand."""
    pipeline = load(name)
    for start in range(0, max(len(text), 1), _SLICE - _OVERLAP):
        for entity in pipeline(text[start : start + _SLICE]).ents:
            if entity.label_ in LABELS:
                yield start + entity.start_char, start + entity.end_char
