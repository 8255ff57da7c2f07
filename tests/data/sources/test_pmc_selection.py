"""Which articles and figures `PmcOptions` takes, what it costs the others, and which media the reader would open."""

from __future__ import annotations

import datetime
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from medvlm.data.request import fingerprint
from medvlm.data.sample import Credit, Reject, Sample
from medvlm.data.sources.pmc import MemoryPackage, PmcOptions, PmcSource, read_package
from medvlm.data.sources.pmc.options import KINDS
from medvlm.data.sources.pmc.reader import wanted
from medvlm.errors import UsageError

LINKS = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
CC = "http://creativecommons.org/licenses"


def png() -> bytes:
    file = io.BytesIO()
    PILImage.new("L", (9, 7)).save(file, "PNG")
    return file.getvalue()


def article(body: str, meta: str = "", kind: str = "research-article") -> bytes:
    front = f"<front><article-meta><article-id pub-id-type='pmc'>7</article-id>{meta}</article-meta></front>"
    return f"<article {LINKS} article-type='{kind}'>{front}<body>{body}</body></article>".encode()


def graphic(name: str) -> str:
    return f'<graphic xlink:href="{name}.png"/>'


def captioned(tag: str, name: str, text: str = "") -> str:
    caption = f"<label>{tag}</label><caption><p>{text or name}.</p></caption>"
    return f'<{tag} id="{name}">{caption}{graphic(name)}</{tag}>'


BODY = (
    captioned("fig", "f1")
    + captioned("supplementary-material", "s1")
    + captioned("table-wrap", "t1")
    + f'<table-wrap id="t2">{graphic("t2")}</table-wrap>'
    + f"<disp-formula id='e1'>{graphic('e1')}</disp-formula>"
    + f"<disp-formula-group id='e2'><caption><p>e2.</p></caption>{graphic('e2')}</disp-formula-group>"
    + f"<p>{graphic('g1')}</p>"
    + '<p><graphic id="g2" xlink:href="g2.png"><caption><p>g2.</p></caption></graphic></p>'
    + "<table-wrap id='t3'><caption><p>Cells.</p></caption><table><tr><td>"
    + f"{graphic('c1')}</td><td>x</td></tr></table></table-wrap>"
    + "<p><inline-graphic xlink:href='i1.png'/></p>"
)
NAMES = ("f1", "s1", "t1", "t2", "e1", "e2", "g1", "g2", "c1", "i1")


def read(options: PmcOptions, data: bytes = article(BODY)) -> tuple[dict[str, str | None], dict[str, str]]:
    """Return file -> kind of the samples, and file -> reason of the others."""
    files = {"a.nxml": data, **{f"{name}.png": png() for name in NAMES}}
    items = list(read_package(MemoryPackage("m", files), "pmc", options))
    samples = {i.file_name[:2]: i.kind for i in items if isinstance(i, Sample)}
    return samples, {i.detail[:2]: i.reason for i in items if isinstance(i, Reject)}


def test_every_kind_of_picture_is_a_sample_where_asked_for_and_has_a_caption() -> None:
    samples, rejects = read(PmcOptions(kinds=KINDS))
    assert samples == {
        "f1": "figure",
        "s1": "supplementary",
        "t1": "table",
        "e2": "equation",
        "g2": "graphic",
    }
    assert rejects == {
        "t2": "no caption",
        "e1": "no caption",
        "g1": "no caption",
        "c1": "graphic in a table cell",
        "i1": "inline graphic",
    }


def test_kinds_that_are_not_asked_for_are_counted() -> None:
    samples, rejects = read(PmcOptions())
    assert samples == {"f1": "figure", "s1": "supplementary"}
    assert rejects == {
        "t1": "table image",
        "t2": "table image",
        "e1": "equation image",
        "e2": "equation image",
        "g1": "graphic outside a figure",
        "g2": "graphic outside a figure",
        "c1": "graphic in a table cell",
        "i1": "inline graphic",
    }
    samples, rejects = read(PmcOptions(kinds=("table",)))
    assert samples == {"t1": "table"}
    assert (rejects["f1"], rejects["s1"]) == ("figure not asked for", "supplementary figure not asked for")


def test_ids_do_not_depend_on_the_kinds() -> None:
    body = captioned("table-wrap", "t1").replace(' id="t1"', "") + captioned("fig", "f1").replace(' id="f1"', "")
    files = {"a.nxml": article(body), "f1.png": png(), "t1.png": png()}
    ids = [
        [i.id for i in read_package(MemoryPackage("m", files), "pmc", PmcOptions(kinds=kinds)) if isinstance(i, Sample)]
        for kinds in (("figure",), KINDS)
    ]
    assert ids == [["PMC7/fig-1/-/caption/0"], ["PMC7/table-1/-/caption/0", "PMC7/fig-1/-/caption/0"]]


