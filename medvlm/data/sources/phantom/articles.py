"""Synthetic articles in true JATS packages: an XML file, its pictures, and the known facts as a supplementary file.

Every article says that it is synthetic, in its journal, title, abstract and captions. DOIs have the prefix 10.5555,
which Crossref keeps for tests; there is no PMCID, so that no number can be taken for a real article's.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import random
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from medvlm.data.sources.phantom import grammar
from medvlm.data.sources.phantom.draw import draw, encode, finding_mask
from medvlm.data.sources.phantom.spec import Spec, random_spec
from medvlm.io import atomic_write

VERSION = "2"
"""Raised whenever the same seed gives other articles."""
JOURNAL = "Synthetic Phantom Radiology (not a real journal)"
ANNOTATIONS = "annotations.jsonl"
YEAR = 2026
FIGURES = (4, 6)
"""Fewest and most figures of an article."""
REPORT_SHARE = 0.5
OWNED_SHARE = 0.2
"""Share of articles with one figure whose rights somebody else has reserved."""

_CC = "https://creativecommons.org/"
# SPDX id -> (share of articles, address, words). Most are free for commercial use, as under PMC's open access filter.
LICENSES = {
    "CC-BY-4.0": (
        0.75,
        f"{_CC}licenses/by/4.0/",
        "This is a synthetic article distributed under the Creative Commons Attribution 4.0 International License.",
    ),
    "CC0-1.0": (
        0.15,
        f"{_CC}publicdomain/zero/1.0/",
        "This is a synthetic article dedicated to the public domain under Creative Commons CC0 1.0.",
    ),
    "CC-BY-NC-4.0": (
        0.10,
        f"{_CC}licenses/by-nc/4.0/",
        "This is a synthetic article distributed under the Creative Commons Attribution-NonCommercial 4.0 License.",
    ),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One figure of an article: its facts, texts and picture."""

    number: int
    spec: Spec
    title: str
    body: str
    file_name: str
    picture: bytes
    owned: bool
    """Whether the figure has its own "all rights reserved"."""
    annotation: dict[str, Any]

    @property
    def id(self) -> str:
        """Return the id of the `fig` element."""
        return f"fig{self.number}"


def article_name(seed: int, index: int) -> str:
    """Return the name of a package, which is also that of its XML file."""
    return f"phantom-{seed}-{index:04d}"


def article_doi(seed: int, index: int) -> str:
    """Return an article's DOI, which is its `Sample.group`."""
    return f"10.5555/medvlm.phantom.{seed}.{index:04d}"


def build_article(seed: int, index: int) -> tuple[str, dict[str, bytes]]:
    """Return the name of article number `index` and its files by name: XML, pictures, annotations."""
    rng = random.Random(f"article:{seed}:{index}")
    license_id = rng.choices(list(LICENSES), [share for share, _, _ in LICENSES.values()])[0]
    count = rng.randint(*FIGURES)
    owned = rng.randint(1, count) if rng.random() < OWNED_SHARE else 0
    name = article_name(seed, index)
    figures = [_figure(seed, index, number, number == owned, rng) for number in range(1, count + 1)]
    files = {f"{name}.nxml": _xml(seed, index, license_id, figures, bare=rng.random() < 0.5).encode()}
    files |= {figure.file_name: figure.picture for figure in figures}
    lines = [json.dumps(figure.annotation, ensure_ascii=False) for figure in figures]
    files[ANNOTATIONS] = ("\n".join(lines) + "\n").encode()
    return name, files


def write_package(name: str, files: Mapping[str, bytes], path: Path) -> None:
    """Write a package as .tar.gz with one folder `name`, the same bytes for the same files."""
    with (
        atomic_write(path, "wb") as out,
        gzip.GzipFile("", "wb", fileobj=out, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for member, data in sorted(files.items()):
            info = tarfile.TarInfo(f"{name}/{member}")
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))


def _figure(seed: int, index: int, number: int, owned: bool, rng: random.Random) -> Figure:
    """Make one figure with its questions and, for some, its report."""
    spec = random_spec(rng)
    drawing = draw(spec, _stream(seed, index, number))
    tasks = [_question(asked) for asked in (grammar.presence_question(spec, rng), grammar.further_question(spec, rng))]
    if rng.random() < REPORT_SHARE:
        tasks.append({"task": "report", "prompt": "", "target": grammar.report(spec, rng)})
    annotation = {
        "figure_id": f"fig{number}",
        "synthetic": True,
        "organ": "chest",
        **dataclasses.asdict(spec),
        "finding_box": drawing.finding_box and [round(value, 4) for value in drawing.finding_box],
        "tasks": tasks,
    }
    return Figure(
        number=number,
        spec=spec,
        title=grammar.caption_title(spec, rng),
        body=grammar.caption_body(spec, rng),
        file_name=f"{article_name(seed, index)}-g{number:03d}.jpg",
        picture=encode(drawing.pixels),
        owned=owned,
        annotation=annotation,
    )


