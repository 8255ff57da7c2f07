"""Several runs side by side: what differs, losses in one chart, groups by name, costs with what is unknown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import lxml.html
import pytest
from fabricated_run import make_group, make_run

from medvlm.cli import run as medvlm
from medvlm.report import cost, side_by_side
from medvlm.report.context import read
from medvlm.report.write import write

GROUP = "20260101-120000-exp"


def tables(page: str) -> dict[str, list[dict[str, str]]]:
    """Return caption -> rows, each a map from header to cell."""
    found = {}
    for table in lxml.html.fromstring(page).iter("table"):
        rows = [[" ".join(cell.text_content().split()) for cell in row.iter("th", "td")] for row in table.iter("tr")]
        found[table.findtext("caption") or ""] = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    return found


def page(paths: list[Path], out: Path) -> str:
    return write(paths, out)[0].read_text(encoding="utf-8")


def test_variants_stand_side_by_side(tmp_path: Path) -> None:
    html = page(make_group(tmp_path)[::-1], tmp_path)
    found = tables(html)
    rows = found["Outcomes"]
    assert [row["run"] for row in rows] == ["proj", "proj-lora", "proj-vit"], "in the order of the recipe"
    # 1 + place + 2 / 40; the best validation is 1 + place + 2 / 20 at step 20.
    assert [row["last training loss"] for row in rows] == ["1.0500", "2.0500", "3.0500"]
    assert [(row["best validation loss"], row["at step"]) for row in rows] == [
        ("1.1000", "20"),
        ("2.1000", "20"),
        ("3.1000", "20"),
    ]
    assert [row["last validation loss"] for row in rows] == ["1.2500", "2.2500", "3.2500"]
    assert rows[0]["trained parameters"] == "51,000"
    assert (rows[0]["CIDEr"], rows[0]["samples/s"], rows[0]["peak memory"]) == ("2.9000", "27.03", "1.50 GiB")
    assert [row["cost"] for row in rows] == ["unknown", "2.50 EUR", "2.50 EUR"]
    assert [row["commercial use"] for row in rows] == ["no"] * 3, "OPT is for research only, whatever the tower allows"


def test_what_differs_is_told_and_nothing_else(tmp_path: Path) -> None:
    differing = tables(page(make_group(tmp_path), tmp_path))["What differs between the recipes"]
    assert differing == [{"setting": "train.learning_rate", "proj": "0.01", "proj-lora": "0.001", "proj-vit": "0.0001"}]


def test_losses_of_all_variants_share_a_chart(tmp_path: Path) -> None:
    tree = lxml.html.fromstring(page(make_group(tmp_path), tmp_path))
    for name in ("Training loss of all runs by step", "Validation loss of all runs by step"):
        (svg,) = tree.xpath(f"//svg[@aria-label='{name}']")
        assert len(svg.xpath(".//polyline")) == 3
        assert {"proj", "proj-lora", "proj-vit"} <= {text.text for text in svg.iter("text")}


def test_stages_follow_one_another(tmp_path: Path) -> None:
    paths = make_group(tmp_path, "stages", ("captions", "questions"))
    html = page(paths[::-1], tmp_path)
    assert "Stages in order, each starting from the one before: captions, then questions." in html
    assert "captions 3 at 1, 1.05 at 40; questions 4 at 41, 2.05 at 80" in html


def test_runs_of_unlike_batches_are_drawn_over_samples(tmp_path: Path) -> None:
    paths = make_group(tmp_path)
    recipe = paths[1] / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("batch_size: 4", "batch_size: 8"))
    html = page(paths, tmp_path)
    assert "Training loss of all runs by sample: proj 3 at 4, 1.05 at 160" in html


def test_losses_by_data_set(tmp_path: Path) -> None:
    paths = make_group(tmp_path)
    rows = tables(page(paths, tmp_path))["Losses by data set"]
    assert rows[0] == {
        "run": "proj",
        "data set": "data/pmc",
        "last training loss": "1.5500",
        "last validation loss": "1.2500",
    }
    assert len(rows) == 6
    alone = page(paths[:1], tmp_path)
    spent = tables(alone)["Validation loss and what was spent"]
    assert [row["step"] for row in spent] == ["10", "20", "30", "40"]
    assert (spent[-1]["samples"], spent[-1]["tokens"], spent[-1]["flops"]) == ("160", "16,000", "4e+13")
    assert spent[-1]["on data/vqa-rad"] == "2.2500"
    assert "Loss by data set" in alone


def test_nine_lines_are_told_apart(tmp_path: Path) -> None:
    paths = make_group(tmp_path, names=tuple(f"variant-{number}" for number in range(9)))
    tree = lxml.html.fromstring(page(paths, tmp_path))
    (svg,) = tree.xpath("//svg[@aria-label='Training loss of all runs by step']")
    assert len({line.get("class") for line in svg.xpath(".//polyline")}) == 9
    height = float(svg.get("viewbox", svg.get("viewBox")).split()[3])
    assert all(float(text.get("y")) < height for text in svg.iter("text")), "every name is inside the picture"


def test_what_is_unknown_is_said(tmp_path: Path) -> None:
    first, second, _ = map(read, make_group(tmp_path))
    facts = dict(cost.facts(first))
    assert facts["energy"] == "unknown: no counter"
    assert facts["cost"] == "unknown: set compute.price_per_hour"
    assert facts["share of peak"] == "unknown: the device's peak is not known"
    assert facts["operations"] == "40.00 TFLOP"
    known = dict(cost.facts(second))
    assert (known["share of peak"], known["energy"]) == ("45.1% of 989.5 TFLOP/s", "1 kWh (about 0.4 kg CO2)")
    (tmp_path / "runs" / second.name / "compute.json").unlink()
    empty = read(tmp_path / "runs" / second.name)
    assert set(cost.cells(empty)) == {"unknown"}


def test_a_group_is_named_by_its_id_or_one_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = make_group(tmp_path)
    monkeypatch.chdir(tmp_path)
    for words in ([GROUP], ["--group", f"runs/{paths[1].name}"], [str(path) for path in paths]):
        page = tmp_path / "runs" / f"{GROUP}-report" / "report.html"
        page.unlink(missing_ok=True)
        assert medvlm(["report", *words, "--quiet"]) == 0
        assert len(tables(page.read_text())["Outcomes"]) == 3
        assert not list(tmp_path.glob("*.html")), "nothing is written where the user happens to be"
    assert medvlm(["report", paths[0].name, "--quiet"]) == 0
    assert f"medvlm report {GROUP} shows all" in (paths[0] / "report.html").read_text()
    capsys.readouterr()
    alone = make_run(tmp_path)
    assert medvlm(["report", "--group", str(alone)]) == 2
    assert "no stage or variant" in capsys.readouterr().err
    assert medvlm(["report", "nothing"]) == 3


def test_a_group_without_evaluations_or_with_a_part_missing(tmp_path: Path) -> None:
    paths = make_group(tmp_path)
    for path in paths:
        for file in (path / "eval" / "test").iterdir():
            file.unlink()
    html = page(paths[:2], tmp_path)
    assert "Not trained, or not named here: proj-vit." in html
    assert "None of these runs is evaluated yet" in html
    (paths[0] / "recipe.yaml").write_text("{ no recipe")
    assert "what differs cannot be said" in page(paths, tmp_path)


def test_runs_that_are_no_group_keep_their_names(tmp_path: Path) -> None:
    first, second = make_run(tmp_path), make_group(tmp_path)[0]
    found = tables(page([first, second], tmp_path))
    assert [row["run"] for row in found["Outcomes"]] == [first.name, second.name]
    assert not side_by_side.one_group([read(first), read(second)])


def test_damaged_metrics_are_survived(tmp_path: Path) -> None:
    paths = make_group(tmp_path)
    lines = [{"step": "x", "loss": 1}, {"step": 3, "losses": 7, "loss": None}, {"eval_loss": float("nan"), "step": 2}]
    (paths[0] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = tables(page(paths, tmp_path))["Outcomes"][0]
    assert (row["last training loss"], row["best validation loss"]) == ("unknown", "-")
    assert not re.search("NaN", page(paths, tmp_path))
