"""`medvlm prepare folder` and `jsonl`: what is shown, that nothing is built before it is confirmed, what errors say."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

from medvlm.cli import run


def _layouts() -> ModuleType:
    path = Path(__file__).parent.parent / "data/sources/layouts_own.py"
    spec = importlib.util.spec_from_file_location("layouts_own_of_cli", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


layouts: Any = _layouts()


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((out / "data").iterdir()) for row in pq.read_table(path).to_pylist()]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of six captions, two of each patient, as the current folder's "own"."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    layouts.captions(tmp_path / "own", 6)
    return Path("own")


def told(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    """Return the lines on stdout and on stderr."""
    printed = capsys.readouterr()
    return printed.out.splitlines(), printed.err.splitlines()


PREPARE = ["prepare", "folder", "--input", "own", "--workers", "1"]
PRIVATE = ["--data-license", "LicenseRef-own-data", "--license", "LicenseRef-own-data"]


def test_the_guess_is_shown_and_its_line_builds(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*PREPARE, "--data-license", "CC-BY-4.0", "--out", "out"]) == 2
    lines, errors = told(capsys)
    assert lines[0] == "own/labels.csv: 3 columns"
    assert [line.split() for line in lines[1:5]] == [
        ["column", "meaning", "first", "value"],
        ["image", "image", "guess", "000.png"],
        ["caption", "text", "to", "learn", "guess", "Radiograph", "0", "of", "the", "chest."],
        ["patient_id", "patient", "or", "study", "guess", "P000"],
    ]
    assert "task: caption (guess)" in lines
    assert "images: own/images, where 6 of the first 6 names lead to a file" in lines
    assert errors[-1] == "medvlm: error: nothing was built: the columns are a guess; run the line above, or add --yes"
    assert not Path("out").exists()
    words = shlex.split(lines[-1])
    assert words[:2] == ["medvlm", "prepare"]
    assert run(words[1:]) == 0
    lines, errors = told(capsys)
    assert not any("guess" in line for line in lines + errors)
    assert sorted(row["group"] for row in rows(Path("out"))) == ["P000", "P000", "P001", "P001", "P002", "P002"]
    assert json.loads(Path("out/manifest.json").read_text())["settings"]["columns"] == {
        "image": "image",
        "text": "caption",
        "group": "patient_id",
    }


def test_whose_the_data_are_must_be_said(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*PREPARE, "--out", "out", "--license", "commercial"]) == 2
    lines, errors = told(capsys)
    assert "no license is stated" in errors[-1]
    assert not Path("out").exists()
    private, published = (shlex.split(line)[1:] for line in lines if line.strip().startswith("medvlm prepare"))
    assert run(private) == 0
    assert {(row["license"], row["commercial_use"]) for row in rows(Path("out"))} == {
        ("LicenseRef-own-data", "conditional")
    }
    assert run([*published, "--overwrite"]) == 0
    assert {row["license"] for row in rows(Path("out"))} == {"CC-BY-4.0"}


def test_a_policy_that_does_not_admit_the_license(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*PREPARE, "--yes", *PRIVATE[:2]]) == 2
    assert "add: --license LicenseRef-own-data" in told(capsys)[1][-1]
    assert run([*PREPARE, "--yes", "--license", "any", "--out", "out"]) == 0
    assert "no license is stated" in "\n".join(told(capsys)[1])
    assert {row["license"] for row in rows(Path("out"))} == {None}


def test_numbers_of_patients_are_warned_of_or_replaced(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*PREPARE, "--yes", *PRIVATE, "--out", "plain"]) == 0
    assert '"patient_id" are copied into the data set as they are' in told(capsys)[1][0]
    assert run([*PREPARE, "--yes", *PRIVATE, "--out", "out", "--hash-ids", "--key", "secret/key"]) == 0
    assert "are copied" not in "\n".join(told(capsys)[1])
    for path in Path("out").rglob("*"):
        if path.is_file():
            assert b"P000" not in path.read_bytes(), path
    assert len({row["group"] for row in rows(Path("out"))}) == 3
    assert "secret" not in Path("out/manifest.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs --input PATH"),
        (["--input", "nowhere"], "nowhere: no such folder"),
        (["--input", "own", "--images", "."], "no file there for any of the first 6 image names"),
        (["--input", "own", "--text-column", "captoin"], 'did you mean "caption"?'),
        (["--input", "own", "--task", "repotr"], 'did you mean "report"?'),
        (["--input", "own", "--task", "vqa"], "--question-column NAME"),
        (["--input", "own", "--task", "vqa", "--sections", "both"], "only reports have sections"),
        (["--input", "own", "--sections", "finding"], "--sections"),
        (["--input", "own", "--data-license", "mine"], "LicenseRef-own-data"),
        (["--input", "own", "--hash-ids"], "add --key FILE"),
        (["--input", "own", "--key", "k"], "add --hash-ids"),
        (["--input", "own", "--hash-ids", "--key", "data/folder/key"], "a file outside"),
        (["--input", "own", "--out", "own/out"], "lies within own"),
        (["--input", "own/labels.csv", "--out", "own/images/out"], "lies within"),
        (["--input", "own", "--phi", "starict"], "--phi"),
        (["--input", "own", "--only", "langauge=en"], 'did you mean "language"?'),
    ],
)
def test_errors_are_one_line(own: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert run(["prepare", "folder", *arguments]) in (2, 3)
    line = told(capsys)[1][-1]
    assert line.startswith("medvlm: error: ")
    assert words in line
    assert sorted(path.name for path in Path().iterdir()) == ["own"]


def test_nothing_of_a_table_is_obeyed_by_a_terminal(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;gotcha\x07\x9b31m"
    names = [path.name for path in sorted(Path("own/images").iterdir())]
    layouts.write_table(own / "labels.csv", [{f"pic{evil}": name, "caption": f"One {evil} two"} for name in names])
    run([*PREPARE, "--data-license", "CC0-1.0"])
    run([*PREPARE])
    run([*PREPARE, "--text-column", "nothing"])
    out, err = capsys.readouterr()
    assert "pic" in out
    assert all(letter.isprintable() or letter == "\n" for letter in out + err)
    assert "--yes" in out


def _on_terminal(answer: bytes, command: list[str]) -> tuple[int, str]:
    """Run a command on a pseudo-terminal, and answer its question."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, answer)
    told = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        told += piece
    os.close(ours)
    return process.wait(timeout=60), told.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_terminal_it_asks(own: Path) -> None:
    script = "from medvlm.cli import main; main()"
    command = [sys.executable, "-c", script, *PREPARE, "--data-license", "CC0-1.0", "--out", "out"]
    code, told = _on_terminal(b"n\n", command)
    assert "shall it be built? [y/N]" in told
    assert (code, "nothing was built" in told, Path("out").exists()) == (2, True, False)
    code, told = _on_terminal(b"y\n", command)
    assert code == 0
    assert "6 samples in 3 groups" in told


