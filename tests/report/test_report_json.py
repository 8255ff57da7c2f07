"""report.json: the same content as the page, keys that stay, numbers that JSON knows, and no images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lxml.html
import pytest
from fabricated_run import HOSTILE, make_baseline, make_run, scores_of_two
from hypothesis import given
from hypothesis import strategies as st

from medvlm.cli import run as medvlm
from medvlm.report import as_json
from medvlm.report.build import build
from medvlm.report.context import read
from medvlm.report.write import write


def refuse(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def loaded(path: Path) -> dict[str, Any]:
    """Return the file's content; NaN and Infinity, which other readers refuse, are refused here too."""
    found = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def test_keys_stay(tmp_path: Path) -> None:
    found = loaded(write([make_run(tmp_path, n=6, schema=2)])[2])
    assert list(found) == [
        *("schema", "medvlm", "title", "notice", "runs", "comparisons", "baselines", "document"),
    ]
    (run,) = found["runs"]
    assert list(run) == [
        *("name", "path", "kind", "status", "synthetic", "group", "problems", "model", "in_short", "license", "inputs"),
        *("data", "earlier_data", "training", "compute", "evaluations", "commands", "versions", "recipe"),
    ]
    documented = as_json.__doc__ or ""
    assert all(key in documented for key in (*found, *run))
    assert (run["kind"], run["license"]["commercial_use"], run["compute"]["seconds"]) == ("run", "yes", 118.4)
    (evaluation,) = run["evaluations"]
    assert (evaluation["split"], evaluation["headline"]) == ("test", "cider")
    assert evaluation["scores"] == json.loads(json.dumps(scores_of_two(6)))
    assert run["training"]["curves"]["eval_loss"][0][0] == 50
    assert {entry["name"] for entry in found["baselines"]} >= {"PaliGemma-3B pt-224"}


def test_it_says_what_the_page_says(tmp_path: Path) -> None:
    first, second = (make_run(tmp_path, name, 8, seed, 2, same_samples=True) for name, seed in (("a", 0), ("b", 4)))
    html, _, data = write([first, second], tmp_path / "out")
    page = lxml.html.fromstring(html.read_text(encoding="utf-8"))
    found = loaded(data)
    assert [section["title"] for section in found["document"]] == [
        heading.text_content() for heading in page.iter("h2", "h3") if heading.getparent().tag != "nav"
    ]
    blocks = [block for section in found["document"] for block in section["blocks"]]
    rows = [row for block in blocks if block["type"] == "table" for row in block["rows"]]
    told = [" ".join(cell.split()) for row in rows for cell in row]
    shown = {" ".join(cell.text_content().split()) for cell in page.iter("td", "th")}
    assert len(told) > 500
    assert set(told) <= shown
    assert found["comparisons"]["test"]["runs"] == ["a", "b"]
    assert found["comparisons"]["test"]["pairs"][0]["keys"]["cider"]["p"] > 0


def test_it_holds_no_images(tmp_path: Path) -> None:
    html, _, data = write([make_run(tmp_path, n=9)])
    assert "data:image" in html.read_text(encoding="utf-8")
    content = data.read_text(encoding="utf-8")
    assert "data:image" not in content
    assert "<svg" not in content
    (cases,) = (
        block for section in loaded(data)["document"] for block in section["blocks"] if block["type"] == "cases"
    )
    assert {"id", "prediction", "references", "score", "kind"} <= cases["cases"][0].keys()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(HOSTILE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_any_value_becomes_json_that_all_read(value: Any) -> None:
    text = json.dumps(as_json._clean(value), ensure_ascii=False)
    text.encode("utf-8")
    again = json.loads(text, parse_constant=refuse)
    if isinstance(value, float) and math.isfinite(value):
        assert again == value


def test_what_is_nested_without_end_is_cut(tmp_path: Path) -> None:
    path = make_run(tmp_path, n=3)
    deep = "[" * 400 + "]" * 400
    told = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(told)[:-1] + f', "model": {{"id": "m", "deep": {deep}}}}}')
    assert loaded(write([path])[2])["runs"][0]["model"]["id"] == "m"


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    path = make_run(tmp_path, n=3)
    told = json.loads((path / "run.json").read_text())
    told["model"]["id"] = told["status"] = HOSTILE
    told["versions"] = {HOSTILE: HOSTILE}
    (path / "run.json").write_text(json.dumps(told))
    found = loaded(write([path])[2])
    assert "<script>alert(1)</script>" in found["runs"][0]["status"]
    assert "\x00" not in json.dumps(found, ensure_ascii=False)


def test_forms_are_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path, n=3, schema=2)
    assert medvlm(["report", str(path), "--format", "json, md", "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["report.json", "report.md"]
    capsys.readouterr()
    assert medvlm(["report", str(path), "--format", "pdf"]) == 2
    assert "html, md, json" in capsys.readouterr().err
    assert medvlm(["report", str(path), "--format", ","]) == 2
    assert not (path / "report.html").exists()


def test_a_baseline_is_one(tmp_path: Path) -> None:
    run = loaded(write([make_baseline(tmp_path, n=4)])[2])["runs"][0]
    assert (run["kind"], run["problems"], run["compute"]) == ("baseline", [], {"in_words": {}})
    assert run["license"]["license"] == "LicenseRef-scancode-gemma-tou-2024-04-01"


def test_the_document_is_the_same_each_time(tmp_path: Path) -> None:
    path = make_run(tmp_path, n=5, schema=2)
    assert write([path])[2].read_bytes() == write([path])[2].read_bytes()
    assert build([read(path)]) == build([read(path)])
