"""The embedded sample as packages and as a source: true JATS, known rights, the same from disk as from memory."""

from __future__ import annotations

import collections
import dataclasses
import json
import pickle
from pathlib import Path

import pytest
from lxml import etree

from medvlm.data.sample import Reject, Sample
from medvlm.data.sources import SOURCES
from medvlm.data.sources.phantom import articles, grammar
from medvlm.data.sources.phantom.articles import ANNOTATIONS, article_doi, build_article, write_package
from medvlm.data.sources.phantom.source import SAMPLE_ARTICLES, PhantomSource
from medvlm.data.sources.phantom.spec import Spec
from medvlm.data.sources.pmc import PmcSource
from medvlm.data.splits import split_of
from medvlm.errors import UsageError
from medvlm.evaluate.findings import expected_findings, named_findings

XLINK = "{http://www.w3.org/1999/xlink}href"
FEW = 24


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    source = PhantomSource(articles=FEW)
    read = [found for unit in source.units() for found in source.read(unit)]
    assert not [found for found in read if isinstance(found, Reject)]
    return [found for found in read if isinstance(found, Sample)]


def xml_of(index: int) -> tuple[etree._Element, dict[str, bytes]]:
    name, files = build_article(0, index)
    return etree.fromstring(files[f"{name}.nxml"]), files


def notes_of(files: dict[str, bytes]) -> list[dict[str, object]]:
    return [json.loads(line) for line in files[ANNOTATIONS].splitlines()]


def test_an_article_repeats_to_the_byte_and_differs_by_seed_and_number() -> None:
    assert build_article(0, 3) == build_article(0, 3)
    assert build_article(0, 3)[1] != build_article(1, 3)[1]
    pictures = [data for index in range(3) for name, data in build_article(0, index)[1].items() if name.endswith("jpg")]
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize("index", range(6))
def test_every_reference_in_an_article_resolves(index: int) -> None:
    root, files = xml_of(index)
    figures = {fig.get("id") for fig in root.iter("fig")}
    assert 4 <= len(figures) <= 6
    assert {xref.get("rid") for xref in root.iter("xref")} == figures
    assert [note["figure_id"] for note in notes_of(files)] == [fig.get("id") for fig in root.iter("fig")]
    for graphic in root.iter("graphic"):
        reference = graphic.get(XLINK)
        assert reference in files or f"{reference}.jpg" in files
    assert root.find(".//supplementary-material").get(XLINK) == ANNOTATIONS


@pytest.mark.parametrize("index", range(6))
def test_an_article_cannot_be_taken_for_a_real_one(index: int) -> None:
    root, files = xml_of(index)
    assert "not a real journal" in root.findtext(".//journal-title")
    assert root.findtext(".//article-title").startswith("Synthetic")
    ids = {element.get("pub-id-type"): element.text for element in root.iter("article-id")}
    assert set(ids) == {"publisher-id", "doi"}
    assert ids["doi"].startswith("10.5555/")
    assert all(caption.findtext("title").startswith("Synthetic") for caption in root.findall(".//fig/caption"))
    assert all(note["synthetic"] is True for note in notes_of(files))


def test_annotations_say_what_the_captions_say() -> None:
    for index in range(8):
        root, files = xml_of(index)
        for fig, note in zip(root.iter("fig"), notes_of(files), strict=True):
            spec = Spec(*(note[field.name] for field in dataclasses.fields(Spec)))
            caption = f"{fig.findtext('caption/title')} {fig.findtext('caption/p')}"
            assert caption in grammar.all_texts(spec)
            assert (note["finding_box"] is None) == (spec.finding == "none")


def test_captions_questions_and_reports_share_picture_group_and_rights(samples: list[Sample]) -> None:
    figures: dict[tuple[str, str | None], list[Sample]] = collections.defaultdict(list)
    for sample in samples:
        figures[sample.group, sample.figure_id].append(sample)
    shared = ("image", "sha256", "license", "license_scope", "commercial_use", "finding", "modality", "mentions", "doi")
    for group in figures.values():
        assert [sample.task for sample in group][:3] == ["caption", "vqa", "vqa"]
        assert {sample.task for sample in group[3:]} <= {"report"}
        for sample in group[1:]:
            assert all(getattr(sample, name) == getattr(group[0], name) for name in shared)
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        _, figure, panel, task, ordinal = sample.id.split("/")
        assert (figure, panel, task) == (sample.figure_id, "-", sample.task)
        assert ordinal.isdigit()


def test_texts_of_the_samples_assert_the_finding_column(samples: list[Sample]) -> None:
    for sample in samples:
        assert sample.organ == "chest"
        if sample.task in ("caption", "report"):
            assert sample.prompt == ""
            assert named_findings(sample.target) == expected_findings(sample.finding or "")
        else:
            assert sample.prompt.endswith("?")
            assert sample.answer_type in ("open", "closed", "choice")


