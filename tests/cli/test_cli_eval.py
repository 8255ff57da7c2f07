"""`medvlm eval --predictions`: the JSON that others read, and files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medvlm.cli import run

KEYS = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_1", "rouge_2", "rouge_l", "rouge_l_f1", "cider"]


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
    assert "1 of 3 predictions are empty" in said.err
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert list(found) == ["schema", "n", "rows", "signatures"]
    assert (found["schema"], found["n"]) == (1, 3)
    assert list(found["rows"]) == ["model"]
    assert list(found["rows"]["model"]) == KEYS
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
    assert list(json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["rows"]["model"]) == ["cider"]


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
