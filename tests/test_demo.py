"""The demo's promise: the tuned tiny model beats its base, the constant answer and itself with other images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medvlm.cli import run
from medvlm.runs import open_run


@pytest.mark.slow
def test_the_tuned_model_learns_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        ["prepare", "pmc", "--quiet"],
        ["finetune", "recipes/tiny.yaml", "--quiet"],
        ["eval", "--json", "scores.json", "--quiet"],
        ["report", "runs/latest", "--quiet"],
    ):
        assert run(command) == 0
    scores = json.loads(Path("scores.json").read_text(encoding="utf-8"))
    rows = scores["rows"]
    assert list(rows) == ["model", "base", "constant"]
    assert scores["by_task"]["caption"]["n"] >= 200
    for other in ("base", "constant"):
        assert scores["comparisons"][other]["cider"]["low"] > 0, other
    controls = scores["controls"]
    assert controls["visual_reliance"]["cider"]["low"] > 0
    assert controls["rows"]["blank"]["cider"] < controls["rows"]["model"]["cider"]
    assert rows["model"]["finding_accuracy"] >= rows["constant"]["finding_accuracy"] + 0.2
    assert open_run(None).facts()["data"][0]["synthetic"]
    assert "synthetic" in (open_run(None).path / "report.md").read_text(encoding="utf-8").lower()