def test_rights_are_several_and_a_figure_may_have_its_own(samples: list[Sample]) -> None:
    rights = {(sample.license, sample.license_scope, sample.commercial_use, sample.third_party) for sample in samples}
    assert rights == {
        ("CC-BY-4.0", "article", "yes", False),
        ("CC0-1.0", "article", "yes", False),
        ("CC-BY-NC-4.0", "article", "no", False),
        ("LicenseRef-all-rights-reserved", "figure", "no", True),
    }


def test_packages_on_disk_give_the_same_captions(samples: list[Sample], tmp_path: Path) -> None:
    for index in range(FEW):
        name, files = build_article(0, index)
        write_package(name, files, tmp_path / f"{name}.tar.gz")
    source = PmcSource([tmp_path])
    read = [found for unit in source.units() for found in source.read(unit)]
    assert {found.reason for found in read if isinstance(found, Reject)} == {"supplement is no image"}  # annotations
    known = {"source": "phantom", "organ": None, "finding": None, "modality": None, "modality_evidence": None}
    expected = [dataclasses.replace(sample, **known) for sample in samples if sample.task == "caption"]
    from_disk = [dataclasses.replace(sample, **known) for sample in read if isinstance(sample, Sample)]
    assert from_disk == expected


def test_a_written_package_repeats_to_the_byte(tmp_path: Path) -> None:
    name, files = build_article(0, 0)
    write_package(name, files, tmp_path / "one.tar.gz")
    write_package(name, dict(reversed(files.items())), tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    # Which figures and texts there are does not hang on pixels, and drawing all would take seconds.
    monkeypatch.setattr(articles, "encode", lambda pixels: b"")
    drawing = articles.draw(Spec("ct", "none"), articles.np.random.default_rng(0))
    monkeypatch.setattr(articles, "draw", lambda spec, rng: drawing)


def default_texts() -> dict[str, dict[str, list[str]]]:
    """Return the captions and reports of the default sample that `--license commercial` admits: task, split, texts."""
    texts = {task: {split: [] for split in ("train", "validation", "test")} for task in ("caption", "report")}
    for index in range(SAMPLE_ARTICLES):
        root, files = xml_of(index)
        if "by-nc" in root.find(".//article-meta//license").get(XLINK):
            continue
        split = split_of(article_doi(0, index))
        for fig, note in zip(root.iter("fig"), notes_of(files), strict=True):
            if fig.find("permissions") is None:
                texts["caption"][split].append(f"{fig.findtext('caption/title')} {fig.findtext('caption/p')}")
                texts["report"][split] += [task["target"] for task in note["tasks"] if task["task"] == "report"]
    return texts


@pytest.mark.usefixtures("without_pictures")
def test_the_default_sample_is_large_enough_and_cannot_be_known_by_heart() -> None:
    texts = default_texts()
    counts = {split: len(found) for split, found in texts["caption"].items()}
    assert counts["test"] >= 220
    assert counts["validation"] >= 120
    assert counts["train"] >= 1000
    for task, fewest in (("caption", 800), ("report", 450)):
        seen = set(texts[task]["train"])
        assert len(seen) >= fewest
        unseen = [text not in seen for text in texts[task]["test"]]
        assert sum(unseen) / len(unseen) >= 0.4, task


def test_the_registered_source_names_its_units_in_order_and_pickles_them() -> None:
    source = SOURCES.get("phantom")([])
    units = source.units()
    assert len(units) == SAMPLE_ARTICLES
    assert [unit.name for unit in units] == sorted(unit.name for unit in units)
    assert pickle.loads(pickle.dumps(units)) == units
    assert source.card()["synthetic"] is True


def test_description_tells_settings_apart() -> None:
    settings = [{}, {"seed": 1}, {"articles": 3}, {"kind": "base"}]
    described = [PhantomSource(**kwargs).describe()[0] for kwargs in settings]
    assert len({entry["sha256"] for entry in described}) == len(settings)
    assert len({entry["path"] for entry in described}) == len(settings)
    assert described[0] == PhantomSource().describe()[0]


def test_base_units_hold_a_hundred_pictures_each_none_twice() -> None:
    source = PhantomSource(kind="base", articles=2)
    read = [[found for found in source.read(unit) if isinstance(found, Sample)] for unit in source.units()]
    pictures = [{sample.sha256 for sample in unit} for unit in read]
    assert [len(unit) for unit in pictures] == [100, 100]
    assert not pictures[0] & pictures[1]


def test_wrong_settings_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="made by code"):
        PhantomSource([Path("articles")])
    with pytest.raises(UsageError, match="known: sample, base"):
        PhantomSource(kind="bases")
