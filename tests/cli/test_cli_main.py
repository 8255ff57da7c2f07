"""The frame of the command line: one line an error, documented codes, nothing heavy before a verb runs."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medvlm import cli, errors
from medvlm.cli import VERBS, run

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "evaluate", "pyarrow", "lxml")


def test_nothing_heavy_is_loaded_for_help() -> None:
    code = (
        "import sys; from medvlm.cli import build_app; build_app(); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "verb",
    [
        *VERBS,
        "prepare pmc",
        "prepare vqa-rad",
        "prepare phantom",
        "licenses show",
        "data show",
        "data merge",
        "inspect words",
        "inspect attention",
        "inspect hits",
    ],
)
def test_every_verb_explains_itself_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*verb.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert "Example" in said
    if verb not in ("prepare", "data", "inspect"):
        assert "--quiet" in said
        assert "--debug" in said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["evl"], 2, "eval"),
        (["eval", "--metric", "bleu"], 2, "--metric"),
        (["eval", "--metrics", "blue"], 2, 'did you mean "bleu"?'),
        (["eval", "--metrics", ""], 2, "metric"),
        (["eval", "--split", "dev"], 2, "expected train, validation or test"),
        (["eval", "x", "--predictions", "y.jsonl"], 2, "not both"),
        (["eval", "--limit", "0"], 2, "--limit"),
        (["prepare", "pcm"], 2, 'did you mean "pmc"?'),
        (["prepare", "mimic-cxr"], 2, "--input"),
        (["prepare", "pmc", "--license", "free beer"], 2, "free beer"),
        (["finetune"], 2, "Missing argument 'recipe'"),
        (["finetune", "tiny", "seed"], 2, "key=value"),
        (["finetune", "nothing.yaml"], 3, "shipped recipes"),
        (["eval"], 3, "no finished run"),
        (["eval", "--predictions", "none.jsonl"], 3, "none.jsonl"),
        (["report", "none"], 3, "none"),
    ],
)
def test_one_line_and_its_code(
    arguments: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == code
    error = capsys.readouterr().err.strip()
    assert error.startswith("medvlm: error: ")
    assert len(error.splitlines()) == 1
    assert said in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.MissingExtraError("DICOM", "dicom"), 5, "pip install 'medvlm[dicom]'"),
        (errors.LicenseError("no"), 6, "no"),
        (OSError(errno.ENOSPC, "No space left", "f"), 7, "f: no space left"),
        (MemoryError(), 7, "out of memory"),
        (PermissionError(errno.EACCES, "Permission denied", "f"), 3, "f: Permission denied"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "f"), 3, "f: File name too long"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("two\nlines"), 1, "a defect in medvlm"),
    ],
)
def test_every_failure_has_its_code(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Any:
        raise error

    monkeypatch.setattr(cli, "build_app", fail)
    assert run([]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_debug_shows_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["eval", "--debug"]) == 3
    assert "Traceback" in capsys.readouterr().err
    assert run(["eval"]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from medvlm import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"medvlm {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["finetune", "r.yaml", "-q"], "--resume"),
        (["finetune", "r.yaml", "--dry-run"], "nothing was trained"),
        (["prepare", "pmc"], "the same command"),
        (["--debug", "eval"], "the same command"),
        (["predict", "latest", "a.png", "--out", "b"], "the same command"),
        (["predict", "latest", "a.png"], "nothing was changed"),
        (["export", "latest", "--out", "b"], "nothing was changed"),
    ],
)
def test_an_interrupt_tells_how_this_verb_goes_on(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build_app", interrupted)
    assert run(arguments) == 130
    error = capsys.readouterr().err
    assert said in error
    assert ("--resume" in error) == (said == "--resume")
