"""`medvlm inspect` through the real command line: what is printed, written and refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medvlm.cli import run


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from medvlm.data.sources.phantom.base_grammar import base_samples

    path = tmp_path_factory.mktemp("pictures") / "chest.jpg"
    path.write_bytes(next(iter(base_samples(5, 0))).image.data)
    return path


def test_words_are_printed_and_written(
    adapter_run: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [tmp_path / f"words.{kind}" for kind in ("png", "html", "json")]
    flags = [word for path in outs for word in ("--out", str(path))]
    assert run(["inspect", "words", str(adapter_run), str(scan), "--k", "3", *flags]) == 0
    said = capsys.readouterr().out
    assert "A nearest word always exists, so it need not mean anything" in said
    assert said.count("written: ") == 3
    with Image.open(outs[0]) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 700
    assert outs[1].read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    told = json.loads(outs[2].read_text(encoding="utf-8"))
    assert len(told["tokens"]) == 64
    assert all(len(token["near"]) == 3 for token in told["tokens"])
    assert told["grid"] == {"rows": 8, "columns": 8, "before": 0, "view": [0.0, 0.0, 1.0, 1.0]}
    assert sum(count["tokens"] for count in told["counts"]) == 64
    assert sorted(path.name for path in tmp_path.iterdir()) == ["words.html", "words.json", "words.png"]


def test_attention_of_the_models_own_answer(
    adapter_run: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "look.png"
    words = ["inspect", "attention", str(adapter_run), str(scan), "--format", "json", "--layer", "2", "--out", str(out)]
    assert run(words) == 0
    shown = capsys.readouterr()
    told: dict[str, Any] = json.loads(shown.out)
    assert run(["predict", str(adapter_run), str(scan), "--format", "json", "-q"]) == 0
    predicted = json.loads(capsys.readouterr().out)
    assert (told["answer"], told["prefix"]) == (predicted["prediction"], predicted["prefix"])
    assert told["generated"] is True
    assert told["same_with_eager_attention"] is True
    assert [len(one["values"]) for one in told["attention"]["maps"]] == [8] * 5
    assert len(told["occlusion"]["losses"]) == 8
    with Image.open(out) as drawn:
        # The picture, occlusion, rolled out, and layer 2.
        assert drawn.width > 4 * 384


def test_attention_of_a_given_answer(adapter_run: Path, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--prompt", "is there a nodule?", "--answer", "a nodule", "--about", "nodule", "--no-occlusion"]
    assert run(["inspect", "attention", str(adapter_run), str(scan), *asked]) == 0
    said = capsys.readouterr().out
    assert "prompt: answer en is there a nodule?" in said
    assert "answer: a nodule" in said
    assert "Attention on the picture:" in said
    assert "Probability" not in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["words", "nowhere", "{scan}"], 3, "nowhere: no such run folder"),
        (["words", "{run}", "{run}/recipe.yaml"], 3, "recipe.yaml: the image cannot be read"),
        (["words", "{run}", "{run}"], 3, "is a folder; name one picture"),
        (["words", "{run}", "{scan}", "--out", "a.pdf"], 2, "--out a.pdf: expected a name that ends in .png or .html"),
        (["words", "{run}", "{scan}", "--format", "xml"], 2, '--format "xml": expected text or json'),
        (["attention", "{run}", "{scan}", "--task", "vqa"], 2, "--task vqa needs a question: give --prompt TEXT"),
        (["attention", "{run}", "{scan}", "--window", "999"], 3, "expected 1 to 112 pixels"),
        (["attention", "{run}", "{scan}", "--answer", "a b", "--about", "zebra"], 2, '"zebra": none of these words'),
        (["attention", "{run}", "{scan}", "--answer", "a", "--layer", "9"], 2, "--layer 9: expected 1 to 4"),
        (["attention", "{run}", "{scan}", "--answer", "a", "--head", "4"], 2, "--head 4: expected 0 to 3"),
        (["attention", "{run}", "{scan}", "--answer", "a\udcff"], 2, '--answer "a\ufffd": is no UTF-8'),
        (["attention", "{run}", "{scan}", "--answer", " "], 2, '--answer " ": holds no word to look at; leave it out'),
        (["attention", "{run}", "{scan}", "--prompt", "a\udcff"], 2, '--prompt "a\ufffd": is no UTF-8'),
        (["hits", "{run}", "--out", "a.png"], 2, "--out a.png: expected a name that ends in .json"),
        (["hits", "{run}"], 3, "data/pmc"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: list[str],
    code: int,
    said: str,
    adapter_run: Path,
    scan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [word.format(run=adapter_run, scan=scan) for word in words]
    assert run(["inspect", *given, "-q"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert shown.err.startswith("medvlm: error: ")
    assert shown.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_picture_itself_is_never_replaced(
    adapter_run: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "chest.png"
    with Image.open(scan) as opened:
        opened.save(picture)
    before = picture.read_bytes()
    (tmp_path / "link.png").symlink_to(picture)
    for verb in ("words", "attention"):
        for out in (picture, tmp_path / "link.png", tmp_path / ".." / tmp_path.name / "chest.png"):
            assert run(["inspect", verb, str(adapter_run), str(picture), "--out", str(out), "-q"]) == 2
            assert "is the picture that is looked at, and would be replaced" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_a_name_that_is_no_utf8_is_shown_with_marks(
    adapter_run: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    picture.write_bytes(scan.read_bytes())
    outs = [Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xfc." + kind)) for kind in (b"png", b"html", b"json")]
    flags = [word for path in outs for word in ("--out", str(path))]
    assert run(["inspect", "words", str(adapter_run), str(picture), *flags]) == 0
    assert capsys.readouterr().out.count("t\ufffd.") == 3
    assert "caf\ufffd.jpg" in outs[1].read_text(encoding="utf-8")
    assert json.loads(outs[2].read_text(encoding="utf-8"))["image"].endswith("caf\ufffd.jpg")


def test_a_run_whose_weights_are_gone(
    adapter_run: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(adapter_run, tmp_path / "copy")
    shutil.rmtree(copy / "adapter")
    assert run(["inspect", "words", str(copy), str(scan), "-q"]) == 3
    assert "neither adapter/ nor model/ holds weights; train it again" in capsys.readouterr().err
