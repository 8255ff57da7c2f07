"""The dataset card: Hugging Face reads its YAML, and it says what the manifest says."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_source import FakeSource, sample
from huggingface_hub import DatasetCard

from medvlm.data.cards import known_problems, size_category
from medvlm.data.prepare import Settings, prepare


def card(tmp_path: Path, source: FakeSource, **settings: object) -> DatasetCard:
    prepare(source, tmp_path, Settings(license="any", **settings), command="medvlm prepare fake", workers=1)  # type: ignore[arg-type]
    return DatasetCard.load(tmp_path / "README.md")


def test_metadata_of_one_license(tmp_path: Path) -> None:
    found = card(tmp_path, FakeSource(40)).data
    assert found.license == "cc-by-4.0"
    assert found.task_categories == ["image-to-text"]
    assert found.language == ["en"]
    assert found.size_categories == ["n<1K"]
    assert found.pretty_name == "Fake articles"
    assert {"medical", "synthetic"} <= set(found.tags)
    paths = {entry["split"]: entry["path"] for entry in found.configs[0]["data_files"]}
    assert paths == {split: f"data/{split}-*.parquet" for split in ("train", "validation", "test")}


def test_metadata_of_several_licenses_and_tasks(tmp_path: Path) -> None:
    unit = [
        sample("g", 0, 0, license="CC0-1.0"),
        sample("g", 1, 1, task="vqa", prompt="Where?", license="LicenseRef-public-domain", language="pt"),
    ]
    found = card(tmp_path, FakeSource(1, special={0: unit})).data
    assert found.license == "other"
    assert found.to_dict()["license_name"]
    assert found.task_categories == ["image-to-text", "visual-question-answering"]
    assert found.language == ["en", "pt"]


def test_a_license_the_hub_does_not_know(tmp_path: Path) -> None:
    unit = [sample("g", 0, 0, license="LicenseRef-CC-BY-unversioned")]
    found = card(tmp_path, FakeSource(1, special={0: unit})).data
    assert (found.license, found.to_dict()["license_name"]) == ("other", "LicenseRef-CC-BY-unversioned")


def test_text_says_what_was_left_out_and_how_it_was_made(tmp_path: Path) -> None:
    text = card(tmp_path, FakeSource(20)).text
    for expected in (
        "| table image | 20 |",
        "| CC-BY-4.0 | 60 | 100.0% |",
        "medvlm prepare fake",
        "Not for clinical use",
        "**Synthetic:**",
        "- It is not real.",
        "Nobody, 2026.",
    ):
        assert expected in text


@pytest.mark.parametrize(("rows", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**7, "n>10M")])
def test_size_category(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_known_problems_of_any_form() -> None:
    assert known_problems({}) == []
    assert known_problems({"known_problems": "one"}) == ["one"]
    assert known_problems({"known_problems": ["a", "b"]}) == ["a", "b"]