def _stream(seed: int, index: int, number: int) -> np.random.Generator:
    """Return the chance that draws a figure; its first word keeps these pictures apart from the base model's."""
    return np.random.default_rng([0x5A3D, seed, index, number])


def finding_masks(seed: int, index: int) -> dict[str, NDArray[np.bool_] | None]:
    """Return figure id -> where its finding lies [H, W], None where it has none, of article number `index`."""
    _, files = build_article(seed, index)
    found = {}
    for line in files[ANNOTATIONS].splitlines():
        note = json.loads(line)
        spec = Spec(**{part.name: note[part.name] for part in dataclasses.fields(Spec)})
        number = int(note["figure_id"].removeprefix("fig"))
        found[note["figure_id"]] = finding_mask(spec, _stream(seed, index, number))
    return found


def _question(question: grammar.Question) -> dict[str, Any]:
    return {
        "task": "vqa",
        "prompt": question.prompt,
        "target": question.answer,
        "question_type": question.question_type,
        "answer_type": question.answer_type,
        "choices": question.choices,
    }


_ARTICLE = """\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) Journal Archiving and Interchange DTD v1.3 20210610//EN" \
"JATS-archivearticle1-3.dtd">
<article xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:ali="http://www.niso.org/schemas/ali/1.0/" \
article-type="research-article" dtd-version="1.3" xml:lang="en">
<front>
<journal-meta>
<journal-id journal-id-type="publisher-id">synthetic-phantom-radiology</journal-id>
<journal-title-group><journal-title>{journal}</journal-title></journal-title-group>
<publisher><publisher-name>medvlm (synthetic)</publisher-name></publisher>
</journal-meta>
<article-meta>
<article-id pub-id-type="publisher-id">{name}</article-id>
<article-id pub-id-type="doi">{doi}</article-id>
<article-categories><subj-group><subject>Synthetic data</subject></subj-group></article-categories>
<title-group><article-title>Synthetic article {index}: chest phantoms drawn by code</article-title></title-group>
<contrib-group><contrib contrib-type="author"><collab>The phantom generator of medvlm</collab></contrib></contrib-group>
<pub-date publication-format="electronic"><year>{year}</year></pub-date>
<permissions>
<copyright-year>{year}</copyright-year>
<license license-type="open-access" xlink:href="{address}"><ali:license_ref>{address}</ali:license_ref>\
<license-p>{words}</license-p></license>
</permissions>
<abstract><p>Nothing in this article is real: no patient, no image, no author. Code drew it from a seed.</p></abstract>
</article-meta>
</front>
<body>
<sec id="s1"><title>Methods</title>
<p>Each phantom has a finding that is known because the code put it there.</p>
</sec>
<sec id="s2"><title>Results</title>
{results}
</sec>
</body>
<back>
<sec sec-type="supplementary-material"><title>Supplementary material</title>
<supplementary-material id="supp1" xlink:href="{annotations}" mimetype="application" mime-subtype="jsonl">\
<caption><p>Known findings, questions with answers, and reports, keyed by figure.</p></caption>\
</supplementary-material>
</sec>
</back>
</article>
"""


def _xml(seed: int, index: int, license_id: str, figures: list[Figure], bare: bool) -> str:
    """Return the article's XML; `bare` names pictures without extension, as older packages of PMC do."""
    _, address, words = LICENSES[license_id]
    return _ARTICLE.format(
        journal=escape(JOURNAL),
        name=article_name(seed, index),
        doi=article_doi(seed, index),
        index=index,
        year=YEAR,
        address=address,
        words=escape(words),
        results="\n".join(_results(figures, bare)),
        annotations=ANNOTATIONS,
    )


def _results(figures: list[Figure], bare: bool) -> list[str]:
    """Return paragraphs that cite the figures, two to a paragraph, each followed by the figures."""
    parts = []
    for start in range(0, len(figures), 2):
        pair = figures[start : start + 2]
        cited = " and ".join(f'<xref ref-type="fig" rid="{figure.id}">Figure {figure.number}</xref>' for figure in pair)
        shown = "is one synthetic phantom" if len(pair) == 1 else "are two synthetic phantoms"
        parts.append(f"<p>{cited} {shown}.</p>")
        parts += [_fig(figure, bare) for figure in pair]
    return parts


def _fig(figure: Figure, bare: bool) -> str:
    """Return one `fig` element."""
    owner = "<copyright-holder>Another synthetic publisher</copyright-holder>"
    notice = f"<copyright-statement>© {YEAR} Another synthetic publisher. All rights reserved.</copyright-statement>"
    rights = f"<permissions>{notice}{owner}</permissions>" if figure.owned else ""
    href = figure.file_name.removesuffix(".jpg") if bare else figure.file_name
    return (
        f'<fig id="{figure.id}"><label>Figure {figure.number}</label>'
        f"<caption><title>{escape(figure.title)}</title><p>{escape(figure.body)}</p></caption>"
        f'<graphic xlink:href="{href}" mimetype="image" mime-subtype="jpeg"/>{rights}</fig>'
    )
