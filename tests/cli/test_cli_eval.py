"""`medvlm eval --predictions`: the JSON that others read, and files that are wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from medvlm.cli import run

KEYS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_1", "rouge_2", "rouge_l", "rouge_l_f1", "cider")


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


ROWS = [
    {"id": "a", "prediction": "the heart is normal", "references": ["the heart is of normal size", "normal heart"]},
    {"id": "b", "prediction": "", "references": ["no effusion"]},
    {"id": "c", "prediction": "a left nodule", "references": ["a left nodule"]},
]


def test_json_holds_the_scores_unrounded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocoevalcap.bleu.bleu import Bleu

    file = write(tmp_path / "p.jsonl", ROWS)
    assert (
        run(["eval", "--predictions", file, "--metrics", "bleu,rouge,cider", "--json", str(tmp_path / "s.json")]) == 0
    )
    said = capsys.readouterr()
    assert "1 of 3 answers of the model is empty" in said.err
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert (found["schema"], found["n"], found["groups"]) == (2, 3, 3)
    assert list(found["rows"]) == ["model"]
    assert set(found["rows"]["model"]) >= set(KEYS)
    assert set(found["intervals"]["model"]) == set(found["rows"]["model"])
    assert set(found["signatures"]) == {"bleu", "rouge", "cider"}
    expected, _ = Bleu(4).compute_score(
        {row["id"]: row["references"] for row in ROWS}, {row["id"]: [row["prediction"]] for row in ROWS}, verbose=0
    )
    assert [found["rows"]["model"][f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(expected, abs=1e-9)
    for signature in found["signatures"].values():
        assert signature in said.out


def test_only_the_asked_metrics(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", ROWS)
    assert run(["eval", "--predictions", file, "--metrics", "cider", "--json", str(tmp_path / "s.json")]) == 0
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["rows"]["model"]
    assert {key.partition("_")[0] for key in found} == {"cider"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*ROWS, ROWS[0]], "must be unique"),
        ([{"prediction": "x", "references": ["y"]}], "id"),
        ([{"id": "a", "references": ["y"]}], "prediction"),
        ([{"id": "a", "prediction": "x", "references": []}], "references"),
        ([{"id": "a", "prediction": None, "references": ["y"]}], "prediction"),
        ([], "no predictions"),
        (["text"], ":1: "),
    ],
)
def test_wrong_files_say_the_line(
    rows: list[Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "p.jsonl", rows)
    out = tmp_path / "s.json"
    assert run(["eval", "--predictions", file, "--json", str(out)]) == 3
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert said in error
    assert not out.exists()


def test_the_table_fits_a_hundred_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | {"id": f"{row['id']}{i}", "task": "report"} for row in ROWS for i in range(20)]
    assert run(["eval", "--predictions", write(tmp_path / "p.jsonl", rows)]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("┏", "│", "└"))]
    assert len(table) == 3
    assert max(map(len, table)) <= 100


def test_all_columns_prints_every_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--predictions", write(tmp_path / "p.jsonl", ROWS), "--all-columns"]) == 0
    said = capsys.readouterr().out
    assert all(f"│ {key} " in said for key in KEYS)


def many(number: int, right: int) -> list[dict[str, Any]]:
    """Return rows of which the first `right` are answered as they should be."""
    texts = ["a nodule in the left lung", "no effusion", "the heart is large", "a fracture of the rib"]
    return [
        {"id": i, "prediction": texts[i % 4] if i < right else "nothing", "references": [texts[i % 4]]}
        for i in range(number)
    ]


def test_two_files_are_compared_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = write(tmp_path / "good.jsonl", many(80, 70)), write(tmp_path / "bad.jsonl", many(100, 20)[::-1])
    out = tmp_path / "c.json"
    assert run(["eval", "--predictions", good, "--predictions", bad, "--metrics", "rouge", "--json", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{good} is better than {bad} in ROUGE-L" in said
    assert f"{bad}: 20 of its samples were not answered by all and are left out here" in said
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["n"], found["runs"]) == (80, [good, bad])
    (pair,) = found["pairs"]
    # Of 80 samples one answers 70 right and the other 20, and a wrong answer shares no word.
    assert pair["keys"]["rouge_l"]["difference"] == pytest.approx(50 / 80)
    assert 0 < pair["keys"]["rouge_l"]["p"] < 0.01


def test_several_tasks_are_compared_each_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = [row | {"id": f"c{row['id']}", "task": "caption"} for row in many(40, 40)]
    questions = [row | {"task": "vqa"} for row in many(40, 40)]
    none = [row | {"prediction": "nothing"} for row in captions + questions]
    one, other = (
        write(tmp_path / "one.jsonl", captions + none[40:]),
        write(tmp_path / "other.jsonl", none[:40] + questions),
    )
    words = ["eval", "--predictions", one, "--predictions", other, "--metrics", "cider,vqa", "--bootstrap", "50"]
    assert run(words) == 0
    said = capsys.readouterr().out.partition("compared on")[2]
    assert f"caption: {one} is better than {other} in CIDEr" in said
    assert f"vqa: {one} is worse than {other} in accuracy" in said
    assert f"\n{one} " not in said


def test_what_does_not_compare_is_said_before_any_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write(tmp_path / "one.jsonl", ROWS)
    other = write(tmp_path / "other.jsonl", [row | {"references": ["else"]} for row in ROWS])
    assert run(["eval", "--predictions", one, "--predictions", other, "--metrics", "bleu"]) == 3
    said = capsys.readouterr()
    assert "has other references" in said.err
    assert "BLEU" not in said.out


def test_a_folder_for_the_scores_is_made(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "s.json"
    assert (
        run(["eval", "--predictions", write(tmp_path / "p.jsonl", ROWS), "--metrics", "bleu", "--json", str(out)]) == 0
    )
    assert json.loads(out.read_text(encoding="utf-8"))["settings"]["metrics"] == ["bleu"]


def test_equal_files_do_not_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write(tmp_path / f"{name}.jsonl", many(40, 20)) for name in "ab"]
    assert run(["eval", "--predictions", files[0], "--predictions", files[1], "--metrics", "bleu"]) == 0
    assert "do not clearly differ in BLEU-4: +.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--controls", "some"], 2, "expected a number of samples, all or none"),
        (["--references", "r.json"], 2, "--references goes with --predictions"),
        (["--like", "runs/x"], 2, "--like goes with --model"),
        (["runs/x", "--predictions", "p.jsonl"], 2, "RUN and --predictions: name one of them"),
        (["--model", "medvlm/tiny-base"], 2, "--model needs data"),
        (["--predictions", "p.jsonl", "--predictions", "p.jsonl"], 2, "named twice"),
        (["--split", "dev"], 2, "expected train, validation or test"),
        (["--predictions", "p.jsonl", "--predictions", "x/../p.jsonl"], 2, "named twice"),
        (["--predictions", "p.jsonl", "--limit", "1", "--no-base"], 2, "--limit, --no-base: of no use with --pred"),
        (["--predictions", "p.jsonl", "--split", "test"], 2, "--split: of no use"),
        (["--predictions", "p.jsonl", "--exclude-leaked"], 2, "--exclude-leaked: of no use"),
        (["--predictions", "p.jsonl", "--controls", "200"], 2, "--controls: of no use"),
        (["--predictions", "p.jsonl", "--engine", "transformers"], 2, "--engine: of no use"),
        (["--predictions", "p.jsonl", "--workers", "1"], 2, "--workers: of no use"),
        (["--predictions", "p.jsonl", "--ray-address", "x"], 2, "--ray-address: of no use"),
        (["--predictions", "p.jsonl", "--batch-size", "1"], 2, "--batch-size: of no use"),
        (["--model", ""], 2, "--model: is empty"),
        (["--model", "", "--predictions", "p.jsonl"], 2, "name one of them"),
        (["--like", ""], 2, "--like goes with --model"),
        (
            ["--predictions", "p.jsonl", "--json", "./p.jsonl"],
            2,
            "--json p.jsonl: is read too and would be overwritten",
        ),
        (["--predictions", "q.csv", "--references", "p.jsonl", "--json", "p.jsonl"], 2, "is read too"),
        (["--predictions", "q.csv", "--idf", "p.jsonl", "--json", "p.jsonl"], 2, "is read too"),
        (["--predictions", "p.jsonl", "--save-idf", "p.jsonl"], 2, "--save-idf p.jsonl: is read too"),
        (["--predictions", "p.jsonl", "--save-idf", "x", "--json", "./x"], 2, "name two files"),
        (["--predictions", "p.jsonl", "--predictions", "q.csv", "--save-idf", "x"], 2, "of one run or file"),
        (["--predictions", "p.jsonl", "--json", "."], 2, "--json .: is a folder; name a file"),
        (["--predictions", "p.jsonl", "--json", "p.jsonl/s.json"], 2, "p.jsonl is no folder that can be written to"),
        (["--predictions", "p.jsonl", "--groups", "patient"], 3, '"patient": no row has this column'),
        (["--predictions", "p.jsonl", "--tokenizer", "words"], 2, "words"),
        (["--predictions", "p.jsonl", "--metrics", "blue"], 2, "bleu"),
    ],
)
def test_wrong_calls_are_one_line(
    words: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("p.jsonl"), ROWS)
    before = Path("p.jsonl").read_bytes()
    assert run(["eval", *words]) == code
    assert [path.name for path in tmp_path.iterdir()] == ["p.jsonl"]
    assert Path("p.jsonl").read_bytes() == before
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert said in error


@pytest.mark.parametrize("option", ["--json", "--save-idf"])
def test_neither_a_device_nor_the_files_of_a_run_are_replaced(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = write(tmp_path / "p.jsonl", ROWS), tmp_path / "a-run"
    (folder / "eval" / "test").mkdir(parents=True)
    device, facts = tmp_path / "device", folder / "run.json"
    os.mkfifo(device)
    facts.write_text("{}")
    for out, said in (
        (device, "is no plain file"),
        (facts, "belongs to the run a-run"),
        (folder / "eval" / "test" / "predictions.jsonl", "belongs to the run a-run"),
    ):
        assert run(["eval", "--predictions", file, "--metrics", "cider", option, str(out)]) == 2
        assert said in capsys.readouterr().err
    assert device.is_fifo()
    assert facts.read_text() == "{}"
    assert run(["eval", "--predictions", file, "--metrics", "cider", option, str(folder / "new.json")]) == 0


def test_saved_document_frequencies_give_the_scores_of_their_references(tmp_path: Path) -> None:
    file, idf = write(tmp_path / "p.jsonl", many(20, 12)), str(tmp_path / "idf.json")
    found = []
    for more in (["--save-idf", idf], ["--idf", idf]):
        out = tmp_path / "s.json"
        asked = ["--metrics", "cider", "--tokenizer", "13a", "--case", "mixed", "--bootstrap", "0", "--json", str(out)]
        assert run(["eval", "--predictions", file, *asked, *more]) == 0
        found.append(json.loads(out.read_text(encoding="utf-8")))
    assert found[1]["rows"]["model"] == pytest.approx(found[0]["rows"]["model"], abs=1e-12)
    assert found[0]["rows"]["model"]["cider"] > 1
    assert "idf:file(n=20," in found[1]["signatures"]["cider"]


def test_a_metric_that_finds_nothing_to_score_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | {"task": "VQA"} for row in ROWS]
    assert run(["eval", "--predictions", write(tmp_path / "p.jsonl", rows), "--metrics", "vqa,bleu"]) == 0
    said = capsys.readouterr()
    assert "accuracy" in said.out
    assert "nothing to score" not in said.err
    file = write(tmp_path / "p.jsonl", [row | {"task": "caption"} for row in ROWS])
    sentence = "vqa: nothing to score in these 3 rows; none is a question"
    for metrics, code in (("vqa,bleu", 0), ("vqa", 3)):
        assert run(["eval", "--predictions", file, "--metrics", metrics]) == code
        assert sentence in " ".join(capsys.readouterr().err.split())
