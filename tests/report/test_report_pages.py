"""What stands in a report, that it asks for nothing, and that no text gets out of its place."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import lxml.html
from fabricated_run import make_run, scores
from hostile_run import hostile_run
from hypothesis import given
from hypothesis import strategies as st

from medvlm.licenses import registry
from medvlm.report import html, markdown
from medvlm.report.build import build
from medvlm.report.context import read
from medvlm.report.document import (
    Block,
    Case,
    Cases,
    Code,
    Document,
    Facts,
    Section,
    Table,
    Text,
    printable,
)
from medvlm.report.write import write


def pages(root: Path) -> tuple[str, str]:
    html, text, _ = write([root])
    return html.read_text(encoding="utf-8"), text.read_text(encoding="utf-8")


def cells(page: str, caption: str) -> list[list[str]]:
    """Return the cells of the table with that caption, header first."""
    tree = lxml.html.fromstring(page)
    for table in tree.iter("table"):
        if (table.findtext("caption") or "") == caption:
            return [
                [" ".join(cell.text_content().split()) for cell in row.iter("th", "td")] for row in table.iter("tr")
            ]
    raise AssertionError(f"no table {caption}")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_scores_stand_beside_licenses(tmp_path: Path) -> None:
    page, text = pages(make_run(tmp_path))
    header, *body = cells(page, "Scores and licenses")
    assert header[:6] == ["row", "commercial use", "may share", "CIDEr", "BLEU-4", "ROUGE-L"]
    assert header[6:] == ["finding acc.", "code", "weights", "data license"]
    assert [row[0] for row in body] == [
        "this model",
        "base model, untuned",
        "best constant answer",
        "this model, blank images",
    ]
    model = dict(zip(header, body[0], strict=True))
    assert (model["BLEU-4"], model["CIDEr"], model["commercial use"]) == ("0.5200", "2.9000", "yes")
    assert model["data license"] == "CC-BY-4.0 (1,360), CC0-1.0 (240)"
    assert "| this model | yes | yes | 2.9000 | 0.5200 |" in text
    every = {row[0]: row[1:] for row in cells(page, "Every score")}
    assert every["BLEU-1"] == ["0.6100", "0.2200", "0.4100", "0.4300"]


def test_everything_a_reader_needs_is_there(tmp_path: Path) -> None:
    page, text = pages(make_run(tmp_path))
    for part in (
        "Not for clinical use",
        "Synthetic data",
        "cpu (2 threads)",
        "1.50 GiB",
        "bleu:4",
        "medvlm finetune recipes/tiny.yaml",
        "medvlm prepare pmc",
        "medvlm eval",
        "learning_rate: 0.001",
        "5.23.0",
        "license forbids commercial use",
        "No patient was imaged.",
        "groups (articles, patients or images) by split",
        "not legal advice",
        "9f9f9f9f9f9f",
    ):
        assert part in page, part
        assert part in text or part in text.replace("\\", ""), part
    assert all(entry.name in lxml.html.fromstring(page).text_content() for entry in registry.load())
    assert page.count("<svg ") == 3


def one_of(tree: lxml.html.HtmlElement, path: str) -> str:
    """Return the text of the only element there."""
    (found,) = tree.xpath(path)
    return found if isinstance(found, str) else str(found.text)


def source_of(text: str) -> str:
    """Return how a content security policy names an inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_page_asks_for_nothing_and_allows_one_style_and_one_script(tmp_path: Path) -> None:
    page, _ = pages(make_run(tmp_path))
    tree = lxml.html.fromstring(page)
    policy = one_of(tree, "//meta[@http-equiv='Content-Security-Policy']/@content").split("; ")
    assert policy == [
        "default-src 'none'",
        "img-src data:",
        f"style-src {source_of(one_of(tree, '//style'))}",
        f"script-src {source_of(one_of(tree, '//script'))}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert not tree.xpath(
        "//link | //iframe | //object | //embed | //form | //base | //@style | //@src[not(parent::img)]"
    )
    assert not tree.xpath("//@*[starts-with(name(), 'on')]")
    images = tree.xpath("//img/@src")
    assert len(images) == 12
    assert all(re.match("data:image/(webp|jpeg);base64,", source) for source in images)
    own = [link for link in tree.xpath("//a/@href") if link.startswith("#")]
    assert own
    assert set(tree.xpath("//@id")) >= {link[1:] for link in own}
    assert all(link.startswith(("#", "https://", "http://")) for link in tree.xpath("//a/@href"))
    assert "url(" not in page
    assert "@import" not in page


def test_the_page_has_a_shape_that_can_be_heard(tmp_path: Path) -> None:
    tree = lxml.html.fromstring(pages(make_run(tmp_path))[0])
    assert tree.get("lang") == "en"
    assert [len(tree.xpath(f"//{mark}")) for mark in ("main", "header", "nav", "footer", "h1")] == [1] * 5
    levels = [int(head.tag[1]) for head in tree.xpath("//h1 | //h2 | //h3 | //h4 | //h5 | //h6")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), "no level is left out"
    assert all(image.get("alt") for image in tree.xpath("//img"))
    for chart in tree.xpath("//svg"):
        assert chart.get("role") == "img"
        assert chart.findtext("title") == chart.get("aria-label") != ""
        assert chart.findtext("desc")
    for table in tree.xpath("//table"):
        assert all(cell.get("scope") == "col" for cell in table.xpath("./thead//th"))
        region = table.getparent()
        assert (region.get("role"), region.get("tabindex")) == ("region", "0")
        assert region.get("aria-label")
    assert len(set(tree.xpath("//@id"))) == len(tree.xpath("//@id"))


