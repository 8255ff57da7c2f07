"""`medvlm prepare` at the command line: what it prints, its exit codes, one line for each error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medvlm.cli import run
from medvlm.data.sources.phantom.source import PhantomSource

ARTICLE = """<?xml version="1.0"?>
<article xmlns:xlink="http://www.w3.org/1999/xlink" article-type="research-article" xml:lang="en"><front><article-meta>
<article-id pub-id-type="pmc">{pmcid}</article-id><permissions>
<license xlink:href="{license}"><license-p>Open.</license-p></license></permissions></article-meta></front>
<body><fig id="f1"><label>Figure 1</label><caption><p>A caption.</p></caption>
<graphic xlink:href="one.png"/></fig></body></article>"""
CC_BY = "https://creativecommons.org/licenses/by/4.0/"
CC_BY_NC = "https://creativecommons.org/licenses/by-nc/4.0/"


def article(folder: Path, pmcid: str = "PMC77", license: str = CC_BY) -> Path:
    """Write an article of one figure and return its folder."""
    import PIL.Image

    folder.mkdir(parents=True)
    (folder / "main.nxml").write_text(ARTICLE.format(pmcid=pmcid, license=license))
    PIL.Image.new("L", (32, 24), 90).save(folder / "one.png")
    return folder


def failing_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr, and make sure that it is one."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("medvlm: error: ")
    return lines[0]


def test_articles_to_parquet_then_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["prepare", "pmc", "--input", str(article(tmp_path / "a")), "--out", str(out), "--split-ratio", "1,0,0"]
    assert run(command) == 0
    printed = capsys.readouterr().out
    assert f"1 samples in 1 groups from 1 units -> {out}" in printed
    assert "CC-BY-4.0" in printed
    assert f"next: medvlm finetune recipes/paligemma448.yaml data.0.path={out}" in printed
    row = pq.read_table(out / "data/train-00000-of-00001.parquet").to_pylist()[0]
    assert row["image"]["bytes"] == (tmp_path / "a/one.png").read_bytes()
    assert (row["target"], row["license"], row["group"]) == ("A caption.", "CC-BY-4.0", "PMC77")
    assert run(command) == 0
    assert capsys.readouterr().out == f"{out}: up to date (1 samples)\n"


def test_every_empty_split_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prepare", "pmc", "--quiet", "--input", str(article(tmp_path / "a")), "--out"]
    assert run([*command, str(tmp_path / "one"), "--split-ratio", "8,1,1"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in lines] == [
        f" no sample fell into {split}" for split in ("validation", "test")
    ]
    for line in lines:
        assert line.startswith("warning: ")
        assert all(word in line for word in ("--split-ratio", "--seed", "medvlm eval --split takes train"))
    assert run([*command, str(tmp_path / "two"), "--split-ratio", "1,0,0"]) == 0
    assert capsys.readouterr().err == ""


def test_other_settings_name_the_ways_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prepare", "pmc", "--quiet", "--input", str(article(tmp_path / "a")), "--out", str(tmp_path / "out")]
    assert run(command) == 0
    capsys.readouterr()
    assert run([*command, "--seed", "1"]) == 3
    line = failing_line(capsys)
    assert "--out" in line
    assert "--overwrite" in line
    assert run([*command, "--seed", "1", "--overwrite"]) == 0


def test_the_same_article_in_two_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = [str(article(tmp_path / name)) for name in "ab"]
    assert run(["prepare", "pmc", "--input", inputs[0], "--input", inputs[1], "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "1 samples" in printed
    assert "duplicate id" in printed


def test_the_embedded_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = PhantomSource.units
    monkeypatch.setattr(PhantomSource, "units", lambda self: everything(self)[:20])
    monkeypatch.chdir(tmp_path)
    assert run(["prepare", "pmc", "--workers", "1"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert "embedded synthetic sample" in first
    assert "--input PATH" in first
    assert (tmp_path / "data/pmc/manifest.json").is_file()
    assert "synthetic samples" in rest[0]
    assert "synthetic" in (tmp_path / "data/pmc/README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["pcm"], 2, 'unknown source "pcm" (did you mean "pmc"?)'),
        (["mimic-cxr"], 2, "--input PATH"),
        (["phantom", "--kind", "sampel"], 2, 'did you mean "sample"?'),
        (["pmc", "--split-ratio", "1,2"], 2, "--split-ratio"),
        (["pmc", "--license", "CC-BY-4.0,,"], 2, "--license"),
        (["pmc", "--colour"], 2, "--colour"),
        (["pmc", "--workers", "-1"], 2, "--workers"),
        (["pmc", "--input", "nowhere"], 3, "nowhere"),
        (["vqa-rad", "--input", "nowhere"], 3, "nowhere"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["prepare", *arguments]) == code
    assert words in failing_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_nothing_admitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = article(tmp_path / "a", license=CC_BY_NC)
    assert run(["prepare", "pmc", "--input", str(folder), "--out", str(tmp_path / "out")]) == 3
    line = failing_line(capsys)
    assert "license forbids commercial use (1)" in line
    assert "the first is PMC77/f1" in line
    assert not (tmp_path / "out").exists()


def test_interrupt_ends_with_130_and_keeps_the_finished_chunks(tmp_path: Path) -> None:
    out = tmp_path / "out"
    # A shell's background jobs ignore interrupts, and so would what the tests start from within one.
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    script += "from medvlm.cli import main; main()"
    command = [sys.executable, "-c", script, "prepare", "phantom", "--out", str(out)]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    # A group of its own: the interrupt reaches the workers too, as that of a terminal does.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob(".work/*/chunk-*.jsonl"))) < 12 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    lines = [line for line in errors.splitlines() if not line.startswith("prepare: ")]
    # No traceback, and nothing from the workers.
    (line,) = lines
    assert line.startswith("medvlm: error: interrupted")
    assert sorted(path.name for path in out.iterdir()) == [".work", "log.jsonl"]
    assert len(list(out.glob(".work/*/chunk-*.jsonl"))) >= 12


@pytest.mark.realdata
def test_vqa_rad(realdata: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", "vqa-rad", "--input", str(realdata / "vqa_rad"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert f"next: medvlm finetune recipes/paligemma448_vqa.yaml data.0.path={tmp_path / 'out'}" in printed
    assert "3515 samples in 314 groups" in printed
    assert "203" in printed
    sides: dict[str, set[str]] = {}
    for path in (tmp_path / "out/data").iterdir():
        for digest in pq.read_table(path, columns=["sha256"]).column(0).to_pylist():
            sides.setdefault(digest, set()).add(path.name.split("-")[0])
    assert len(sides) == 314
    assert all(len(side) == 1 for side in sides.values())
