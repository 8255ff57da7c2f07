"""The dataset card: Hugging Face reads its YAML, and it says what the manifest says."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_source import FakeSource, sample
from huggingface_hub import DatasetCard

from medvlm.data import credits
from medvlm.data.cards import evidence, finish, known_problems, render, size_category
from medvlm.data.prepare import Settings, prepare


def card(tmp_path: Path, source: FakeSource, **settings: object) -> DatasetCard:
    wanted = Settings(license="any", **settings)  # type: ignore[arg-type]
    manifest = prepare(source, tmp_path, wanted, command="medvlm prepare fake", workers=1).manifest
    finish(tmp_path, manifest)
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


@pytest.mark.parametrize(
    ("license", "use", "share", "said"),
    [
        ("CC-BY-4.0", "yes", "yes", "- name the authors of the CC-BY-4.0 material"),
        ("CC-BY-NC-4.0", "no", "conditional", "CC-BY-NC-4.0: forbids commercial use"),
        ("LicenseRef-unheard-of", "unknown", "unknown", "not legal advice"),
    ],
)
def test_what_a_model_trained_on_it_may(tmp_path: Path, license: str, use: str, share: str, said: str) -> None:
    text = card(tmp_path, FakeSource(1, special={0: [sample("g", 0, 0, license=license)]})).text
    part = text.split("## Models trained on it")[1].split("\n## ")[0]
    assert f"commercial use **{use}**, passing the model on **{share}**" in part
    assert said in part


def test_pictures_of_third_parties_and_open_questions(tmp_path: Path) -> None:
    borrowed = sample("g", 0, 0, license="CC-BY-4.0", third_party=True, license_scope="article")
    own = sample("h", 0, 1, license="CC-BY-4.0", third_party=True, license_scope="figure")
    both = card(tmp_path / "both", FakeSource(2, special={0: [borrowed], 1: [own]})).text
    assert "commercial use **unknown**" in both
    assert "- training data, 1 sample: (CC-BY-4.0) AND unknown: commercial use unknown" in both
    assert "- name the authors of the CC-BY-4.0 material" in both
    closed = dataclasses.replace(borrowed, license="CC-BY-NC-4.0", commercial_use="no")
    rows = card(tmp_path / "closed", FakeSource(2, special={0: [closed], 1: [own]})).text.split("## Models trained")[1]
    assert "commercial use **no**, passing the model on **unknown**" in rows
    assert "for non-commercial use only" in rows
    assert rows.count("1 sample: ") == 2, "each sample counts once"
    alone = card(tmp_path / "own", FakeSource(1, special={0: [own]})).text
    assert "commercial use **yes**" in alone
    manifest = manifest_of(tmp_path / "clash", {})
    clash = render({**manifest, "training_licenses": {"CC-BY-SA-4.0": 3, "CC-BY-NC-4.0": 2}})
    assert "no one license satisfies both" in clash


@pytest.mark.parametrize(("rows", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**7, "n>10M")])
def test_size_category(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_known_problems_of_any_form() -> None:
    assert known_problems({}) == []
    assert known_problems({"known_problems": "one"}) == ["one"]
    assert known_problems({"known_problems": ["a", "b"]}) == ["a", "b"]


def manifest_of(tmp_path: Path, counts: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Return a true manifest with other counts and settings."""
    found = prepare(FakeSource(4), tmp_path, Settings(license="any"), workers=1).manifest
    return {
        **found,
        "synthetic": False,
        "counts": {**found["counts"], **counts},
        "settings": {**found["settings"], **settings},
    }


def test_tables_of_what_differs_and_one_line_for_what_does_not(tmp_path: Path) -> None:
    counts = {
        "modality": {"CT": 7, "none stated": 3, "MRI": 2},
        "journal": {f"J <i>{number}|": 30 - number for number in range(25)},
        "year": {"2021": 8, "none stated": 3, "2019": 1},
        "kind": {"figure": 12},
        "article_type": {"none stated": 12},
        "compound": {"no": 10, "yes": 2},
    }
    text = render(manifest_of(tmp_path, counts))
    assert "| CT | 7 | 58.3% |" in text
    assert text.count("J &lt;i>") == 20
    assert "| 5 more journals | 40 |" in text
    assert text.index("| 2019 | 1 |") < text.index("| 2021 | 8 |") < text.index("| none stated | 3 | 25.0% |\n\n- ")
    assert "- kind of picture: figure (all samples)" in text
    assert "article type" not in text
    assert "Compound figures are kept whole" in text