def test_only_web_addresses_become_links() -> None:
    cells = ["see https://a.test/x?y=1&z=(2). Or http://b.test", "javascript:alert(1)", "data:text/html,x https://"]
    table = Table(("source",), [[cell] for cell in cells], links=frozenset({0}))
    tree = lxml.html.fromstring(html.render(Document("t", [], [], [Section("s", [table])])))
    assert tree.xpath("//td//a/@href") == ["https://a.test/x?y=1&z=(2", "http://b.test"]
    assert [cell.text_content() for cell in tree.xpath("//td")] == cells


def test_intervals_are_set_apart() -> None:
    table = Table(("row", "CIDEr"), [["a", "0.412 [0.38, 0.44]"], ["b", "-"]], "c", frozenset({1}), sortable=True)
    tree = lxml.html.fromstring(html.render(Document("t", [], [], [Section("s", [table])])))
    assert tree.xpath("//span[@class='interval']/text()") == ["[0.38, 0.44]"]
    assert tree.xpath("//td")[0].text_content() == "0.412 [0.38, 0.44]"
    assert len(tree.xpath("//table[@data-sortable]")) == 1


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    page, text = pages(hostile_run(tmp_path))
    tree = lxml.html.fromstring(page)
    assert len(tree.xpath("//script")) == len(tree.xpath("//style")) == len(tree.xpath("//main")) == 1
    assert not tree.xpath("//base | //b | //i | //textarea | //@onerror | //@onclick | //@onload")
    assert all(link.startswith(("#", "https://")) for link in tree.xpath("//a/@href"))
    assert set(tree.xpath("//@lang")) == {"en"}
    assert "alert(1)" in tree.text_content()
    assert "alert(4)" in tree.text_content()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page + text)
    outside = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"(?<!\\)<", outside), "no HTML outside code blocks"
    assert not re.search(r"(?<!\\)\[", outside), "no links outside code blocks"
    assert "\n# no heading" not in outside


@given(st.text())
def test_any_text_comes_out_of_a_page_as_it_went_in(said: str) -> None:
    case = Case("best", 1.0, said, said, said, [said], said, language=said)
    blocks: list[Block] = [Text(said), Code(said), Facts([(said, said)]), Table([said], [[said]], said), Cases([case])]
    page = html.render(Document(said, [said], [said], [Section(said, blocks)]))
    tree = lxml.html.fromstring(page)
    assert len(tree.xpath("//script | //style")) == 2
    assert (tree.findtext(".//table/caption") or "") == printable(said)
    assert tree.xpath("//article/@data-task") == [printable(said)]
    assert len(tree.xpath("//article/*")) == 3


def test_warning_where_the_constant_is_not_beaten(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    file = path / "eval" / "test" / "scores.json"
    assert "Warning:" not in pages(path)[0]
    edit(file, comparisons={"constant": {"cider": {"difference": 0.1, "low": -0.2, "high": 0.4}}})
    assert "does not clearly beat the row «best constant answer»" in pages(path)[0]
    edit(file, comparisons={"constant": {"cider": {"difference": -0.3, "low": -0.5, "high": -0.1}}})
    assert "is worse than the row «best constant answer»" in pages(path)[1]
    weak = scores(60)["rows"]
    weak["model"]["cider"] = 0.5
    edit(file, comparisons={}, rows=weak)
    assert "does not beat the row «best constant answer» in CIDEr: 0.5000 against 0.6000" in pages(path)[0]


def test_warning_for_one_answer_to_all_and_for_empty_ones(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    edit(path / "eval" / "test" / "scores.json", distinct_outputs={"model": 1}, empty_predictions={"model": 2})
    page, _ = pages(path)
    assert "the same answer to all 60 samples" in page
    assert "2 predictions of the model are empty" in page


def test_a_missing_data_set_is_said(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    shutil.rmtree(tmp_path / "data")
    page, _ = pages(path)
    assert "No images: they lie in" in page
    assert "<img" not in page


def test_several_runs_are_compared(tmp_path: Path) -> None:
    first, second = make_run(tmp_path), make_run(tmp_path, "20260102-130000-second", seed=5)
    edit(second / "eval" / "test" / "scores.json", split_hash="00" * 32)
    html, text, _ = write([first, second], tmp_path / "out")
    assert html.parent == tmp_path / "out"
    page = html.read_text(encoding="utf-8")
    header, *body = cells(page, "The models, with what their licenses allow")
    assert header[:3] == ["run", "commercial use", "may share"]
    assert [row[0] for row in body] == [first.name, second.name]
    assert "split hashes differ" in page
    assert "split hashes differ" in text.read_text(encoding="utf-8")
    assert page.count("License registry</caption>") == 1


@given(st.lists(st.text(), min_size=2, max_size=2), st.text())
def test_markdown_keeps_its_shape_whatever_the_text(words: list[str], code: str) -> None:
    table = Table(["a", "b"], [words])
    document = Document("t", [], [], [Section("s", [table, Code(code, "sh"), Text("end")])])
    lines = markdown.render(document).rstrip("\n").split("\n")
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[6])) == 3
    assert lines[-1] == "end"
    opening = next(line for line in lines if line.startswith("```"))
    bar = opening.removesuffix("sh")
    assert [line for line in lines if line.strip() == bar] == [bar], "nothing in between closes the block"


def test_build_is_deterministic(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert pages(run) == pages(run)
    assert build([read(run)]) == build([read(run)])
