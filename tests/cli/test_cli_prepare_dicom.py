"""`medvlm prepare dicom` at the command line: from files and a table of reports to a data set that loads."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as PILImage

from medvlm.cli import run

sys.path += [str(Path(__file__).resolve().parent.parent / "data" / "sources")]


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Six studies of three patients, two slices each, and a table of reports."""
    from layouts_dicom import ct, save

    folder = tmp_path / "export"
    for number in range(6):
        for turn in range(2):
            pixels = np.random.default_rng(9 * number + turn).integers(0, 2000, (24, 24), np.int16)
            known = {"StudyInstanceUID": f"1.2.3.{number}", "SeriesInstanceUID": f"1.2.3.{number}.1"}
            save(ct(pixels, PatientID=f"P{number // 2}", **known), folder / f"{number}" / f"{turn}")
    rows = [f"1.2.3.{number},FINDINGS: A nodule of {number} mm.\n" for number in range(6)]
    (tmp_path / "reports.csv").write_text("StudyInstanceUID,report\n" + "".join(rows))
    return folder


def call(tmp_path: Path, *options: str, out: str = "out") -> int:
    places = ["--input", str(tmp_path / "export"), "--key", str(tmp_path / "key"), "--out", str(tmp_path / out)]
    return run(["prepare", "dicom", *places, *options])


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(out.glob("data/*.parquet")) for row in pq.read_table(file).to_pylist()]


def tree(out: Path) -> dict[str, str]:
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "log.jsonl")
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_reports_and_pictures(export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = str(tmp_path / "reports.csv")
    assert call(tmp_path, "--reports", table, "--license", "any") == 0
    told = capsys.readouterr().out
    assert "6 samples in 3 groups" in told
    assert "do not say whether text is burned into them" in told
    assert f"key: {tmp_path / 'key'}" in told
    made = rows(tmp_path / "out")
    assert sorted(row["target"] for row in made) == [f"A nodule of {number} mm." for number in range(6)]
    assert all(row["task"] == "report" and len(row["more_images"]) == 1 for row in made)
    with PILImage.open(io.BytesIO(made[0]["image"]["bytes"])) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (24, 24))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "no certified de-identification" in card
    assert "never re-encoded" not in card
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"]["phi"] == "count"
    assert len(manifest["settings"]["key"]) == 16
    assert table not in json.dumps(manifest)
    assert call(tmp_path, "--reports", table, "--license", "any") == 0
    assert "up to date" in capsys.readouterr().out


def test_the_same_files_and_key_give_the_same_bytes(export: Path, tmp_path: Path) -> None:
    options = ["--target-from", "modality", "--license", "any", "-q"]
    assert call(tmp_path, *options) == 0
    assert call(tmp_path, *options, "--workers", "1", out="again") == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "again")
    for part in ("0/2", "1/2"):
        assert call(tmp_path, *options, "--shard", part, out="shared") == 0
    assert run(["prepare", "merge", "-q", str(tmp_path / "shared")]) == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "shared")


def test_no_patient_is_on_two_sides(export: Path, tmp_path: Path) -> None:
    assert call(tmp_path, "--target-from", "modality", "--license", "any", "--split-ratio", "0.4,0.3,0.3", "-q") == 0
    sides: dict[str, set[str]] = {}
    for file in (tmp_path / "out" / "data").glob("*.parquet"):
        for group in pq.read_table(file, columns=["group"])["group"].to_pylist():
            sides.setdefault(group, set()).add(file.name.partition("-")[0])
    assert len(sides) == 3
    assert all(len(found) == 1 for found in sides.values())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "--reports sr"),
        (["--target-from", "modality"], "--data-license"),
        (["--target-from", "modality", "--data-license", "CC-BY-NC-4.0"], "LicenseRef-own-data"),
        (["--target-from", "modality", "--license", "any", "--window", "lnug"], 'did you mean "lung"'),
        (["--reports", "sr", "--license", "any", "--phi", "maybe"], "--phi"),
    ],
)
def test_wrong_command_lines(
    export: Path, tmp_path: Path, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path, *options) == 2
    error = capsys.readouterr().err.strip()
    assert told in error
    assert error.count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_a_stated_license_is_the_samples(export: Path, tmp_path: Path) -> None:
    assert call(tmp_path, "--target-from", "modality", "--data-license", "CC-BY-4.0", "-q") == 0
    assert {(row["license"], row["license_scope"]) for row in rows(tmp_path / "out")} == {("CC-BY-4.0", "dataset")}
    own = ["--data-license", "LicenseRef-own-data", "--license", "LicenseRef-own-data"]
    assert call(tmp_path, "--target-from", "modality", *own, "-q", out="own") == 0
    assert {row["commercial_use"] for row in rows(tmp_path / "own")} == {"conditional"}


def test_without_an_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", "dicom"]) == 2
    assert "--input" in capsys.readouterr().err


def test_help_says_what_is_not_promised(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", "dicom", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "no certified de-identification" in told
    assert "PS3.15" in told
