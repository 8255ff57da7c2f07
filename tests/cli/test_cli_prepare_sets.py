"""`medvlm prepare NAME` for published sets, and `medvlm prepare list`, at the command line."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from medvlm.cli import run
from medvlm.cli.prepare_sets import SETS
from medvlm.data.sources import SOURCES
from medvlm.resources import shipped

sys.path.append(str(Path(__file__).resolve().parent.parent / "data" / "sources"))
MODULES = [importlib.import_module(name) for name in ("layouts_vqa", "layouts_captions", "layouts_reports")]
LAYOUTS: dict[str, Any] = {name: make for module in MODULES for name, make in module.LAYOUTS.items()}


def test_every_set_has_a_layout_to_test() -> None:
    assert {name.partition("/")[0] for name in LAYOUTS} == set(SETS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_set_in_its_published_layout(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = layout.partition("/")[0]
    folder = LAYOUTS[layout](tmp_path / "in", 6)
    command = ["prepare", name, "--input", str(folder), "--out", str(tmp_path / "out"), "--license", "any"]
    assert run([*command, "--workers", "1"]) == 0
    printed = capsys.readouterr()
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["source"] == name
    assert manifest["counts"]["read"] == manifest["counts"]["samples"] + sum(manifest["drops"].values())
    assert f"{manifest['counts']['samples']} samples in" in printed.out
    # The command that the card prints makes the same set again.
    monkeypatch.chdir(tmp_path)
    assert manifest["command"].startswith(f"medvlm prepare {name} --input")
    assert run([*manifest["command"].split()[1:], "--out", str(tmp_path / "again"), "--workers", "2"]) == 0
    assert json.loads((tmp_path / "again/manifest.json").read_text())["fingerprint"] == manifest["fingerprint"]


@pytest.mark.parametrize("way", ["by-group", "official"])
@pytest.mark.parametrize("name", ["path-vqa", "vqa-rad"])
def test_the_command_tells_the_split_whatever_the_set_is_split_by(
    name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = next(make for layout, make in LAYOUTS.items() if layout.startswith(name))(tmp_path / "in", 6)
    monkeypatch.chdir(tmp_path)
    command = ["prepare", name, "--input", str(folder), "--license", "any", "--workers", "1"]
    assert run([*command, "--split", way, "--out", "out"]) == 0
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert run([*manifest["command"].split()[1:], "--out", "again", "--workers", "1"]) == 0
    again = json.loads(Path("again/manifest.json").read_text())
    assert (again["settings"]["split"], again["split_hash"]) == (way, manifest["split_hash"])


@pytest.mark.parametrize(
    ("version", "archive"), [([], "images_2.zip"), (["--version", "1"], "images.zip"), (["--version", "3"], "")]
)
def test_from_the_hub(
    version: list[str],
    archive: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from medvlm.data.sources import hub_files

    asked: list[Any] = []

    def fetch(repo: str, facts: Any, patterns: Any) -> tuple[Path, str]:
        asked.extend(patterns or facts.hub_files)
        return LAYOUTS["pmc-vqa"](tmp_path / "in", 6), f"{repo}@{'a' * 40}"

    monkeypatch.setattr(hub_files, "fetch", fetch)
    command = ["prepare", "pmc-vqa", "--out", str(tmp_path / "out"), "--license", "any", "--workers", "1", *version]
    code = run(command)
    if not archive:
        assert 'unknown --version "3"' in capsys.readouterr().err
    elif not version:
        assert code == 0
        told = json.loads((tmp_path / "out/manifest.json").read_text())["command"]
        assert told.startswith(f"medvlm prepare pmc-vqa --hub xmcmic/PMC-VQA@{'a' * 40} ")
    assert [name for name in asked if name.endswith(".zip")] == ([archive] if archive else [])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["slake", "--only", "language"], 2, "is not COLUMN=VALUE"),
        (["slake", "--only", "langage=en"], 2, 'no column "langage" (did you mean "language"?)'),
        (["slake", "--split", "offical"], 2, 'unknown --split "offical" (did you mean "official"?)'),
        (["slake", "--phi", "strickt"], 2, "strict"),
        (["slake", "--hub", "a/b"], 2, "exclude one another"),
        (["slake", "--license", "CC-BY-NC-4.0"], 3, "license not in the list"),
        (["slake", "--only", "language=de"], 3, "not asked for"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    folder = LAYOUTS["slake"](tmp_path / "in", 6)
    command = [arguments[0], "--input", str(folder), "--out", str(tmp_path / "out"), "--workers", "1", *arguments[1:]]
    assert run(["prepare", *command]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("medvlm: error: ")
    assert words in line
    assert not (tmp_path / "out/data").exists()


def test_sections_and_views_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = LAYOUTS["iu-xray"](tmp_path / "in", 3)
    assert run(["prepare", "iu-xray", "--input", str(folder), "--sections", "finding"]) == 2
    assert 'did you mean "findings"' in capsys.readouterr().err


def test_only_some_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = LAYOUTS["slake"](tmp_path / "in", 12)
    command = ["prepare", "slake", "--input", str(folder), "--out", str(tmp_path / "out"), "--license", "any"]
    assert run([*command, "--workers", "1", "--only", "official_split=test"]) == 0
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["settings"]["only"] == {"official_split": ["test"]}
    assert list(manifest["leakage"]["official"]) == []
    assert manifest["drops"]["not asked for"] > 0


def test_the_list_tells_all_that_a_user_must_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", "list"]) == 0
    printed = capsys.readouterr().out
    assert run(["prepare", "list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [facts["name"] for facts in told] == SOURCES.names()
    for facts in told:
        assert all(facts[key] for key in ("title", "summary", "tasks", "size", "license", "gate", "download", "layout"))
        assert facts["download"] in printed
        assert facts["layout"] in printed


@pytest.mark.parametrize("name", SOURCES.names())
def test_one_source_of_the_list(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", "list", name]) == 0
    printed = capsys.readouterr().out
    assert f"data_cards/{name}.md" in printed
    assert (shipped("data_cards") / f"{name}.md").is_file()
    assert "medvlm[" in printed or name != "dicom"
    assert run(["prepare", name, "--help"]) == 0
    assert ("--split says otherwise" in printed) == ("--split " in capsys.readouterr().out)


def test_a_source_that_is_not_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", "list", "slakes"]) == 2
    assert 'did you mean "slake"' in capsys.readouterr().err
