"""What stands in a report, that it asks for nothing, and that no text gets out of its place."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import lxml.html
import pytest
from fabricated_run import HOSTILE, facts, make_run, rows, scores, write_predictions
from hypothesis import given
from hypothesis import strategies as st

from medvlm.licenses import registry
from medvlm.report import gallery, markdown
from medvlm.report.build import build
from medvlm.report.context import read
from medvlm.report.document import Code, Document, Section, Table, Text
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
    assert header[:6] == ["row", "commercial use", "may share", "BLEU-4", "ROUGE-L", "CIDEr"]
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
    assert "| this model | yes | yes | 0.5200 |" in text
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


def test_the_page_asks_for_nothing_and_has_no_script(tmp_path: Path) -> None:
    page, _ = pages(make_run(tmp_path))
    tree = lxml.html.fromstring(page)
    policy = tree.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not tree.xpath("//script | //link | //iframe | //object | //embed | //form | //base")
    assert all(source.startswith("data:image/jpeg;base64,") for source in tree.xpath("//img/@src"))
    assert len(tree.xpath("//img")) == 12
    assert all(link.startswith("#") for link in tree.xpath("//a/@href"))
    assert "url(" not in page
    assert "@import" not in page
    targets = set(tree.xpath("//@id"))
    assert all(link[1:] in targets for link in tree.xpath("//a/@href"))


def hostile_run(root: Path) -> Path:
    """Return a run in which every text that comes from outside is hostile."""
    path = make_run(root, n=9)
    told = facts(HOSTILE, Path(HOSTILE))
    told |= {
        "command": HOSTILE,
        "status": HOSTILE,
        "versions": {HOSTILE: HOSTILE},
        "model": {"id": HOSTILE, HOSTILE: HOSTILE},
    }
    told["data"][0] |= {"title": HOSTILE, "licenses": {HOSTILE: 3}, "fingerprint": HOSTILE}
    told["census"] = {HOSTILE: {"total": 1}}
    told["license"] = {
        "commercial_use": HOSTILE,
        "may_share": HOSTILE,
        "license": HOSTILE,
        "reasons": [HOSTILE],
        "obligations": [HOSTILE],
    }
    (path / "run.json").write_text(json.dumps(told))
    (path / "recipe.yaml").write_text(HOSTILE.encode("utf-8", "replace").decode())
    edit(path / "compute.json", device=HOSTILE)
    table = scores(9)
    table |= {"signatures": {HOSTILE: HOSTILE}, "constant": {HOSTILE: HOSTILE}, "decoding": {HOSTILE: HOSTILE}}
    table["rows"][HOSTILE] = {HOSTILE: 1.0}
    table["comparisons"][HOSTILE] = {HOSTILE: {"difference": 1, "low": 0, "high": 2}}
    (path / "eval" / "test" / "scores.json").write_text(json.dumps(table))
    changes = {"id": HOSTILE, "prediction": HOSTILE, "references": [HOSTILE], "task": HOSTILE, "prompt": HOSTILE}
    write_predictions(path, [row | changes for row in rows(9, 0)])
    return path


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    page, text = pages(hostile_run(tmp_path))
    tree = lxml.html.fromstring(page)
    assert not tree.xpath("//script | //img[@onerror] | //a[starts-with(@href, 'javascript')]")
    assert "alert(1)" in tree.text_content()
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", page + text)
    outside = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"(?<!\\)<", outside), "no HTML outside code blocks"
    assert not re.search(r"(?<!\\)\[", outside), "no links outside code blocks"
    assert "\n# no heading" not in outside


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


def test_gallery_is_best_median_worst_by_cider(tmp_path: Path) -> None:
    evaluation = read(make_run(tmp_path)).evaluations[0]
    chosen = gallery.choose(evaluation.predictions)
    assert [kind for kind, _, _ in chosen] == ["best"] * 4 + ["median"] * 4 + ["worst"] * 4
    assert len({row.id for _, _, row in chosen}) == 12
    every = sorted(gallery.cider(evaluation.predictions), reverse=True)
    assert [score for kind, score, _ in chosen if kind == "best"] == every[:4]
    assert sorted(score for kind, score, _ in chosen if kind == "worst") == sorted(every[-4:])


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 12, 13])
def test_small_galleries_take_each_case_once(tmp_path: Path, n: int) -> None:
    evaluation = read(make_run(tmp_path, n=max(n, 1))).evaluations[0]
    chosen = gallery.choose(evaluation.predictions[:n])
    assert len({row.id for _, _, row in chosen}) == len(chosen) == min(n, 12)


def test_images_are_those_of_the_ids(tmp_path: Path) -> None:
    run = read(make_run(tmp_path))
    folder = run.data[0].folder
    assert folder is not None
    wanted = {f"PMC{number:05d}/fig1/-/caption/0" for number in (0, 17, 59)}
    found = gallery.find_rows([folder], "test", wanted)
    assert {name: row["image"]["path"] for name, row in found.items()} == {
        name: f"{int(name[3:8])}.png" for name in wanted
    }


def test_a_missing_data_set_is_said(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    shutil.rmtree(tmp_path / "data")
    page, _ = pages(path)
    assert "No images: they lie in" in page
    assert "<img" not in page


def test_a_broken_image_leaves_the_case(tmp_path: Path) -> None:
    assert gallery.thumbnail(b"\x89PNG no picture") is None
    shard = next((make_run(tmp_path).parents[1] / "data").rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:100])
    assert gallery.find_rows([shard.parents[1]], "test", {"PMC00000/fig1/-/caption/0"}) == {}


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


def chromium(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on this machine")
    quiet = "--disable-background-networking --disable-component-update --disable-sync --no-first-run --disable-gpu"
    command = [program, "--headless", "--no-sandbox", *quiet.split(), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    html, *_ = write([hostile_run(tmp_path)])
    profile = tmp_path / "profile"
    found = chromium("--enable-logging=stderr", f"--user-data-dir={profile}", "--dump-dom", html.resolve().as_uri())
    tree = lxml.html.fromstring(found.stdout)
    assert len(tree.xpath("//svg")) == 3
    assert not tree.xpath("//script")
    assert tree.xpath("//h2")[-1].text_content() == "Baselines"
    assert "Content Security Policy" not in found.stderr
    assert "CONSOLE" not in found.stderr
