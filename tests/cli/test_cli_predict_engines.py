"""`medvlm predict` by other engines, by several copies, by published models, and after a kill."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvlm.cli import run
from medvlm.io import write_json
from medvlm.runs import Run


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures of noise."""
    folder = tmp_path_factory.mktemp("noise")
    chance = np.random.default_rng(0)
    for number in range(16):
        Image.fromarray(chance.integers(0, 255, (32, 32), dtype=np.uint8)).save(folder / f"{number:02}.png")
    return folder


def answers(path: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["image"], row["prediction"]) for row in rows]


@pytest.mark.slow
def test_killed_by_the_system_it_goes_on(adapter_run: Path, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    words = ["predict", str(adapter_run), str(scans), "-q", "--batch-size", "1", "--out"]
    # What it prints goes into a pipe of a page that nobody reads, so it is at work still when the pipe is full.
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-c", "from medvlm.cli import main; main()", *words, str(out), "--format", "json"]
    process = subprocess.Popen(command, stdout=writer)
    deadline = time.monotonic() + 300
    while not out.is_file() or out.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    os.close(reader)
    os.close(writer)
    kept = out.read_bytes()
    assert kept.count(b"\n") < 16
    assert run([*words, str(out)]) == 0
    assert run([*words, str(tmp_path / "whole.jsonl")]) == 0
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert out.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])


def test_another_process_at_the_file(
    adapter_run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from medvlm.evaluate.resume import held

    out = tmp_path / "p.jsonl"
    with held(out):
        assert run(["predict", str(adapter_run), str(scans), "--out", str(out), "-q"]) == 3
    assert "another process is writing predictions there" in capsys.readouterr().err


def test_a_published_model_is_asked_as_it_is(
    adapter_run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from medvlm.evaluate import predict

    folder = tmp_path / "baseline"
    folder.mkdir()
    shutil.copy(adapter_run / "recipe.yaml", folder)
    facts = Run(adapter_run).facts()
    write_json(folder / "run.json", facts | {"kind": "baseline"})
    picture = scans / "00.png"
    assert run(["predict", str(folder), str(picture), "--format", "json", "-q"]) == 0
    row = json.loads(capsys.readouterr().out)
    recipe = Run(folder).recipe()
    base = predict.Predictor(predict.load_plain(recipe), recipe)
    assert [row["prediction"]] == base.answers([Image.open(picture).convert("RGB")], [row["prefix"]])


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_is_an_extra(adapter_run: Path, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(adapter_run), str(scans), "--engine", "vllm", "-q"]) == 5
    assert "pip install 'medvlm[vllm]'" in capsys.readouterr().err


def test_no_such_engine(adapter_run: Path, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(adapter_run), str(scans), "--engine", "transfomers", "-q"]) == 2
    assert 'did you mean "transformers"?' in capsys.readouterr().err


@pytest.mark.slow
def test_two_copies_write_the_same_file(adapter_run: Path, scans: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="the extra medvlm[ray] is not installed")
    words = ["predict", str(adapter_run), str(scans), "-q", "--batch-size", "4", "--out"]
    try:
        assert run([*words, str(tmp_path / "two.jsonl"), "--workers", "2"]) == 0
    finally:
        ray.shutdown()
    assert run([*words, str(tmp_path / "one.jsonl")]) == 0
    assert answers(tmp_path / "one.jsonl") == answers(tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
