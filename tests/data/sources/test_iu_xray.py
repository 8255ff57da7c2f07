"""IU X-ray in its three layouts: the same studies give the same samples, and nothing is lost on the way."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import layouts_reports
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.data.prepare import Settings, prepare
from medvlm.data.push import check_licenses
from medvlm.data.reports import clean
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.iu_xray import IuXraySource, findings
from medvlm.errors import InputError, LicenseError, UsageError

COUNT = 12
FORMS = {"kaggle": layouts_reports.kaggle, "open-i": layouts_reports.open_i, "r2gen": layouts_reports.r2gen}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name) / "in", COUNT) for name, make in FORMS.items()}


def read(folder: Path, **options: Any) -> tuple[list[Sample], list[Reject]]:
    source = pickle.loads(pickle.dumps(IuXraySource([folder], **options)))
    items = [item for unit in source.units() for item in source.read(unit)]
    return [i for i in items if isinstance(i, Sample)], [i for i in items if isinstance(i, Reject)]


def reasons(rejects: list[Reject]) -> dict[str, int]:
    return dict(Counter(reject.reason for reject in rejects))


@pytest.mark.parametrize("form", FORMS)
def test_every_study_is_a_sample_with_all_its_pictures(inputs: dict[str, Path], form: str) -> None:
    samples, rejects = read(inputs[form])
    assert not rejects
    assert sorted(sample.group for sample in samples) == sorted(f"CXR{n}" for n in range(1, COUNT + 1))
    assert len({sample.id for sample in samples}) == COUNT
    for sample in samples:
        n = int(sample.group[3:])
        row = layouts_reports.study(n)
        parts = [text for text in (row["findings"], row["impression"]) if text]
        # R2Gen's annotations have lost the line between the sections.
        parts = [" ".join(parts).replace("\n", " ")] if form == "r2gen" else parts
        assert sample.target == " ".join(clean(part) for part in parts)
        assert len([sample.image, *sample.more_images]) == len(layouts_reports.views(n))
        assert (sample.task, sample.prompt, sample.language, sample.modality) == ("report", "", "en", "radiograph")
        assert (sample.license, sample.commercial_use) == ("CC-BY-NC-ND-4.0", "no")
        assert not set(sample.target.split()) & {"XXXX", "XXXX."}


def test_the_layouts_agree(inputs: dict[str, Path]) -> None:
    """Pictures, texts, findings and indications by study, whichever layout they come from."""

    def told(form: str) -> dict[str, Any]:
        return {
            sample.group: (
                frozenset(image.data for image in (sample.image, *sample.more_images)),
                sample.finding,
                sample.indication,
                sample.target,
                sample.original_text,
            )
            for sample in read(inputs[form])[0]
        }

    assert told("kaggle") == told("open-i")
    assert {group: one[0] for group, one in told("r2gen").items()} == {k: v[0] for k, v in told("kaggle").items()}


def test_the_original_text_is_kept(inputs: dict[str, Path]) -> None:
    """Each section as the files have it, by another reader of CSV and XML."""
    with open(inputs["kaggle"] / "indiana_reports.csv", encoding="utf-8", newline="") as file:
        rows = {f"CXR{row['uid']}": row for row in csv.DictReader(file)}
    for sample in read(inputs["kaggle"])[0]:
        row = rows[sample.group]
        labels = ("comparison", "indication", "findings", "impression")
        assert sample.original_text == "\n".join(f"{name.upper()}: {row[name]}" for name in labels if row[name])
    for sample in read(inputs["open-i"])[0]:
        root = ElementTree.parse(inputs["open-i"] / "ecgen-radiology" / f"{sample.group[3:]}.xml")
        texts = {element.get("Label"): element.text for element in root.iter("AbstractText") if element.text}
        assert sample.original_text == "\n".join(f"{label}: {text}" for label, text in texts.items())
        assert "by-nc-nd/4.0" in str(sample.license_evidence)


@pytest.mark.parametrize(
    ("address", "license", "use"),
    [
        ("http://creativecommons.org/licenses/by-nc-nd/4.0/", "CC-BY-NC-ND-4.0", "no"),
        ("https://creativecommons.org/licenses/by/4.0/", "CC-BY-NC-ND-4.0", "no"),
        ("", "CC-BY-NC-ND-4.0", "no"),
        ("https://example.org/ask-us", None, "unknown"),
    ],
)
def test_the_license_that_a_report_states_counts(tmp_path: Path, address: str, license: str | None, use: str) -> None:
    folder = layouts_reports.open_i(tmp_path / "in", 2)
    file = folder / "ecgen-radiology" / "1.xml"
    file.write_text(file.read_text("utf-8").replace("http://creativecommons.org/licenses/by-nc-nd/4.0/", address))
    first, other = read(folder)[0]
    assert (first.license, first.commercial_use) == (license, use)
    assert first.license_scope == ("dataset" if license else None)
    assert address in (first.license_evidence or "")
    assert other.license == "CC-BY-NC-ND-4.0"


ABSTRACT = "<AbstractText Label='FINDINGS'>No pneumothorax</AbstractText>"


@pytest.mark.parametrize(
    ("texts", "target", "original"),
    [
        (
            f"{ABSTRACT}<AbstractText Label='IMPRESSION'>Pneumonia on the left</AbstractText>",
            "No pneumothorax. Pneumonia on the left",
            "FINDINGS: No pneumothorax\nIMPRESSION: Pneumonia on the left",
        ),
        (
            (
                "<AbstractText Label='INDICATION'>Cough</AbstractText><AbstractText Label='FINDINGS AND IMPRESSION'>"
                "Left effusion.</AbstractText>"
            ),
            "Left effusion.",
            "INDICATION: Cough\nFINDINGS AND IMPRESSION: Left effusion.",
        ),
        (
            f"{ABSTRACT}<AbstractText Label='Conclusion'>Normal.</AbstractText><AbstractText>Chest.</AbstractText>",
            "No pneumothorax. Normal.",
            "Chest.\nFINDINGS: No pneumothorax\nCONCLUSION: Normal.",
        ),
        (f"{ABSTRACT}<AbstractText Label='ADDENDUM'>Pneumothorax.</AbstractText>", None, "report has an addendum"),
    ],
)
def test_texts_of_open_i_with_any_label(
    inputs: dict[str, Path], tmp_path: Path, texts: str, target: str | None, original: str
) -> None:
    shutil.copytree(inputs["open-i"] / "NLMCXR_png", tmp_path / "NLMCXR_png")
    (tmp_path / "ecgen-radiology").mkdir()
    xml = (inputs["open-i"] / "ecgen-radiology/1.xml").read_text()
    start, stop = xml.index("<AbstractText"), xml.rindex("</AbstractText>") + len("</AbstractText>")
    (tmp_path / "ecgen-radiology/1.xml").write_text(xml[:start] + texts + xml[stop:])
    samples, rejects = read(tmp_path)
    assert [(sample.target, sample.original_text) for sample in samples] == ([(target, original)] if target else [])
    assert [reject.reason for reject in rejects] == ([] if target else [original])


def test_the_frontal_picture_comes_first(inputs: dict[str, Path]) -> None:
    for sample in read(inputs["kaggle"])[0]:
        n = int(sample.group[3:])
        names = {f"{stem}.dcm.png": view.upper() for stem, view in layouts_reports.views(n)}
        assert sample.views == [names[image.name] for image in (sample.image, *sample.more_images)]
        assert sample.views[0] == "FRONTAL"
        assert sample.file_name == sample.image.name


def test_views(inputs: dict[str, Path]) -> None:
    each, _ = read(inputs["kaggle"], views="each")
    assert len(each) == len({s.id for s in each}) == sum(len(layouts_reports.views(n)) for n in range(1, COUNT + 1))
    assert not any(sample.more_images for sample in each)
    frontal, _ = read(inputs["kaggle"], views="frontal")
    assert [sample.views for sample in frontal] == [["FRONTAL"]] * COUNT
    with pytest.raises(InputError, match="indiana_projections"):
        read(inputs["open-i"], views="frontal")
    with pytest.raises(UsageError, match="study, each or frontal"):
        IuXraySource([inputs["kaggle"]], views="lateral")


@pytest.mark.parametrize("form", ["kaggle", "open-i"])
@pytest.mark.parametrize("section", ["findings", "impression"])
def test_a_report_without_the_section_is_counted(inputs: dict[str, Path], form: str, section: str) -> None:
    samples, rejects = read(inputs[form], sections=section)
    texts = {f"CXR{n}": layouts_reports.study(n)[section] for n in range(1, COUNT + 1)}
    assert {sample.group: sample.target for sample in samples} == {k: clean(v) for k, v in texts.items() if v}
    lacking = sum(not text for text in texts.values())
    assert reasons(rejects) == ({f"no {section}": lacking} if lacking else {})


def test_what_annotations_cannot_tell_is_refused(inputs: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="does not tell findings from impression"):
        read(inputs["r2gen"], sections="findings")


def test_the_split_of_annotations_is_kept(inputs: dict[str, Path]) -> None:
    listed = json.loads((inputs["r2gen"] / "annotation.json").read_text())
    names = {"train": "train", "val": "validation", "test": "test"}
    expected = {entry["id"]: names[split] for split, entries in listed.items() for entry in entries}
    assert {sample.id.split("/")[1]: sample.official_split for sample in read(inputs["r2gen"])[0]} == expected
    assert {sample.official_split for sample in read(inputs["kaggle"])[0]} == {None}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"Problems": "normal"}, "none"),
        ({"Problems": "Opacity;Opacity;Cicatrix"}, "opacity, cicatrix"),
        ({"Problems": "Aorta, Thoracic;Lung Disease, Obstructive"}, "thoracic aorta, obstructive lung disease"),
        ({"MeSH": "Opacity/lung/base/left;normal   \t"}, "opacity"),
        ({"MeSH": "Tube, Inserted/trachea, carina"}, "inserted tube"),
        ({"Problems": "No Indexing"}, None),
        ({"Problems": float("nan"), "MeSH": ""}, None),
        ({}, None),
    ],
)
def test_findings_in_the_words_of_the_set(record: dict[str, Any], expected: str | None) -> None:
    assert findings(record) == expected


@given(st.lists(st.text("aB ,;/\t\u00e9", max_size=12), max_size=5))
def test_a_comma_only_separates_findings(terms: list[str]) -> None:
    """As many findings as there are different terms, none of them empty, each of its term's letters."""
    told = findings({"Problems": ";".join(terms)})
    heads = [term.partition("/")[0].lower() for term in ";".join(terms).split(";")]
    letters = [sorted(letter for letter in head if letter.isalpha()) for head in heads]
    assert told is None or all(sorted(one.replace(" ", "")) in letters for one in told.split(", "))
    assert (told is None) == (not any(letters))


