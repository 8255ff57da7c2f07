"""A classifier through the real command line: trained, resumed, scored and asked; what it cannot do is one line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prepared import write_folder

from medvlm.cli import run as medvlm
from medvlm.runs import Run

TINY = [
    "model.id=medvlm/tiny-random",
    "model.dtype=float32",
    "text.max_prefix_tokens=30",
    "train.learning_rate=1e-3",
    "train.batch_size=4",
    "train.gradient_accumulation=1",
    "train.max_steps=12",
    "train.eval_samples=2",
    "train.workers=0",
    "train.trackers=[]",
    "eval.batch_size=4",
]
PARTS = ["model.vision_tower=null", "model.language_model=null"]


def trained(name: str, folder: Path, *more: str) -> Run:
    parts = PARTS if name in ("visual_bert", "lxmert") else []
    assert medvlm(["finetune", f"recipes/{name}_vqa.yaml", *TINY, *parts, *more, "--quiet"]) == 0
    return Run((folder / "runs" / "latest").resolve())


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 90), dtype=np.uint8)).save(path)
    return str(path)


LORA = ["adapters.language_model.kind=lora", "adapters.language_model.r=4"]
WAYS = [
    pytest.param("vilt", [], id="vilt"),
    pytest.param("visual_bert", LORA, id="visual_bert-lora", marks=pytest.mark.slow),
    pytest.param("lxmert", [], id="lxmert", marks=pytest.mark.slow),
    pytest.param("flava", LORA, id="flava-lora", marks=pytest.mark.slow),
    pytest.param("vilt", LORA, id="vilt-lora", marks=pytest.mark.slow),
    pytest.param("visual_bert", [], id="visual_bert", marks=pytest.mark.slow),
    pytest.param("lxmert", LORA, id="lxmert-lora", marks=pytest.mark.slow),
    pytest.param("flava", [], id="flava", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_trained_scored_and_asked(
    name: str, way: list[str], at_shelf: Path, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(name, at_shelf, *way)
    facts = run.facts()
    assert (facts["status"], facts["result"]["steps"]) == ("finished", 12)
    fitted = run.fitted()
    assert sorted(fitted["answers"]) == ["left lung", "right lung"]
    assert (fitted["rows"], fitted["outside"]) == (8, 0)
    losses = [line["loss"] for line in rows(run.path / "metrics.jsonl") if "loss" in line]
    # Two classes: chance is ln 2 = 0.69, and eight pictures can be learned by heart.
    assert losses[-1] < 0.9 * losses[0]
    capsys.readouterr()
    assert medvlm(["eval", "latest", "--metrics", "vqa", "--controls", "none"]) == 0, capsys.readouterr().err
    scored = rows(run.path / "eval" / "test" / "predictions.jsonl")
    assert {row["task"] for row in scored} == {"vqa"}
    assert {row["prediction"] for row in scored} <= set(fitted["answers"])
    right = np.mean([row["prediction"] in row["references"] for row in scored])
    scores = json.loads((run.path / "eval" / "test" / "scores.json").read_text(encoding="utf-8"))
    assert scores["rows"]["model"]["accuracy"] == right
    capsys.readouterr()
    for _ in range(2):
        assert medvlm(["predict", "latest", picture, "--prompt", "Where?", "--format", "json"]) == 0
    answers = [json.loads(line)["prediction"] for line in capsys.readouterr().out.splitlines()]
    assert answers[0] == answers[1]
    assert answers[0] in fitted["answers"]
    for words, code, told in (
        (["--format", "report"], 2, "chooses answers"),
        (["--prompt", "Where?", "--temperature", "0.5"], 3, "eval.temperature"),
    ):
        assert medvlm(["predict", "latest", picture, *words]) == code
        said = capsys.readouterr().err
        assert told in said
        assert "Traceback" not in said


def test_a_resumed_run_keeps_its_classes(at_shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Of 12 steps, it goes on after the fourth.
    more = ("train.save_every=4", "train.keep_checkpoints=9")
    whole = trained("vilt", at_shelf, *more)
    steps = {line["step"]: line["loss"] for line in rows(whole.path / "metrics.jsonl") if "loss" in line}
    for late in (8, 12):
        shutil.rmtree(whole.path / "checkpoints" / f"checkpoint-{late}")
    before = (whole.path / "fitted.json").read_bytes()
    whole.record({**whole.facts(), "status": "interrupted"})
    (whole.path / "model" / "model.safetensors").unlink()
    (whole.path / "fitted.json").rename(at_shelf / "kept.json")
    capsys.readouterr()
    assert medvlm(["finetune", "recipes/vilt_vqa.yaml", *TINY, *more, "--resume", "--quiet"]) == 3
    assert "fitted.json: missing" in capsys.readouterr().err
    (at_shelf / "kept.json").rename(whole.path / "fitted.json")
    assert trained("vilt", at_shelf, *more, "--resume").path == whole.path
    assert whole.facts()["status"] == "finished"
    assert whole.facts()["resumed"]
    assert (whole.path / "fitted.json").read_bytes() == before
    again = {line["step"]: line["loss"] for line in rows(whole.path / "metrics.jsonl") if "loss" in line}
    assert again == pytest.approx(steps, abs=1e-5)
    assert (whole.path / "model" / "model.safetensors").is_file()


ANSWERS = {
    "first": {"train": "LLLLLRRN", "validation": "LM", "test": "LH"},
    "second": {"train": "RRRRLLMM", "validation": "MM", "test": "LH"},
}
"""Data set -> split -> answers by their first letters. The second has another order of frequency and new answers."""
NAMED = {"L": "left lung", "R": "right lung", "N": "none", "M": "mediastinum", "H": "heart"}
SHORT = ("train.max_steps=2", "train.batch_size=8", "train.eval_samples=2")


@pytest.fixture
def two_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with questions in data/first and data/second."""
    from medvlm.data.sources.phantom.base_grammar import base_samples

    monkeypatch.chdir(tmp_path)
    base = next(iter(base_samples(5, 0)))
    for name, splits in ANSWERS.items():
        made = {
            split: [
                dataclasses.replace(base, id=f"{split}{i}", task="vqa", prompt="Where?", target=NAMED[letter])
                for i, letter in enumerate(letters)
            ]
            for split, letters in splits.items()
        }
        write_folder(tmp_path / "data" / name, made)
    return tmp_path


