"""Contrastive tuning through the command line: train, evaluate, report, export, and GIT-LLM on the tuned tower."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from medvlm.cli import run as medvlm
from medvlm.evaluate.leakage import train_parts
from medvlm.io import sha256_file
from medvlm.runs import Run

QUICK = [
    "model.dtype=float32",
    "model.image_size=56",
    "train.max_steps=2",
    "train.batch_size=4",
    "train.eval_samples=4",
    "train.workers=0",
    "train.trackers=[]",
    "--quiet",
]


def only_run(name: str) -> Run:
    (path,) = Path("runs").glob(f"*-{name}")
    return Run(path)


@pytest.mark.slow
def test_from_training_to_a_tower(
    at_shelf: Path, git_parts: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model.id=medvlm/tiny-random-siglip", "name=match", *QUICK]
    assert medvlm(["finetune", "recipes/siglip_contrastive.yaml", *words]) == 0, capsys.readouterr().err
    run = only_run("match")
    assert medvlm(["eval", str(run.path), "--quiet", "--bootstrap", "50"]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "image to text, recall at 1, 5, 10: model " in told
    # Two captions, two answers and one report for two pictures.
    assert "at chance 0.667, 1.000, 1.000 (among texts: " in told
    scores = json.loads((run.path / "eval" / "test" / "scores.json").read_text(encoding="utf-8"))
    assert {"model", "base", "constant"} == set(scores["retrieval"]["median_rank"])
    # Every answer is a training text, here one of its task.
    fitted = run.fitted()["candidates"]
    for line in (run.path / "eval" / "test" / "predictions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert row["prediction"] in {text for texts in fitted[row["task"]].values() for text in texts}
    assert medvlm(["report", str(run.path)]) == 0, capsys.readouterr().err
    report = (run.path / "report.md").read_text(encoding="utf-8")
    assert "recall at 10" in report
    assert "distinct:text,file" in report
    assert medvlm(["export", str(run.path), "--merge", "--out", "tower"]) == 0, capsys.readouterr().err
    exported = json.loads(Path("tower/export.json").read_text(encoding="utf-8"))
    assert exported["difference"]["largest_logit"] < 1e-3
    assert exported["difference"]["same_answers"] == exported["difference"]["rows"]
    assert exported["sha256"] == {"model.safetensors": sha256_file("tower/model.safetensors")}
    git = ["model.vision_tower=tower", f"model.language_model={git_parts['opt']}", "name=git", *QUICK[:-1]]
    git += ["data.0.path=data/vqa-rad"]
    capsys.readouterr()
    assert medvlm(["finetune", "recipes/git_opt350m.yaml", *git, "--dry-run"]) == 0, capsys.readouterr().err
    # Of the tower's rights nothing is unknown; the language model in a folder decides.
    said = " ".join(capsys.readouterr().out.split())
    assert f"base model {git_parts['opt']}" in said or "not in the license registry" in said
    assert "base model tower" not in said
    assert medvlm(["finetune", "recipes/git_opt350m.yaml", *git, "--quiet"]) == 0, capsys.readouterr().err
    assert only_run("git").facts()["result"]["steps"] == 2
    # What its tower has seen counts for leaks too.
    assert [Path(part.path).name for part in train_parts(only_run("git"))] == ["vqa-rad", "pmc"]
    bad = [word.replace("=tower", f"={run.path}") for word in git]
    assert medvlm(["finetune", "recipes/git_opt350m.yaml", *bad, "--quiet"]) != 0
    assert "is a run, not a model's folder" in capsys.readouterr().err


@pytest.mark.slow
def test_the_code_of_the_card_runs(at_shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model.id=medvlm/tiny-random-clip", "name=card", *QUICK]
    assert medvlm(["finetune", "recipes/clip_contrastive.yaml", *words]) == 0, capsys.readouterr().err
    assert medvlm(["export", str(only_run("card").path), "--merge", "--out", "out"]) == 0, capsys.readouterr().err
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == "zero-shot-image-classification"
    Image.new("RGB", (80, 60), (90, 90, 90)).save("image.png")
    code = card.split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() in ("no finding", "a pleural effusion"), done.stderr
