"""`medvlm licenses` through the real command line."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from medvlm.cli import licenses
from medvlm.errors import LicenseError, UsageError
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
    for arguments in (["licenses", "--help"], ["licenses", "show", "--help"], ["licenses", "check", "--help"]):
        assert "Example: medvlm licenses" in CliRunner().invoke(app, arguments).stdout


def test_importing_the_verb_loads_nothing_heavy() -> None:
    heavy = ("pydantic", "yaml", "torch", "jinja2")
    code = f"import sys, medvlm.cli.licenses; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_filters(app: typer.Typer) -> None:
    arguments = ["licenses", "--kind", "data", "--share", "--open", "--format", "csv"]
    rows = list(csv.DictReader(io.StringIO(CliRunner().invoke(app, arguments).stdout)))
    assert [row["name"] for row in rows] == ["phantom", "vqa-rad"]
    gated = list(csv.DictReader(io.StringIO(CliRunner().invoke(app, ["licenses", "--gated", "-f", "csv"]).stdout)))
    assert {row["gated"] for row in gated} == {"yes"}


def test_check_in_words_as_json_and_as_bill_of_materials(app: typer.Typer, adapter_run: Path, tmp_path: Path) -> None:
    words = CliRunner().invoke(app, ["licenses", "check", str(adapter_run), "--require", "commercial"])
    assert words.exit_code == 0
    assert "commercial use  yes" in words.stdout
    assert "not legal advice" in words.stdout
    out = tmp_path / "bom.json"
    found = CliRunner().invoke(app, ["licenses", "check", str(adapter_run), "--json", "--bom", str(out)])
    (finding,) = json.loads(found.stdout)["findings"]
    assert (finding["commercial_use"], finding["may_share"]) == ("yes", "yes")
    names = [one["name"] for one in json.loads(out.read_text())["metadata"]["component"]["components"]]
    assert "adapter/adapter_model.safetensors" in names


def test_require_exits_with_6_after_the_verdict(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["licenses", "check", "R2Gen", "--require", "share"])
    assert isinstance(result.exception, LicenseError)
    assert result.exception.exit_code == 6
    assert "may be shared   unknown" in result.stdout


def test_a_bill_of_materials_is_of_a_run(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["licenses", "check", "tiny", "--bom", str(tmp_path / "bom.json")])
    assert isinstance(result.exception, UsageError)
    assert not (tmp_path / "bom.json").exists()


def test_without_the_extra_it_says_how_to_get_it(app: typer.Typer, adapter_run: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cyclonedx'] = None\n"
        "from medvlm.cli import main\n"
        f"sys.argv = ['medvlm', 'licenses', 'check', {str(adapter_run)!r}, '--bom', {str(tmp_path / 'x.json')!r}]\n"
        "main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 5
    assert "pip install 'medvlm[bom]'" in result.stderr
    assert not (tmp_path / "x.json").exists()