def test_the_card_counts_what_is_missing(inputs: dict[str, Path]) -> None:
    rows = [layouts_reports.study(n) for n in range(1, COUNT + 1)]
    lacking = sum(not row["findings"] for row in rows)
    names = ("comparison", "indication", "findings", "impression")
    marked = sum(any("XXXX" in row[name] for name in names) for row in rows)
    for form in ("kaggle", "open-i"):
        line = IuXraySource([inputs[form]]).card()["known_problems"][-1]
        assert line.startswith(f"Of the {COUNT} reports of this input {lacking} lack findings, 0 an impression")
        assert line.endswith(f"and {marked} hold XXXX.")


def test_pictures_stay_in_the_archive(inputs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(inputs["kaggle"], tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "in" / "archive.zip", "w") as file:
        for path in sorted((tmp_path / "in" / "images").rglob("*.png")):
            file.write(path, path.relative_to(tmp_path / "in").as_posix())
    shutil.rmtree(tmp_path / "in" / "images")
    assert {s.group: s.image.data for s in read(tmp_path / "in")[0]} == {
        s.group: s.image.data for s in read(inputs["kaggle"])[0]
    }


def test_a_missing_picture_is_counted_and_the_study_keeps_the_others(tmp_path: Path) -> None:
    folder = layouts_reports.kaggle(tmp_path / "in", 3)
    images = folder / "images" / "images_normalized"
    (images / "1_IM-0001-4001.dcm.png").unlink()
    for path in images.glob("2_*"):
        path.unlink()
    samples, rejects = read(folder)
    assert {sample.group: sample.views for sample in samples} == {"CXR1": ["FRONTAL"], "CXR3": ["FRONTAL", "LATERAL"]}
    assert [(reject.reason, reject.detail) for reject in rejects] == [
        ("no image file", "1_IM-0001-4001.dcm.png"),
        ("no image file", "2_IM-0002-3001.dcm.png, 2_IM-0002-1001.dcm.png"),
    ]


def test_hostile_xml(tmp_path: Path) -> None:
    folder = layouts_reports.open_i(tmp_path / "in", 2)
    reports = folder / "ecgen-radiology"
    (tmp_path / "secret").write_text("secret")
    entity = '<!DOCTYPE e [<!ENTITY x SYSTEM "file:///etc/hostname">]><eCitation><uId id="CXR3"/>&x;</eCitation>'
    laughs = '<!DOCTYPE e [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><eCitation>&b;</eCitation>'
    for name, data in {
        "3.xml": entity.encode(),
        "4.xml": laughs.encode(),
        "5.xml": b"<eCitation><uId id='CXR5'>",
        "6.xml": b"",
        "7.xml": b"\xff\xfe\x00",
        "8.xml": b"<eCitation>" + b" " * (5 << 20) + b"</eCitation>",
        "9.xml": b"<eCitation><uId id='CXR9'/></eCitation>",
        "10.xml": b"<a>" * 10_000,
    }.items():
        (reports / name).write_bytes(data)
    (reports / "11.xml").symlink_to(tmp_path / "secret")
    samples, rejects = read(folder)
    assert sorted(sample.group for sample in samples) == ["CXR1", "CXR2"]
    assert reasons(rejects) == {"malformed XML": 7, "file cannot be read": 1, "no findings or impression": 1}
    assert {reject.detail.partition(":")[0] for reject in rejects} >= {f"{n}.xml" for n in (3, 4, 5, 6, 7, 8, 10, 11)}
    assert "\n" not in "".join(reject.detail for reject in rejects)


def test_hostile_names_and_rows(tmp_path: Path) -> None:
    folder = layouts_reports.r2gen(tmp_path / "in", 1)
    (tmp_path / "out.png").write_bytes(layouts_reports.picture(7, "PNG"))
    (folder / "images" / "link.png").symlink_to(tmp_path / "out.png")
    names: list[Any] = [["../../out.png"], ["/etc/passwd"], ["link.png"], "x.png", [3], None, [], ["a\0.png"]]
    rows = [{"id": f"CXR{n}_IM-1", "report": "Clear.", "image_path": name} for n, name in enumerate(names, 10)]
    bad = [{"id": None, "report": "Clear."}, {"id": "x", "report": "Clear."}, {"id": "5", "report": ["Clear."]}, "row"]
    (folder / "annotation.json").write_text(json.dumps({"train": [*rows, *bad]}))
    samples, rejects = read(folder)
    assert not samples
    assert reasons(rejects) == {
        "unsafe image name": 3,
        "link out of the folder": 1,
        "malformed record": 6,
        "no image file": 2,
    }


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "holds no IU X-ray"),
        ({"annotation.json": "[]"}, "not an object of lists"),
        ({"annotation.json": "{"}, "not valid JSON"),
        ({"annotation.json": "[" * 100_000}, "not valid JSON"),
        ({"indiana_reports.csv": "uid,findings,impression\n1,a,b\n"}, "indiana_projections.csv must lie beside"),
        ({"indiana_reports.csv": "uid,impression\n1,b\n", "indiana_projections.csv": "uid\n"}, "no column findings"),
        ({"indiana_reports.csv": "", "annotation.json": "{}"}, "name one of them"),
        ({"indiana_reports.csv": "uid\n", "indiana_projections.csv": "uid\n1\n"}, "no column filename, projection"),
        ({"indiana_reports.csv": "uid\n", "indiana_projections.csv": "uid\n\u00e9"}, "not UTF-8"),
    ],
)
def test_one_line_for_what_is_no_such_folder(tmp_path: Path, files: dict[str, str], told: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=told) as caught:
        IuXraySource([tmp_path]).units()
    assert "\n" not in str(caught.value)


