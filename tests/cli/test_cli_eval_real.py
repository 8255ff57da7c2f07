"""`medvlm eval` on real files: COCO results with published scores, and the questions of VQA-RAD."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medvlm.cli import run

pytestmark = pytest.mark.realdata


def test_coco_results_score_as_published(realdata: Path, tmp_path: Path) -> None:
    folder = realdata / "metrics" / "coco_val2017_fakecap"
    words = ["eval", "--predictions", str(folder / "captions_val2017_fakecap_results.json"), "--bootstrap", "0"]
    words += ["--references", str(folder / "captions_val2017.json"), "--metrics", "bleu,rouge,cider"]
    assert run([*words, "--json", str(tmp_path / "s.json")]) == 0
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["rows"]["model"]
    peers = json.loads((folder / "sidebyside_coco.json").read_text(encoding="utf-8"))
    bleu = peers["pycocoevalcap ptb BLEU"]
    assert [found[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx([bleu[f"B{n}"] for n in (1, 2, 3, 4)], abs=1e-9)
    assert found["rouge_l"] == pytest.approx(peers["pycocoevalcap ptb ROUGE_L"]["RL"], abs=1e-9)
    assert found["cider"] == pytest.approx(peers["pycocoevalcap ptb CIDEr(=D)"]["CIDEr"], abs=1e-9)
    unclipped = peers["vrama91/cider ptb CIDEr (no clip, no penalty)"]["CIDEr"]
    assert found["cider_unclipped"] == pytest.approx(unclipped, abs=1e-9)


@pytest.mark.slow
def test_the_questions_of_vqa_rad(realdata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["prepare", "vqa-rad", "--input", str(realdata / "vqa_rad"), "--quiet"]) == 0
    words = ["eval", "--model", "medvlm/tiny-base", "--data", "data/vqa-rad", "--limit", "60", "--controls", "10"]
    assert run([*words, "--trained-on", "data/vqa-rad", "--json", "s.json", "--quiet"]) == 0
    found = json.loads(Path("s.json").read_text(encoding="utf-8"))
    assert found["tasks"] == ["vqa"]
    assert {"accuracy", "closed_accuracy", "open_accuracy", "open_recall"} <= set(found["rows"]["model"])
    # The most frequent answer of VQA-RAD is yes or no, right for some closed questions and for no open one.
    constant = found["rows"]["constant"]
    assert found["constant"]["vqa"].strip().lower() in ("yes", "no")
    assert constant["open_accuracy"] == 0 < constant["closed_accuracy"] < 1
    counts = [0, 0]
    (made,) = Path("runs").glob("*baseline*")
    for line in (made / "eval/test/predictions.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
        counts[json.loads(line)["answer_type"] == "closed"] += 1
    assert constant["accuracy"] == pytest.approx(constant["closed_accuracy"] * counts[1] / sum(counts))
    # Preparing puts all questions on one image on one side.
    assert found["leakage"]["images_same"] == 0
    assert any(part["column"] == "answer_type" for part in found["slices"] + found["slices_left_out"])