def test_conversations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    layouts.llava(tmp_path / "own", 3)
    command = ["prepare", "jsonl", "--input", "own", "--workers", "1", "--out", "out"]
    assert run(command) == 2
    lines, errors = told(capsys)
    assert lines[0] == "own/chats.jsonl: format llava (guess: --format names another)"
    assert "  first question: What is seen in 0?" in lines
    assert "no license is stated" in errors[-1]
    _, published = (shlex.split(line)[1:] for line in lines if line.strip().startswith("medvlm prepare"))
    assert run(published) == 0
    assert [(row["prompt"], row["target"]) for row in sorted(rows(Path("out")), key=lambda row: row["id"])[:2]] == [
        ("What is seen in 0?", "The chest."),
        ("Is it normal?", "Yes."),
    ]
    assert run([*command[:-1], "before", "--data-license", "CC0-1.0", "--context", "before", "--quiet"]) == 0
    assert {row["prompt"] for row in rows(Path("before"))} >= {
        "Question: What is seen in 0?\nAnswer: The chest.\nQuestion: Is it normal?"
    }
    told(capsys)
    assert run([*command, "--format", "lava"]) == 2
    assert 'did you mean "llava"?' in told(capsys)[1][-1]


@pytest.mark.parametrize("verb", ["folder", "jsonl"])
def test_help_names_what_it_takes(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("--data-license", "LicenseRef-own-data", "--hash-ids", "--images", "Example"))


def test_two_runs_give_the_same_bytes(own: Path) -> None:
    written: list[dict[str, bytes]] = []
    for out in ("one", "two"):
        assert run([*PREPARE, "--yes", *PRIVATE, "--quiet", "--out", out]) == 0
        written.append({path.name: path.read_bytes() for path in Path(out, "data").iterdir()})
    assert written[0] == written[1]


def test_the_same_again_is_up_to_date(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*PREPARE, "--yes", *PRIVATE, "--out", "out"]
    assert run(command) == 0
    assert run(command) == 0
    assert told(capsys)[0][-1] == "out: up to date (6 samples)"


