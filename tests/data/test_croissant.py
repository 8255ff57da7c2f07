"""The Croissant metadata: its reference implementation finds no fault, and reads the very rows of the shards by it."""

from __future__ import annotations

import itertools
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fake_source import FakeSource, png, sample

from medvlm.data import croissant
from medvlm.data.prepare import Settings, prepare
from medvlm.data.sample import COLUMNS, Image
from medvlm.io import sha256_file


@pytest.fixture(scope="module")
def mlc() -> Any:
    with warnings.catch_warnings():
        # Its dependencies warn while they are imported.
        warnings.simplefilter("ignore")
        return pytest.importorskip("mlcroissant")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("croissant")
    odd = [
        sample("g", 0, 100, license="LicenseRef-CC-BY-unversioned", year=2019, compound=True),
        sample("g", 1, 101, task="vqa", prompt="Where?", license=None, choices=["a", "b"], mentions=[], year=2021),
        sample("g", 2, 102, license="CC0-1.0 AND CC-BY-4.0", more_images=[Image(png(7), "a"), Image(png(8), "b")]),
    ]
    found = prepare(FakeSource(30, 2, special={0: odd}), folder, Settings(license="any"), workers=1).manifest
    croissant.write(folder / croissant.NAME, folder, found)
    return folder, found


def load(mlc: Any, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mlc.Dataset(jsonld=os.fspath(folder / croissant.NAME))


def test_no_errors_and_one_expected_warning(
    mlc: Any, built: tuple[Path, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        issues = load(mlc, built[0]).metadata.ctx.issues
    assert issues.errors == set()
    assert [warning for warning in issues.warnings if "datePublished" not in str(warning)] == []
    assert "not standard" not in caplog.text


def test_metadata_as_read_back(mlc: Any, built: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = built
    found = load(mlc, folder).metadata
    assert found.name == "Fake articles"
    assert found.cite_as == "Nobody, 2026."
    assert found.version == f"{manifest['schema']}.0.0+{manifest['fingerprint'][:12]}"
    assert set(found.license) == {
        "https://spdx.org/licenses/CC-BY-4.0.html",
        "https://spdx.org/licenses/CC0-1.0.html",
        "LicenseRef-CC-BY-unversioned",
        "none stated",
    }
    assert found.date_published is None
    files = {file.id: file for file in found.file_objects}
    assert {shard["name"] for shard in manifest["shards"]} | {"rejects.jsonl"} <= set(files)
    assert all(file.sha256 == sha256_file(folder / name) for name, file in files.items())
    assert {field.name for field in found.record_sets[1].fields} == {"split", *COLUMNS}


def told(value: Any) -> Any:
    """Return what mlcroissant gives with its texts, which are bytes, decoded."""
    if isinstance(value, list):
        return [told(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def test_rows_as_read_back(mlc: Any, built: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = built
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = list(load(mlc, folder).records("samples"))
    truth = {
        row["id"]: (shard["split"], row)
        for shard in manifest["shards"]
        for row in pq.read_table(folder / shard["name"]).to_pylist()
    }
    assert len(rows) == len(truth) == manifest["counts"]["samples"]
    for row in rows:
        split, expected = truth[told(row["samples/id"])]
        assert told(row["samples/split"]) == split
        assert row["samples/image"].size == (8, 6)
        assert [view.size for view in row["samples/more_images"]] == [(8, 6)] * len(expected["more_images"] or ())
        for name in set(COLUMNS) - {"image", "more_images"}:
            assert told(row[f"samples/{name}"]) == expected[name], name


def test_splits_as_read_back(mlc: Any, built: tuple[Path, dict[str, Any]]) -> None:
    rows = itertools.islice(load(mlc, built[0]).records("splits"), 9)
    assert [told(row["splits/name"]) for row in rows] == ["train", "validation", "test"]


def test_same_bytes_without_clock_and_manifest(built: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, manifest = built
    croissant.write(tmp_path / "again.json", folder, manifest)
    text = (tmp_path / "again.json").read_bytes()
    assert text == (folder / croissant.NAME).read_bytes()
    assert b"manifest.json" not in text
    assert json.loads(text)["temporalCoverage"] == "2019/2021"


def test_every_column_is_described() -> None:
    assert tuple(croissant.DESCRIPTIONS) == COLUMNS