def test_alternatives_outside_a_figure_are_one_picture() -> None:
    caption = "<caption><p>Scheme.</p></caption>"
    forms = f'<graphic xlink:href="g1.tif">{caption}</graphic><graphic xlink:href="g1.png"/>'
    samples, rejects = read(PmcOptions(kinds=("graphic",)), article(f"<p><alternatives>{forms}</alternatives></p>"))
    assert (samples, rejects) == ({"g1": "graphic"}, {})
    samples, rejects = read(PmcOptions(), article(f"<p><alternatives>{forms}</alternatives></p>"))
    assert (samples, rejects) == ({}, {"g1": "graphic outside a figure"})


def test_a_table_has_its_own_rights_and_mentions() -> None:
    owned = captioned("table-wrap", "t1").replace(
        "</table-wrap>",
        "<permissions><copyright-statement>© 2001 Elsevier</copyright-statement></permissions></table-wrap>",
    )
    noted = captioned("table-wrap", "t2").replace(
        "</table-wrap>", "<table-wrap-foot><p>Reproduced with permission from X.</p></table-wrap-foot></table-wrap>"
    )
    said = "<p>See <xref rid='t1'>Tables 1</xref>–<xref rid='t2'>2</xref>.</p>"
    meta = f"<permissions><license xlink:href='{CC}/by/4.0/'/></permissions>"
    files = {"a.nxml": article(said + owned + noted, meta), "t1.png": png(), "t2.png": png()}
    items = read_package(MemoryPackage("m", files), "pmc", PmcOptions(kinds=("table",)))
    samples = [item for item in items if isinstance(item, Sample)]
    assert [(s.license, s.license_scope, s.third_party) for s in samples] == [(None, "figure", True)] * 2
    assert [s.mentions for s in samples] == [["See Tables 1–2."]] * 2


DATE = "<pub-date pub-type='epub'><year>2020</year></pub-date>"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"since": datetime.date(2020, 12, 31)}, None),
        ({"since": datetime.date(2021, 1, 1)}, "older than --since"),
        ({"article_types": ("research-article", "case-report")}, None),
        ({"article_types": ("case-report",)}, "article type not asked for"),
    ],
)
def test_articles_that_are_not_asked_for(options: dict[str, Any], reason: str | None) -> None:
    files = {"a.nxml": article(captioned("fig", "f1"), DATE), "f1.png": png()}
    items = list(read_package(MemoryPackage("m", files), "pmc", PmcOptions(**options)))
    assert [i.reason for i in items if isinstance(i, Reject)] == ([reason] if reason else [])
    assert len([i for i in items if isinstance(i, Sample)]) == (reason is None)
    assert wanted(files["a.nxml"], ["f1.png"], "any", PmcOptions(**options)) == ([] if reason else ["f1.png"])


def test_an_article_without_a_date_is_not_certainly_old() -> None:
    files = {"a.nxml": article(captioned("fig", "f1")), "f1.png": png()}
    items = read_package(MemoryPackage("m", files), "pmc", PmcOptions(since=datetime.date(2030, 1, 1)))
    assert any(isinstance(item, Sample) for item in items)


def test_one_credit_for_each_article() -> None:
    two = article("", "<title-group><article-title>Two</article-title></title-group>").replace(b">7<", b">8<")
    files = {"a.nxml": article(BODY), "b.nxml": two, "c.nxml": two}
    credits = [i for i in read_package(MemoryPackage("m", files), "pmc") if isinstance(i, Credit)]
    assert [(c.group, c.title) for c in credits] == [("PMC7", ""), ("PMC8", "Two")]


@pytest.mark.parametrize(
    ("limit", "names"),
    [(None, "1.1 1.2 2.1 3.1"), (0, ""), (1, "1.1 1.2"), (2, "1.1 1.2 2.1"), (9, "1.1 1.2 2.1 3.1")],
)
def test_limit_takes_the_first_by_name_and_counts_no_older_versions(
    tmp_path: Path, limit: int | None, names: str
) -> None:
    for name in ("PMC1.1", "PMC1.2", "PMC2.1", "PMC3.1"):
        (tmp_path / f"{name}.xml").write_bytes(article("").replace(b">7<", f">{name[3]}<".encode()))
    units = PmcSource([tmp_path], PmcOptions(limit=limit)).units()
    assert [u.name.rpartition("/PMC")[2].removesuffix(".xml") for u in units] == names.split()


