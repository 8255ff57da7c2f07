"""`medvlm report` through the real command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from medvlm.cli import report
from medvlm.errors import InputError, UsageError


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    report.register(app)
    app.command("other")(lambda: None)
    return app


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two bare runs under runs/ in the working directory, `latest` among them."""
    for name in ("one", "two"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text('{"status": "finished"}')
    (tmp_path / "runs" / "latest").symlink_to("two")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_run_is_written_into_its_folder(app: typer.Typer, runs: Path) -> None:
    result = CliRunner().invoke(app, ["report", "runs/one"])
    assert result.stdout.splitlines() == ["runs/one/report.html", "runs/one/report.md", "runs/one/report.json"]
    assert (runs / "runs" / "one" / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_without_a_name_the_newest_run(app: typer.Typer, runs: Path) -> None:
    assert CliRunner().invoke(app, ["report", "--quiet"]).exit_code == 0
    assert "<title>two - medvlm report</title>" in (runs / "runs" / "two" / "report.html").read_text()


def test_several_runs_are_written_beside_them_or_where_asked(app: typer.Typer, runs: Path) -> None:
    (runs / "report.md").write_text("mine")
    first = CliRunner().invoke(app, ["report", "one", "runs/two"]).stdout.split()
    assert [Path(path).name for path in first] == ["report.html", "report.md", "report.json"]
    assert Path(first[1]).read_text().startswith("# 2 runs compared\n")
    assert (runs / "report.md").read_text() == "mine", "nothing is replaced where the user happens to be"
    assert Path(first[1]).parent.parent == Path("runs")
    (runs / "runs" / "three").mkdir()
    (runs / "runs" / "three" / "run.json").write_text('{"status": "finished"}')
    other = CliRunner().invoke(app, ["report", "one", "three"]).stdout.split()
    assert set(first).isdisjoint(other), "another comparison goes elsewhere"
    assert CliRunner().invoke(app, ["report", "two", "one"]).stdout.split() == first
    CliRunner().invoke(app, ["report", "one", "two", "--out", "there"])
    assert (runs / "there" / "report.html").is_file()


def test_one_run_under_two_names_is_one_run(app: typer.Typer, runs: Path) -> None:
    result = CliRunner().invoke(app, ["report", "two", "runs/latest"])
    assert result.stdout.split() == ["runs/latest/report.html", "runs/latest/report.md", "runs/latest/report.json"]


def test_no_run(app: typer.Typer, runs: Path) -> None:
    result = CliRunner().invoke(app, ["report", "three"])
    assert isinstance(result.exception, InputError)
    assert "three: no such run folder" in str(result.exception)


def test_help_has_an_example(app: typer.Typer) -> None:
    assert "Example: medvlm report" in CliRunner().invoke(app, ["report", "--help"]).stdout


def test_importing_the_verb_loads_nothing_heavy() -> None:
    heavy = ("pydantic", "yaml", "torch", "jinja2", "PIL", "pyarrow")
    code = f"import sys, medvlm.cli.report; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_file_is_no_folder_to_write_into(app: typer.Typer, runs: Path) -> None:
    (runs / "afile").write_text("mine")
    for out in ("afile", "afile/inside"):
        result = CliRunner().invoke(app, ["report", "one", "--out", out])
        assert isinstance(result.exception, UsageError)
        assert f"--out {out}: is no folder" in str(result.exception)
    assert (runs / "afile").read_text() == "mine"
    (runs / "out").mkdir()
    os.mkfifo(runs / "out" / "report.json")
    result = CliRunner().invoke(app, ["report", "one", "--out", "out"])
    assert "is no plain file" in str(result.exception)
    assert [path.name for path in (runs / "out").iterdir()] == ["report.json"]