def test_many_years_are_counted_by_decade(tmp_path: Path) -> None:
    text = render(manifest_of(tmp_path, {"year": {str(year): 1 for year in range(1995, 2015)}}))
    rows = re.findall(r"^\| (\d{3}0s) \| (\d+) \|", text, re.M)
    assert rows == [("1990s", "5"), ("2000s", "10"), ("2010s", "5")]


def test_no_table_is_empty(tmp_path: Path) -> None:
    nothing = {name: {"none stated": 12} for name in ("modality", "kind", "journal", "year", "language", "compound")}
    text = render(manifest_of(tmp_path, nothing))
    assert not re.search(r"^\| --- .*\n(?!\|)", text, re.M)
    assert "journal" not in text
    assert "Compound" not in text


def test_what_was_changed_is_said(tmp_path: Path) -> None:
    plain = render(manifest_of(tmp_path, {}))
    assert "- Pictures are the original bytes, never re-encoded." in plain
    text = render(manifest_of(tmp_path, {}, max_side=512, panels="split", task="vqa"))
    assert "more than 512 pixels were shrunk" in text
    assert "never re-encoded" not in text
    assert "cut into their panels" in text
    assert "made from captions by templates" in text


def test_duplicates(tmp_path: Path) -> None:
    assert "No sample repeats an image of another group, byte for byte" in render(manifest_of(tmp_path, {}))
    counts = {"duplicate_images": 3, "near_duplicates": 1200}
    kept, dropped = (render(manifest_of(tmp_path, counts, drop_duplicates=drop)) for drop in (False, True))
    assert "3 samples repeat" in kept
    assert "1,200 show a picture" in kept
    assert "not looked for" not in kept
    assert "They are kept" in kept
    assert "--drop-duplicates" in dropped


def test_finish_writes_all_three_and_the_same_again(tmp_path: Path) -> None:
    unit = [sample("g", 0, 0, modality="CT", modality_evidence="caption: axial CT"), sample("g", 1, 1)]
    source = FakeSource(5, special={0: unit})
    manifest = prepare(source, tmp_path, Settings(license="any"), workers=1).manifest
    credits.write(tmp_path / credits.NAME, [{"group": "g", "samples": 2}])
    names = ("README.md", "contact_sheet.png", "croissant.json")
    written = []
    for _ in range(2):
        finish(tmp_path, json.loads(json.dumps(manifest)))
        written.append([(tmp_path / name).read_bytes() for name in names])
    assert written[0] == written[1]
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.index("![14 samples of the data set](contact_sheet.png)") < text.index("## Splits")
    assert "in samples: caption 1." in text
    for told in ("section 3(a)(1)", "`authors`", "apostrophe", "- `attribution.tsv`: ", "- `rejects.jsonl`: "):
        assert told in text
    assert evidence(tmp_path) == {"caption": 1}


def test_without_an_attribution_file_none_is_promised(tmp_path: Path) -> None:
    manifest = prepare(FakeSource(2), tmp_path, Settings(license="any"), workers=1).manifest
    (tmp_path / credits.NAME).unlink(missing_ok=True)
    finish(tmp_path, manifest)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "## Attribution" not in text
    assert credits.NAME not in text


def test_original_bytes_are_claimed_only_where_they_are(tmp_path: Path) -> None:
    claim = "never re-encoded"
    manifest = manifest_of(tmp_path, {"compound": {"no": 3}})
    told = {}
    for name, settings in (("none", {}), ("keep", {"panels": "keep"}), ("drop", {"panels": "drop"})):
        told[name] = render({**manifest, "settings": {**manifest["settings"], **settings}})
        assert claim in told[name]
    for settings in ({"panels": "split"}, {"max_side": 256}, {"panels": "split", "max_side": 256}):
        text = render({**manifest, "settings": {**manifest["settings"], **settings}})
        assert claim not in text
        assert "all others are the original bytes" in text
        assert ("anels cut out of a figure were encoded anew" in text) is ("panels" in settings)
        assert ("more than 256 pixels" in text) is ("max_side" in settings)
