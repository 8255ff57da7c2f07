"""All shared articles, figure by figure, against `second_reader`: captions, labels, images, and nothing lost."""

from __future__ import annotations

import collections
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from second_reader import SecondArticle, SecondFigure, fits, second_reading

from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.pmc import MemoryPackage, PmcOptions, jats, read_package, xml

pytestmark = pytest.mark.realdata

OF_FIGURES = ("translated copy", "figure without image", "caption in another language", "supplement is no image")
"""Reasons that are given once for a figure or supplement; all others are given for each picture."""


def articles(realdata: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(realdata.glob("jats_*/**/*")):
        if path.suffix in (".xml", ".nxml"):
            yield path.name, path.read_bytes()
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith(".xml"):
                        yield name, archive.read(name)


def references(pictures: list[set[str]]) -> set[str]:
    return {href for picture in pictures for href in picture}


def pairs(name: str, data: bytes) -> Iterator[tuple[jats.Figure, SecondFigure]]:
    """Yield each figure with a caption and a picture as the package reads it, and as the second reading does."""
    (document,) = xml.read_documents(data)
    figures = iter(jats.read_article(document).figures)
    for second in second_reading(data).figures:
        if second.pictures and second.caption.words and not second.translated:
            yield next(figures), second
    assert next(figures, None) is None, name


def test_each_figure_has_the_caption_label_and_images_of_the_second_reading(realdata: Path) -> None:
    count: collections.Counter[str] = collections.Counter()
    for name, data in articles(realdata):
        for figure, second in pairs(name, data):
            assert figure.id == second.id, name
            assert fits(figure.caption, second.caption), (name, second.id, figure.caption, second.caption.words)
            assert (figure.label or "") == second.label, (name, second.id)
            assert {h for p in figure.pictures for h in p.hrefs} == references(second.pictures), (name, second.id)
            assert len(figure.pictures) == len(second.pictures), (name, second.id)
            count["figures"] += 1
            count["formulas"] += len(second.caption.formulas)
            count["scripts"] += "^" in second.caption.words or "_" in second.caption.words
            count["alternatives"] += any(len(picture) > 1 for picture in second.pictures)
    assert count["figures"] >= 500
    assert min(count["formulas"], count["scripts"], count["alternatives"]) >= 20, count


def test_mentions_are_the_paragraphs_that_name_a_figure_and_those_of_ranges(realdata: Path) -> None:
    count: collections.Counter[str] = collections.Counter()
    for name, data in articles(realdata):
        citing = second_reading(data).citing
        for figure, second in pairs(name, data):
            named = [text for rid in (second.id, second.group) for text in citing.get(rid or "", [])]
            for text in named:
                assert any(fits(mention, text) for mention in figure.mentions), (name, figure.id, text.words)
            count["named"] += len(named)
            for mention in figure.mentions:
                if not any(fits(mention, text) for text in named):
                    assert re.search(r"\d\s?[-\u2010-\u2015]\s?S?\d", mention), (name, figure.id, mention)
                    count["by a range"] += 1
    assert count["named"] >= 1000
    assert count["by a range"] >= 20


def figure_reason(second: SecondFigure) -> str | None:
    """Return the reason that is given for a whole figure, None where its pictures have theirs."""
    if second.translated:
        return "translated copy"
    if second.pictures:
        return None
    return "caption in another language" if second.other_language else "figure without image"


def expected_counts(second: SecondArticle) -> tuple[collections.Counter[str], int]:
    """Return how often each reason for a whole figure must be given, and how many pictures must be told of."""
    reasons = collections.Counter(reason for f in second.figures if (reason := figure_reason(f)))
    if second.no_images:
        reasons["supplement is no image"] = second.no_images
    return reasons, second.outside + sum(len(f.pictures) for f in second.figures if not f.translated)


@pytest.mark.parametrize("kinds", [("figure", "supplementary"), ("figure", "supplementary", "table", "graphic")])
def test_every_figure_and_picture_becomes_a_sample_or_a_counted_reason(realdata: Path, kinds: tuple[str, ...]) -> None:
    total = 0
    for name, data in articles(realdata):
        items = list(read_package(MemoryPackage("m", {"a.nxml": data}), "pmc", PmcOptions(kinds=kinds)))
        rejects = [item for item in items if isinstance(item, Reject)]
        assert not any(isinstance(item, Sample) for item in items)
        reasons = collections.Counter(r.reason for r in rejects)
        of_figures, pictures = expected_counts(second_reading(data))
        assert {r: n for r, n in reasons.items() if r in OF_FIGURES} == of_figures, name
        assert sum(n for reason, n in reasons.items() if reason not in OF_FIGURES) == pictures, (name, reasons)
        total += pictures + of_figures.total()
    assert total >= 900