def groups(source: PmcSource) -> list[str]:
    return [item.group for unit in source.units() for item in source.read(unit) if isinstance(item, Credit)]


def test_limit_leaves_the_older_version_of_a_damaged_article(tmp_path: Path) -> None:
    (tmp_path / "PMC7.1.xml").write_bytes(article(captioned("fig", "f1")))
    (tmp_path / "PMC7.2.xml").write_bytes(b"<article><front>")
    items = [i for s in [PmcSource([tmp_path], PmcOptions(limit=1))] for unit in s.units() for i in s.read(unit)]
    assert "PMC7" in [item.group for item in items if isinstance(item, Credit)]


def test_exchanged_folders_are_another_input(tmp_path: Path) -> None:
    for version, figure in (("1", "f1"), ("2", "f2")):
        (tmp_path / f"in/PMC7.{version}").mkdir(parents=True)
        (tmp_path / f"in/PMC7.{version}/a.xml").write_bytes(article(captioned("fig", figure)))

    def now(folder: Path) -> str:
        return fingerprint("pmc", {"license": "any"}, PmcSource([folder]).describe())

    before = now(tmp_path / "in")
    folder = (tmp_path / "in").rename(tmp_path / "moved")
    assert now(folder) == before
    for name, other in (("PMC7.1", "x"), ("PMC7.2", "PMC7.1"), ("x", "PMC7.2")):
        (folder / name).rename(folder / other)
    assert now(folder) != before


def test_limit_counts_the_articles_of_small_archives(tmp_path: Path) -> None:
    def packed(name: str, *numbers: str) -> None:
        with tarfile.open(tmp_path / name, "w:gz") as tar:
            for number in numbers:
                data = article("").replace(b">7<", f">{number[0]}<".encode())
                info = tarfile.TarInfo(f"PMC{number}/PMC{number}.xml")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

    packed("a.tar.gz", "1.1", "1.2")
    packed("b.tar.gz", "2.1", "3.1", "3.2", "4.1")
    packed("c.tar.gz", "5.1")
    found = {n: groups(PmcSource([tmp_path], PmcOptions(limit=n))) for n in range(7)}
    every = [f"PMC{n}" for n in range(1, 6)]
    assert found == {n: every[:n] for n in range(7)}
    (tmp_path / "d.tar").write_bytes(b"no tar")
    assert len(PmcSource([tmp_path], PmcOptions(limit=9)).units()) == 4
    whole = [u.name.rpartition("/")[2] for u in PmcSource([tmp_path], PmcOptions(limit=4)).units()]
    assert whole == ["a.tar.gz", "b.tar.gz"]


def test_wanted_names_what_reading_opens_and_nothing_else() -> None:
    class Watched(MemoryPackage):
        def read(self, name: str) -> bytes:
            opened.append(name)
            return super().read(name)

    parts = '<alternatives><graphic xlink:href="g1.tif"/><graphic xlink:href="g1.png"/></alternatives>'
    closed = captioned("fig", "f1").replace("f1.", "f1. © 2001 Elsevier.", 1)
    body = (
        closed + captioned("fig", "s1") + f'<fig id="x"><caption><p>x</p></caption>{parts}</fig>' + captioned("p", "t1")
    )
    data = article(body, f"<permissions><license xlink:href='{CC}/by/4.0/'/></permissions>")
    files = {"a.nxml": data, **{f"{name}.png": png() for name in NAMES}}
    names = [name for name in files if name.endswith(".png")]
    found = wanted(data, names, "commercial")
    assert found == ["s1.png", "g1.png"]
    for policy in ("any", "commercial"):
        found = wanted(data, names, policy)
        opened: list[str] = []
        given = {"a.nxml": data, **{name: files[name] for name in found}}
        items = list(read_package(Watched("m", given), "pmc"))
        assert set(opened) - {"a.nxml"} == set(found)
        assert {i.file_name for i in items if isinstance(i, Sample)} == set(found)


def test_wanted_by_the_license_of_the_metadata() -> None:
    data = article(captioned("fig", "f1"))
    assert wanted(data, ["f1.png"], "commercial") == []
    assert wanted(data, ["f1.png"], "commercial", article_license="CC BY") == ["f1.png"]
    assert wanted(data, ["f1.png"], "commercial", article_license="CC BY-NC") == []
    assert wanted(data, ["f1.png"], "any", article_license="TDM") == ["f1.png"]
    assert wanted(b"<article", ["f1.png"], "any") == wanted(b"", [], "any") == []
    with pytest.raises(UsageError):
        wanted(data, ["f1.png"], "no license")