@pytest.mark.parametrize(
    ("name", "words"), [("a.dcm", "medvlm prepare dicom"), ("b.nii.gz", "slices of volumes as PNG")]
)
def test_what_is_no_picture(own: Path, capsys: pytest.CaptureFixture[str], name: str, words: str) -> None:
    (own / "images" / name).write_bytes(b"DICM")
    layouts.write_table(own / "labels.csv", [{"image": name, "caption": "Text."}])
    assert run([*PREPARE, "--yes", "--data-license", "CC0-1.0"]) == 3
    assert words in told(capsys)[1][-1]


def test_a_table_named_after_a_patient_leaves_no_name(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Search every file of the data set, manifest and rejects with it."""
    for name in ("Mueller_Hans", "Schmidt_Eva"):
        layouts.pictures(Path("both") / name, 2)
        table = [{"file_name": f"{n:03}.png", "caption": f"C{n}", "patient_id": name} for n in range(3)]
        layouts.write_table(Path("both") / name / "metadata.csv", table)
    command = ["prepare", "folder", "--input", "both", "--workers", "1", "--yes", *PRIVATE, "--out", "out"]
    assert run([*command, "--hash-ids", "--key", "secret/key"]) == 0
    assert len(rows(Path("out"))) >= 2
    for path in Path("out").rglob("*"):
        if path.is_file():
            assert b"Mueller" not in path.read_bytes(), path
            assert b"Schmidt" not in path.read_bytes(), path


def test_studies_are_told_from_patients(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = Path("own/labels.csv").read_text()
    Path("own/labels.csv").write_text(table.replace("patient_id", "study_id"))
    assert run([*PREPARE, "--yes", *PRIVATE, "--out", "out"]) == 0
    assert any('"study_id" tells studies or stays, not patients' in line for line in told(capsys)[0])
    Path("own/labels.csv").write_text(table.replace("patient_id", "Pat.-Nr."))
    assert run([*PREPARE, "--yes", *PRIVATE, "--out", "out2"]) == 0
    lines, errors = told(capsys)
    assert not any("not patients" in line for line in lines)
    assert '"Pat.-Nr." are copied' in errors[0]
    assert len({row["group"] for row in rows(Path("out2"))}) == 3
    Path("own/labels.csv").write_text(table.replace("patient_id", "Fallnummer"))
    assert run([*PREPARE, "--yes", *PRIVATE, "--out", "out3"]) == 0
    lines, errors = told(capsys)
    assert any('"Fallnummer" tells studies or stays, not patients' in line for line in lines)
    assert '"Fallnummer" are copied' in errors[0]


def test_the_command_in_the_manifest_keeps_what_was_given_as_none(own: Path) -> None:
    assert run([*PREPARE, "--group-column", "none", "--organ-column", "none", "--yes", *PRIVATE, "--out", "out"]) == 0
    llava = ["prepare", "jsonl", "--input", str(layouts.llava(Path("talks"), 2)), "--workers", "1"]
    assert run([*llava, "--group-column", "none", "--data-license", "CC0-1.0", "--out", "out2"]) == 0
    for out in ("out", "out2"):
        command = json.loads(Path(out, "manifest.json").read_text())["command"]
        assert "--group-column none" in command
        assert ("--organ-column none" in command) == (out == "out")
        assert run([*shlex.split(command)[1:], "--workers", "1", "--out", f"{out}-again"]) == 0
        assert rows(Path(f"{out}-again")) == rows(Path(out))


def test_columns_of_questions_are_shown_and_their_line_builds(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {
        "question": "What is it?",
        "answer": "Lung",
        "content_type": "Organ",
        "answer_type": "OPEN",
        "organ": "Chest",
    }
    names = ";".join(f"{n:03}.png" for n in range(6))
    layouts.write_table(
        Path("own/labels.csv"), [{"image": names + ";000.png" * 80, **said}, {"image": "000.png", **said}]
    )
    assert run([*PREPARE, *PRIVATE, "--out", "out"]) == 2
    lines, _ = told(capsys)
    assert not any("the picture itself" in line for line in lines)
    assert "--question-type-column content_type" in lines[-1]
    assert run(shlex.split(lines[-1])[1:]) == 0
    assert [(row["question_type"], row["answer_type"], row["organ"]) for row in rows(Path("out"))] == [
        ("Organ", "open", "chest")
    ]
