"""The embedded sample as a source: synthetic articles through the PMC reader, or the base model's pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.base import Unit
from medvlm.data.sources.phantom import base_grammar
from medvlm.data.sources.phantom.articles import ANNOTATIONS, VERSION, article_name, build_article
from medvlm.errors import UsageError
from medvlm.io import stable_hash

SAMPLE_ARTICLES = 400
BASE_UNITS = 40
BASE_PICTURES = 100
"""Pictures of one base unit."""
KINDS = ("sample", "base")


class PhantomSource:
    """Synthetic chest phantoms with known findings.

    Args:
        inputs: must be empty: the sample is made, not read.
        seed: of everything that is drawn and worded.
        kind: "sample" for the articles that `prepare`, `finetune` and `eval` work on; "base" for the pictures on which
            the tiny base model is pre-trained.
        articles: number of units: articles of the sample, hundreds of pictures of the base.

    Raises:
        UsageError: there are inputs, or `kind` is unknown.
    """

    name = "phantom"

    def __init__(
        self, inputs: Sequence[Path | str] = (), *, seed: int = 0, kind: str = "sample", articles: int | None = None
    ) -> None:
        if inputs:
            raise UsageError(
                f"--input {inputs[0]}: the phantom source is made by code; leave --input out, or choose pmc"
            )
        if kind not in KINDS:
            raise UsageError(f'unknown kind of phantoms "{kind}"; known: {", ".join(KINDS)}')
        self.seed = seed
        self.kind = kind
        self.articles = articles if articles is not None else SAMPLE_ARTICLES if kind == "sample" else BASE_UNITS

    def describe(self) -> list[dict[str, Any]]:
        """Return one entry whose hash stands for the seed, the size and the versions that decide the bytes."""
        settings = {
            "generator": VERSION,
            "kind": self.kind,
            "seed": self.seed,
            "articles": self.articles,
            "pillow": PIL.__version__,
            "numpy": np.__version__,
        }
        what = "embedded sample" if self.kind == "sample" else "pre-training phantoms"
        units = "articles" if self.kind == "sample" else f"times {BASE_PICTURES} pictures"
        path = f"{what}, seed {self.seed}, {self.articles} {units}"
        return [{"path": path, "sha256": stable_hash(settings), "bytes": 0}]

    def units(self) -> Sequence[Unit]:
        """Return one unit for each article, or for each hundred of the base's pictures."""
        if self.kind == "sample":
            return [self._unit(article_name(self.seed, index), index) for index in range(self.articles)]
        return [self._unit(f"{base_grammar.SOURCE}-{self.seed}-{index:04d}", index) for index in range(self.articles)]

    def read(self, unit: Unit) -> Iterator[Sample | Reject]:
        """Yield the samples of one unit."""
        seed, index = (int(part) for part in unit.locator[1:])
        if unit.locator[0] == "base":
            for picture in range(index * BASE_PICTURES, (index + 1) * BASE_PICTURES):
                yield from base_grammar.base_samples(seed, picture)
            return
        yield from read_article(seed, index)

    def card(self) -> dict[str, Any]:
        """Return facts for the dataset card."""
        return {
            "title": "Synthetic chest phantoms (the embedded sample of medvlm)",
            "description": (
                "Synthetic: chest radiograph and CT phantoms drawn by code from a seed, in synthetic articles, with "
                "known findings (nodule, effusion, cardiomegaly, pneumothorax, none), captions, questions with answers "
                "and reports from a grammar. No image, text or license in it belongs to a real person or publication."
            ),
            "homepage": "",
            "citation": "",
            "known_problems": [
                "Nothing learned from it holds for real patients: use it to try and to test the software only.",
                "The licenses of the synthetic articles are there to exercise the license policy.",
            ],
            "synthetic": True,
        }

    def _unit(self, name: str, index: int) -> Unit:
        return Unit(name, (self.kind, str(self.seed), str(index)))


def read_article(seed: int, index: int) -> Iterator[Sample | Reject]:
    """Build one article in memory and yield its captions, as the PMC reader reads them, with questions and reports."""
    # lxml is loaded only where an article is read: pre-training pictures need none.
    from medvlm.data.sources.pmc import MemoryPackage, read_package

    name, files = build_article(seed, index)
    notes = _annotations(files[ANNOTATIONS])
    for found in read_package(MemoryPackage(name, files), source_name=PhantomSource.name):
        note = notes.get(found.figure_id or "") if isinstance(found, Sample) else None
        if isinstance(found, Reject) or note is None:
            yield found
        else:
            yield from _with_tasks(found, note)


def _annotations(data: bytes) -> Mapping[str, dict[str, Any]]:
    """Return the lines of an annotations file by figure id."""
    lines = [json.loads(line) for line in data.splitlines()]
    return {line["figure_id"]: line for line in lines}


def _with_tasks(caption: Sample, note: Mapping[str, Any]) -> Iterator[Sample]:
    """Yield a caption with its known facts, then the figure's questions and report: same picture, group and license."""
    known = dataclasses.replace(caption, modality=note["modality"], organ=note["organ"], finding=note["finding"])
    yield known
    # An id ends in task/ordinal.
    figure = caption.id.rsplit("/", 2)[0]
    counts: dict[str, int] = {}
    for extra in note["tasks"]:
        task = extra["task"]
        ordinal = counts[task] = counts.get(task, -1) + 1
        yield dataclasses.replace(known, id=f"{figure}/{task}/{ordinal}", original_text=None, **extra)
