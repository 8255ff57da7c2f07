"""`medvlm licenses` through the real command line."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from medvlm.cli import licenses
from medvlm.errors import UsageError
from medvlm.licenses.registry import load


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    licenses.register(app)
    app.command("other")(lambda: None)
    return app


def test_table(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["licenses"])
    assert result.exit_code == 0
    assert "PaliGemma-3B pt-448" in result.stdout
    assert f"{len(load())} entries" in result.stdout


def test_commercial_as_csv(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["licenses", "--commercial", "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert rows
    assert {row["commercial_use"] for row in rows} == {"yes"}


def test_match_as_json(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["licenses", "--match", "llava-med-v1.5", "-f", "json"])
    (row,) = json.loads(result.stdout)
    assert row["conflict"]


def test_show(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["licenses", "show", "google/paligemma-3b-pt-448"])
    assert "yes w/ ToU [unverified]" in result.stdout
    assert "LicenseRef-scancode-gemma-tou-2024-04-01" in result.stdout


def test_show_of_an_unknown_name(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["licenses", "show", "palgemma"])
    assert isinstance(result.exception, UsageError)


def test_help_has_an_example(app: typer.Typer) -> None:
    for arguments in (["licenses", "--help"], ["licenses", "show", "--help"]):
        assert "Example: medvlm licenses" in CliRunner().invoke(app, arguments).stdout


def test_importing_the_verb_loads_nothing_heavy() -> None:
    heavy = ("pydantic", "yaml", "torch", "jinja2")
    code = f"import sys, medvlm.cli.licenses; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
