"""`medvlm predict` on a run with an adapter: what is printed, kept, gone on with and refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medvlm.cli import run
from medvlm.evaluate import predict
from medvlm.evaluate.predict import Predictor

DRAFT = "draft, to be read by a radiologist"


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of one scene each its own way, one of them 16-bit, one damaged, and a DICOM file."""
    from medvlm.data.images import decode
    from medvlm.data.sources.phantom.base_grammar import base_samples

    folder = tmp_path_factory.mktemp("pictures") / "scans"
    (folder / "more").mkdir(parents=True)
    images = [decode(next(iter(base_samples(5, number))).image.data).convert("L") for number in range(3)]
    images[0].save(folder / "a.png")
    images[1].save(folder / "b.JPG", quality=95)
    images[2].save(folder / "more" / "d.tiff")
    words = np.asarray(images[0]).astype(np.uint16) * 257
    Image.fromarray(words).save(folder / "c16.png")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:300])
    (folder / "x.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "notes.txt").write_text("no picture")
    return folder


class Asked:
    """Runs the verb and reads what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], run_folder: Path) -> None:
        self.capsys, self.run_folder = capsys, run_folder

    def __call__(self, *words: object, form: str = "json") -> list[dict[str, Any]]:
        self.code = run(["predict", str(self.run_folder), *map(str, words), "--format", form, "-q"])
        shown = self.capsys.readouterr()
        self.out, self.err = shown.out, shown.err
        return [json.loads(line) for line in shown.out.splitlines()] if form == "json" else []


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str], adapter_run: Path) -> Asked:
    return Asked(capsys, adapter_run)


def test_a_folder_is_answered_but_for_what_cannot_be_read(asked: Asked, scans: Path) -> None:
    rows = asked(scans)
    assert [Path(row["image"]).name for row in rows] == ["a.png", "b.JPG", "c16.png", "d.tiff"]
    assert asked.code == 3
    warnings = [line for line in asked.err.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 2
    assert "1 DICOM files are passed over" in warnings[0]
    assert f"{scans / 'broken.png'}: the image cannot be read" in warnings[1]
    assert asked.err.splitlines()[-1] == (
        "medvlm: error: 1 of 5 pictures could not be read (named above); others are done"
    )
    # The same picture in 8 and in 16 bits.
    assert rows[0]["prediction"] == rows[2]["prediction"]
    assert {row["task"] for row in rows} == {"caption"}
    assert rows[0]["decoding"] == {"max_new_tokens": 12, "do_sample": False, "num_beams": 1}


def test_the_adapter_answers_and_not_the_base(asked: Asked, scans: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from medvlm.resources import PACKAGE

    base = AutoModelForImageTextToText.from_pretrained(PACKAGE / "models" / "tiny_base", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, asked.run_folder / "adapter").eval()
    processor = AutoProcessor.from_pretrained(asked.run_folder / "adapter", backend="pil")
    ids = processor.tokenizer("<image>" * 64 + "<bos>answer en is there a nodule?\n", add_special_tokens=False)
    pixels = processor.image_processor(Image.open(scans / "a.png").convert("RGB"), return_tensors="pt")
    inputs = {name: torch.tensor([value]) for name, value in ids.items()} | dict(pixels)
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    expected = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    (row,) = asked(scans / "a.png", "--prompt", "is there a nodule?")
    assert (row["prediction"], row["prefix"], row["task"]) == (expected, "answer en is there a nodule?", "vqa")


def test_records_are_kept_and_gone_on_with(
    asked: Asked, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "deep" / "p.jsonl"
    whole = asked(scans)
    shown: list[int] = []
    answers = Predictor.answers

    def dying(self: Predictor, images: Any, prefixes: Any) -> list[str]:
        if shown:
            raise KeyboardInterrupt
        shown.append(len(images))
        return answers(self, images, prefixes)

    monkeypatch.setattr(Predictor, "answers", dying)
    asked(scans, "--out", out)
    assert asked.code == 130
    assert "the same command goes on" in asked.err
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    assert [json.loads(line) for line in lines] == whole[:2]
    # A kill in the middle of a line costs that line.
    out.write_text(lines[0] + lines[1][:40], encoding="utf-8")
    counted: list[int] = []

    def counting(self: Predictor, images: Any, prefixes: Any) -> list[str]:
        counted.append(len(images))
        return answers(self, images, prefixes)

    monkeypatch.setattr(Predictor, "answers", counting)
    assert asked(scans, "--out", out) == whole
    assert sum(counted) == 3
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == whole
    monkeypatch.setattr(predict, "load_tuned", lambda *_: pytest.fail("nothing is missing"))
    assert asked(scans, "--out", out) == whole


def test_other_predictions_are_not_overwritten_unasked(asked: Asked, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    asked(scans / "a.png", "--out", out)
    before = out.read_bytes()
    asked(scans / "a.png", "--out", out, "--beams", 2)
    assert asked.code == 3
    assert "made by another model, question or decoding" in asked.err
    assert out.read_bytes() == before
    (row,) = asked(scans / "a.png", "--out", out, "--beams", 2, "--overwrite")
    assert json.loads(out.read_text(encoding="utf-8")) == row
    assert row["decoding"]["num_beams"] == 2


def test_no_other_file_is_overwritten_even_if_asked(asked: Asked, scans: Path, tmp_path: Path) -> None:
    picture, other = tmp_path / "mine.png", tmp_path / "other.png"
    for path in (picture, other):
        shutil.copy(scans / "a.png", path)
    report, rows = tmp_path / "one_line.json", tmp_path / "scored.jsonl"
    report.write_text('{"image": "a.png", "label": 1}')
    rows.write_text('{"id": "1", "prediction": "x", "references": ["y"]}\n')
    for out in (picture, other, report, rows):
        before = out.read_bytes()
        for flags in ([], ["--overwrite"]):
            asked(picture, "--out", out, *flags)
            assert asked.code == 3
            assert ("one of the pictures" if out == picture else "holds no predictions of this command") in asked.err
            assert out.read_bytes() == before
    os.mkfifo(tmp_path / "device")
    asked(picture, "--out", tmp_path / "device", "--overwrite")
    assert (asked.code, (tmp_path / "device").is_fifo()) == (2, True)
    # Cut off within its first line, or empty, it is begun anew.
    for text in ("", '{"ima', '{"image": "a', '{"image": "胸'):
        rows.write_bytes(text.encode()[:13])
        assert len(asked(picture, "--out", rows)) == 1


def test_a_picture_that_changed_is_asked_again(asked: Asked, scans: Path, tmp_path: Path) -> None:
    picture, out = tmp_path / "a.png", tmp_path / "p.jsonl"
    shutil.copy(scans / "a.png", picture)
    (first,) = asked(picture, "--out", out)
    Image.new("L", (50, 50)).save(picture)
    (second,) = asked(picture, "--out", out)
    assert first["sha256"] != second["sha256"]


def test_draws_by_seed(asked: Asked, scans: Path) -> None:
    flags = ["--temperature", 2, "--top-p", 0.95]
    together = asked(scans, *flags, "--seed", 1)
    (alone,) = asked(scans / "c16.png", *flags, "--seed", 1, "--batch-size", 1)
    assert alone == together[2]
    assert [row["prediction"] for row in asked(scans, *flags, "--seed", 2)] != [row["prediction"] for row in together]
    assert together[0]["decoding"] | {"seed": 2} == asked(scans / "a.png", *flags, "--seed", 2)[0]["decoding"]


def test_few_shot_and_rationale(asked: Asked, scans: Path, tmp_path: Path) -> None:
    shots = tmp_path / "shots.jsonl"
    rows = [{"prompt": f"is there {word * 9}?", "answer": "yes", "image": "a.png"} for word in ("one ", "two ", "ten ")]
    shots.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (row,) = asked(scans / "a.png", "--prompt", "is there a mass?", "--examples", shots, "--rationale")
    assert row["examples"]["used"] + row["examples"]["dropped"] == 3
    assert row["examples"]["dropped"] > 0
    assert row["prefix"].split("\n")[-1].startswith("answer en is there a mass? Reasons: ")
    assert "ten ten" in row["prefix"]
    assert isinstance(row["rationale"], str)
    assert "paligemma takes one picture" in asked.err
    assert "of 3 have no room in 64 tokens" in asked.err
    (wide,) = asked(
        scans / "a.png", "--prompt", "is there a mass?", "--examples", shots, "--max-prefix-tokens", 400
    )  # fmt: skip
    assert wide["examples"] == {"used": 3, "dropped": 0}
    assert wide["prefix"].count("\n") == 6


def test_reports_are_drafts(asked: Asked, scans: Path) -> None:
    rows = asked(scans / "a.png", scans / "b.JPG", "--task", "report")
    for row in rows:
        assert row["report"]["status"] == DRAFT
        assert row["report"]["findings"] == " ".join(row["prediction"].split())
        assert row["report"]["impression"] == "not stated"
    asked(scans / "a.png", scans / "b.JPG", form="report")
    lines = asked.out.splitlines()
    assert lines.count(DRAFT) == 2
    assert f"Image: {scans / 'b.JPG'}" in lines
    assert "Model: medvlm/tiny-base, run adapted" in lines
    once = asked.out
    asked(scans / "a.png", scans / "b.JPG", form="report")
    assert asked.out == once
    asked(scans / "a.png", "--task", "report", form="text")
    assert DRAFT in asked.out
    (row,) = asked(scans / "a.png", "--task", "report", "--impression-prompt", "is there a nodule?")
    (alone,) = asked(scans / "a.png", "--prompt", "is there a nodule?")
    assert row["report"]["impression"] == alone["prediction"]
    assert row["report"]["impression_from"] == "second pass"


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--beams", "2", "--temperature", "0.5"], 2, "set --beams 1 or --temperature 0"),
        (["--top-p", "0.5"], 2, "set --temperature above 0, or --top-p 1"),
        (["--temperature", "1", "--top-p", "1.5"], 2, "--top-p: "),
        (["--task", "tell"], 2, '--task "tell": expected caption, vqa, report'),
        (["--task", "vqa"], 2, "--task vqa needs the question"),
        (["--task", "caption", "--prompt", "why?"], 2, "has no place for a prompt"),
        (["--prompt", "long " * 90], 2, "--max-prefix-tokens"),
        (["--format", "xml"], 2, "expected text, json or report"),
        (["--examples", "none.jsonl"], 3, "none.jsonl"),
    ],
)
def test_wrong_flags_are_one_line(
    adapter_run: Path, scans: Path, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, said: str
) -> None:
    assert run(["predict", str(adapter_run), str(scans / "a.png"), "-q", *flags]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_what_is_no_picture(asked: Asked, scans: Path, tmp_path: Path) -> None:
    asked(scans / "x.dcm")
    assert (asked.code, asked.err.count("\n")) == (3, 1)
    assert "medvlm prepare dicom" in asked.err
    hidden = tmp_path / "IM0001"
    hidden.write_bytes(b"\0" * 128 + b"DICM")
    asked(hidden)
    assert "DICOM" in asked.err
    asked(tmp_path / "none.png")
    assert "no such picture" in asked.err
    (tmp_path / "empty").mkdir()
    asked(tmp_path / "empty")
    assert "no picture in" in asked.err


def test_latest(
    adapter_run: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    os.symlink(adapter_run, tmp_path / "runs" / "adapted")
    os.symlink("adapted", tmp_path / "runs" / "latest")
    monkeypatch.chdir(tmp_path)
    assert run(["predict", "latest", str(scans / "a.png"), "--format", "json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == "adapted"