def test_a_file_can_be_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    for form in ("kaggle", "r2gen"):
        shutil.copytree(inputs[form], tmp_path / "in", dirs_exist_ok=True)
    assert len(read(tmp_path / "in" / "annotation.json")[0]) == COUNT
    assert len(read(tmp_path / "in" / "indiana_reports.csv", views="frontal")[0]) == COUNT


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 12))
def test_slices_cover_every_report_once(count: int, step: int) -> None:
    import tempfile

    from medvlm.data.sources import records

    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        folder = Path(temporary, "ecgen-radiology")
        folder.mkdir()
        for n in range(1, count + 1):
            (folder / f"{n}.xml").write_text(f"<eCitation><uId id='CXR{n}'/></eCitation>")
        patch.setattr(records, "ROWS", step)
        source = IuXraySource([temporary])
        told = [reject.where for unit in source.units() for reject in source.read(unit) if isinstance(reject, Reject)]
    assert told == [f"ecgen-radiology row {n}" for n in range(count)]


def test_prepared_and_pushed(inputs: dict[str, Path], tmp_path: Path) -> None:
    """The whole way: all samples arrive, and nobody passes on cleaned reports under a no-derivatives license."""
    source = IuXraySource([inputs["kaggle"]])
    chosen = Settings(license="CC-BY-NC-ND-4.0", options=source.options())
    manifest = prepare(source, tmp_path / "out", chosen, workers=1).manifest
    assert manifest["counts"]["samples"] == COUNT
    assert manifest["settings"]["sections"] == "both"
    with pytest.raises(LicenseError, match="CC-BY-NC-ND"):
        check_licenses(manifest)
    with pytest.raises(InputError, match="--license commercial"):
        prepare(source, tmp_path / "none", Settings(options=source.options()), workers=1)
