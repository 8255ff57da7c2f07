"""The whole way on real input: articles and VQA-RAD in, a tuned tiny model at 448 px, scores and a report out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medvlm.cli import run
from medvlm.runs import open_run

pytestmark = pytest.mark.realdata

STEPS = [
    "train.max_steps=2", "train.gradient_accumulation=1", "train.batch_size=2", "train.eval_samples=2",
    "train.workers=0", "eval.batch_size=2", "eval.max_new_tokens=8",
]  # fmt: skip


def train_and_report(tiny: Path, data: str, split: str) -> Path:
    """Tune the tiny model by the real recipe at 448 px, evaluate, write the report; return the run's folder."""
    assert run(["finetune", "recipes/paligemma448.yaml", f"model.id={tiny}", f"data.0.path={data}", *STEPS]) == 0
    assert run(["eval", "--metrics", "bleu,rouge,cider", "--split", split, "--limit", "4"]) == 0
    assert run(["report", "runs/latest"]) == 0
    return open_run(None).path


def check_run(path: Path, split: str) -> None:
    model = open_run(path).facts()["model"]
    assert (model["image_size"], model["checkpoint_image_size"], model["image_tokens"]) == (448, 112, 1024)
    assert model["resampled_position_embeddings"]
    census = open_run(path).facts()["census"]
    assert census["language_model"]["quantized"] > 0 == census["vision_tower"]["quantized"]
    scores = json.loads((path / "eval" / split / "scores.json").read_text(encoding="utf-8"))
    assert set(scores["rows"]) == {"model", "base", "constant"}
    assert set(scores["controls"]["rows"]) == {"model", "blank", "shuffled"}
    assert scores["n"] == 4
    page = (path / "report.html").read_text(encoding="utf-8")
    assert '<img src="data:image/' in page
    assert (path / "report.md").is_file()


def test_articles_with_their_images(
    realdata: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = [realdata / name for name in ("jats_with_images_encoda", "jats_with_tif_elife_bot")]
    selection = [part for folder in inputs for part in ("--input", str(folder))]
    assert run(["prepare", "pmc", *selection, "--quiet"]) == 0
    manifest = json.loads(Path("data/pmc/manifest.json").read_text(encoding="utf-8"))
    # 59 figures of the articles beside their images and one of the package with TIFF, all under CC BY or CC0.
    assert manifest["counts"]["samples"] == 60
    # The 19 supplements are tables, texts and source data.
    assert manifest["drops"] == {
        "equation image": 342,
        "supplement is no image": 19,
        "table image": 5,
        "inline graphic": 1,
    }
    check_run(train_and_report(tiny_folder, "data/pmc", "validation"), "validation")


def test_vqa_rad(realdata: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["prepare", "vqa-rad", "--input", str(realdata / "vqa_rad"), "--quiet"]) == 0
    check_run(train_and_report(tiny_folder, "data/vqa-rad", "test"), "test")