def test_a_second_stage_keeps_the_classes_of_the_first(two_sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = trained("vilt", two_sets, *SHORT, "data.0.path=data/first", "name=first")
    assert first.fitted()["answers"] == ["left lung", "right lung", "none"]
    assert [line for line in rows(first.path / "metrics.jsonl") if "eval_loss" in line]
    capsys.readouterr()
    start = f'model.start="{first.path}"'
    still = ("train.learning_rate=1e-12", "adapters.head.learning_rate=1e-12")
    second = trained("vilt", two_sets, *SHORT, "data.0.path=data/second", "name=second", start, *still)
    assert "2 of 8 training rows have no loss" in capsys.readouterr().err
    assert second.fitted() == {"answers": first.fitted()["answers"], "rows": 8, "outside": 2}
    assert second.facts()["fitted"] != first.facts()["fitted"]
    # Neither validation row has an answer that the classifier knows.
    assert not [line for line in rows(second.path / "metrics.jsonl") if "eval_loss" in line]
    for run in (first, second):
        assert medvlm(["eval", str(run.path), "--metrics", "vqa", "--controls", "none", "--bootstrap", "0"]) == 0
    told = capsys.readouterr()
    assert "chooses from 3 answers of its training rows, and 1 of 2 samples have a reference among them" in told.err
    scores = json.loads((first.path / "eval" / "test" / "scores.json").read_text(encoding="utf-8"))
    assert scores["vocabulary"] == {"answers": 3, "n": 2, "known": 1, "share": 0.5}
    one, other = (
        [row["prediction"] for row in rows(run.path / "eval/test/predictions.jsonl")] for run in (first, second)
    )
    assert one == other
    words = ["finetune", "recipes/vilt_vqa.yaml", *TINY, *SHORT, "data.0.path=data/second", start, "train.best=loss"]
    capsys.readouterr()
    assert medvlm([*words, "--quiet"]) == 3
    assert "none of 2 validation rows has a loss" in capsys.readouterr().err


def test_captions_are_refused_in_one_line(at_shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["finetune", "recipes/vilt_vqa.yaml", *TINY, "data.0.tasks=[vqa,caption]"]
    for more in ([], ["--dry-run"]):
        assert medvlm([*words, *more]) == 3
        said = capsys.readouterr().err
        assert "data.0.tasks: ['vqa', 'caption']" in said
        assert "expected [vqa]" in said
        assert "Traceback" not in said
    assert not (at_shelf / "runs").exists()
