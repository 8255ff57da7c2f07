"""The GPU benchmark on tiny models: every path runs, one loss both ways, sums that can be checked by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu_paligemma448.py"


@pytest.fixture(scope="module", params=["paligemma-3b-448", pytest.param("git-llama-7b-448", marks=pytest.mark.slow)])
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("benchmark") / "result.json"
    command = [sys.executable, str(SCRIPT), "--tiny", "--cpu", "--batches", "1", "--out", str(out)]
    command += ["--models", request.param]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    loaded: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return loaded


def test_every_case_runs(result: dict[str, Any]) -> None:
    cases = [case for case in result["cases"] if "batch" in case]
    assert [case.get("error") for case in cases] == [None] * len(cases)
    seen = {(case["method"], case["way"], case["checkpointing"], case["compile"]) for case in cases}
    ways = [("medvlm", False, False), ("medvlm", True, False), ("hf", False, False)]
    wanted = {(method, *way) for method in ("lora", "qlora") for way in ways}
    assert seen == wanted | {("lora", "medvlm", False, True)}
    assert {"seed", "n", "machine", "device", "goals"} <= result.keys()


def test_both_ways_have_the_same_loss(result: dict[str, Any]) -> None:
    pairs = result["goals"]["against_hf"]
    assert len(pairs) == 2
    # In bfloat16, whose rounding depends on the shapes of the products.
    assert all(pair["loss_difference"] < 5e-3 for pair in pairs)


def test_the_arithmetic_holds_together(result: dict[str, Any]) -> None:
    for case in result["cases"]:
        if "seconds" in case:
            assert case["tflops"] == pytest.approx(case["useful_flops"] / case["seconds"] / 1e12)
            assert case["samples_per_second"] == pytest.approx(case["batch"] / case["seconds"])
            assert (case["recomputed_flops"] > 0) == case["checkpointing"]


def test_the_roofline_takes_the_longer_of_both_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu_paligemma448 as benchmark

    # 2e15 operations at 1000 TFLOP/s take 2 s; 1e12 bytes at 4 TB/s a quarter of one.
    found = benchmark.roofline(15 * 10**14, 5 * 10**14, 10**12, 1000.0, 4e12)
    assert found["least_seconds_arithmetic"] == pytest.approx(2.0)
    assert found["least_seconds_memory"] == pytest.approx(0.25)
    assert found["limited_by"] == "arithmetic"
    assert benchmark.roofline(10**12, 0, 10**12, 1000.0, 4e12)["limited_by"] == "memory"
