"""MIMIC-CXR from disk: reports, views, labels and splits put together by study, of what is there and nothing else."""

from __future__ import annotations

import csv
import gzip
import pickle
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import layouts_reports
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.look import PictureError
from medvlm.data.prepare import Settings, prepare
from medvlm.data.push import check_licenses
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources import mimic_cxr, mimic_tables, records
from medvlm.data.sources.mimic_cxr import MimicCxrSource
from medvlm.data.sources.mimic_tables import finding, lookup
from medvlm.data.sources.studies import Shot
from medvlm.errors import InputError, LicenseError

COUNT = 24
SPLIT_COLUMNS = ["dicom_id", "study_id", "subject_id", "split"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts_reports.mimic(tmp_path_factory.mktemp("mimic") / "in", COUNT)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    lookup.cache_clear()


def read(*folders: Path, **options: Any) -> tuple[list[Sample], list[Reject]]:
    source = pickle.loads(pickle.dumps(MimicCxrSource(folders, **options)))
    items = [item for unit in source.units() for item in source.read(unit)]
    return [i for i in items if isinstance(i, Sample)], [i for i in items if isinstance(i, Reject)]


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def reasons(rejects: list[Reject]) -> dict[str, int]:
    return dict(Counter(reject.reason for reject in rejects))


def table(folder: Path, name: str) -> list[dict[str, str]]:
    """Return a table's rows, all at once."""
    with gzip.open(folder / f"mimic-cxr-2.0.0-{name}.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


def test_studies_against_the_tables_read_whole(folder: Path) -> None:
    samples, rejects = read(folder)
    assert not rejects
    assert len(samples) == len({sample.id for sample in samples}) == COUNT
    splits = {row["dicom_id"]: row["split"].replace("validate", "validation") for row in table(folder, "split")}
    views = {row["dicom_id"]: row["ViewPosition"] for row in table(folder, "metadata")}
    labels = {row["study_id"]: row for row in table(folder, "chexpert")}
    for sample in samples:
        patient, study = sample.id.split("/")[:2]
        pictures = [image.name.removesuffix(".jpg") for image in (sample.image, *sample.more_images)]
        on_disk = (folder / "files" / patient[:3] / patient / study).glob("*.jpg")
        assert sorted(pictures) == sorted(path.stem for path in on_disk)
        assert {splits[picture] for picture in pictures} == {sample.official_split}
        assert (sample.views or [""] * len(pictures)) == [views[picture] for picture in pictures]
        positive = [name for name in layouts_reports.LABELS if labels[study[1:]][name] == "1.0"]
        named = ", ".join(name.lower() for name in positive if name != "No Finding")
        assert sample.finding == (named or ("none" if positive else None))
        assert sample.group == patient
        assert sample.license == "LicenseRef-PhysioNet-credentialed"


def test_what_of_the_report_is_learnt(folder: Path) -> None:
    for sample in read(folder)[0]:
        n = int(sample.id.split("/")[1][1:]) - 50000000
        assert sample.original_text == layouts_reports.report(n)
        assert (
            sample.target
            == (
                f"Left nodule of {n} mm. No pleural effusion or pneumothorax. No pneumonia. Nodule {n}.",
                f"Right rib {n} is broken.",
                f"Compared to ___. The tube ends {n} cm above the carina.",
                f"No acute process in study {n}.",
            )[n % 4]
        )
        expected = ("___ year old woman with cough // pneumonia?", "Fall.", "Tube.", "___M with pain")
        assert sample.indication == expected[n % 4]


@pytest.mark.parametrize(("section", "forms"), [("findings", (0, 1)), ("impression", (0, 1, 3))])
def test_reports_without_the_section_are_counted(folder: Path, section: str, forms: tuple[int, ...]) -> None:
    samples, rejects = read(folder, sections=section)
    assert {(int(sample.id.split("/")[1][1:]) - 50000000) % 4 for sample in samples} == set(forms)
    assert reasons(rejects) == {f"no {section}": COUNT * (4 - len(forms)) // 4}
    assert all(reject.where.startswith("files/p1") for reject in rejects)


def test_the_frontal_view_comes_first(folder: Path) -> None:
    for sample in read(folder)[0]:
        assert sample.views is None or sample.views[0] in ("PA", "AP", "")
    frontal, rejects = read(folder, views="frontal")
    assert {tuple(sample.views or ()) for sample in frontal} == {("PA",), ("AP",)}
    assert reasons(rejects) == {"no frontal view": COUNT - len(frontal)}
    each, _ = read(folder, views="each")
    assert len(each) == len({sample.id for sample in each}) == len(table(folder, "split"))


@pytest.mark.parametrize("odd", ["PA LLD", "PA RLD", "AP LLD", "AP RLD", "AP AXIAL"])
def test_lying_on_a_side_ranks_behind_plain_views(tmp_path: Path, odd: str) -> None:
    folder = layouts_reports.mimic(tmp_path / "in", 6)
    rows = table(folder, "metadata")
    for row in rows:
        row["ViewPosition"] = {"LATERAL": odd, "PA": "AP"}.get(row["ViewPosition"], row["ViewPosition"])
    path = folder / "mimic-cxr-2.0.0-metadata.csv.gz"
    layouts_reports.gzipped(path, list(rows[0]), [list(row.values()) for row in rows])
    assert {tuple(sample.views or ()) for sample in read(folder)[0]} == {("AP",), ("AP", odd)}
    lookup.cache_clear()
    assert {tuple(sample.views or ()) for sample in read(folder, views="frontal")[0]} == {("AP",)}


def test_the_order_of_views() -> None:
    order = ["PA", "postero-anterior", "POSTEROANTERIOR", "AP", "Frontal", "PA LLD", "AP AXIAL", "", "LAO", "LATERAL"]
    for views in (order, order[::-1]):
        ranks = [Shot("x", PictureError("-"), view).rank for view in views]
        assert ranks == sorted(ranks, reverse=views is not order)
    assert Shot("x", PictureError("-"), "PA").rank < Shot("x", PictureError("-"), "AP").rank
    assert Shot("x", PictureError("-"), "AP").rank < Shot("x", PictureError("-"), "PA LLD").rank


@pytest.mark.parametrize("texts", [".", "mimic-cxr-reports"])
def test_reports_as_files(folder: Path, tmp_path: Path, texts: str) -> None:
    other = layouts_reports.mimic(tmp_path / "in", COUNT, texts=texts)
    assert [(s.id, s.target) for s in read(other)[0]] == [(s.id, s.target) for s in read(folder)[0]]


def test_pictures_and_reports_in_two_inputs(folder: Path, tmp_path: Path) -> None:
    pictures, texts = tmp_path / "jpg", tmp_path / "reports"
    shutil.copytree(folder, pictures)
    texts.mkdir()
    (pictures / "mimic-cxr-reports.zip").rename(texts / "mimic-cxr-reports.zip")
    both = [read(pictures, texts), read(texts, pictures)]
    assert [[s.id for s in samples] for samples, _ in both] == [[s.id for s in read(folder)[0]]] * 2
    with pytest.raises(InputError, match="no reports"):
        read(pictures)
    with pytest.raises(InputError, match="no folders files/p10 to files/p19"):
        read(texts)


@pytest.mark.parametrize("name", ["mimic-cxr-reports.zip", "mimic-cxr-reports"])
def test_reports_in_another_input_are_found_without_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No look at the 65,379 patients' folders for reports that lie elsewhere."""
    folder = layouts_reports.mimic(tmp_path / "jpg", 4, texts="zip" if name.endswith(".zip") else name)
    (tmp_path / "reports").mkdir()
    (folder / name).rename(tmp_path / "reports" / name)
    monkeypatch.setattr(mimic_cxr, "_has_texts", lambda folder: pytest.fail(f"searched {folder}"))
    source = MimicCxrSource([folder, tmp_path / "reports"])
    assert source.tables(folder)


def test_only_what_is_on_disk_is_asked_for(tmp_path: Path) -> None:
    folder = layouts_reports.mimic(tmp_path / "in", COUNT)
    shutil.rmtree(folder / "files" / "p10")
    samples, rejects = read(folder)
    assert not rejects
    assert sorted({sample.group[:3] for sample in samples}) == [f"p{n}" for n in range(11, 20)]


def test_tables_are_optional_but_for_what_needs_them(tmp_path: Path) -> None:
    folder = layouts_reports.mimic(tmp_path / "in", 4)
    for path in folder.glob("*.csv.gz"):
        path.unlink()
    samples, _ = read(folder)
    assert {(sample.official_split, sample.finding, sample.views) for sample in samples} == {(None, None, None)}
    with pytest.raises(InputError, match="metadata"):
        read(folder, views="frontal")


def test_an_unpacked_table(tmp_path: Path) -> None:
    folder = layouts_reports.mimic(tmp_path / "in", 8)
    told = [(s.id, s.official_split, s.views, s.finding) for s in read(folder)[0]]
    for path in folder.glob("*.csv.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    lookup.cache_clear()
    assert [(s.id, s.official_split, s.views, s.finding) for s in read(folder)[0]] == told


def test_damage_is_counted(tmp_path: Path) -> None:
    folder = layouts_reports.mimic(tmp_path / "in", 16, texts=".")
    (tmp_path / "out.txt").write_text("FINDINGS: secret.")
    (tmp_path / "out.jpg").write_bytes(layouts_reports.picture(1, "JPEG"))
    studies = sorted(path for path in (folder / "files").glob("*/*/s*") if path.is_dir())
    texts = [path.with_name(f"{path.name}.txt") for path in studies]
    texts[0].unlink()
    texts[1].write_bytes(b"\xff\xfe FINDINGS")
    texts[2].write_bytes(b" " * (records.FIELD_CHARS + 1))
    texts[3].unlink()
    texts[3].symlink_to(tmp_path / "out.txt")
    texts[4].write_text("")
    for path in studies[5].iterdir():
        path.unlink()
    for path in studies[6].iterdir():
        path.rename(path.with_suffix(".dcm"))
    for path in studies[7].iterdir():
        path.write_bytes(b"")
    for path in studies[8].iterdir():
        path.unlink()
        path.symlink_to(tmp_path / "out.jpg")
    samples, rejects = read(folder)
    assert len(samples) == 7
    assert reasons(rejects) == {
        "no report": 1,
        "report cannot be read": 3,
        "no findings or impression": 1,
        "no picture in the folder": 1,
        "only DICOM files, MIMIC-CXR-JPG is read": 1,
        "image cannot be read": 1,
        "link out of the folder": 1,
    }
    assert not any("secret" in (sample.original_text or "") for sample in samples)
    assert not any("\n" in reject.detail or str(tmp_path) in reject.where for reject in rejects)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "cannot be read|no column"),
        (b"no gzip", "cannot be read"),
        (packed(b"dicom_id,study_id\n1,2\n"), "has no column subject_id, split"),
        (packed(b"dicom_id,study_id,subject_id,split\n\xff\n"), "cannot be read"),
        (packed(b"dicom_id,study_id,subject_id,split\n" * 9)[:-9], "cannot be read"),
    ],
    ids=["empty", "no gzip", "no column", "no text", "cut short"],
)
def test_a_damaged_table_leaves_out_what_it_tells_of(tmp_path: Path, data: bytes, told: str) -> None:
    folder = layouts_reports.mimic(tmp_path / "in", 2)
    (folder / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(data)
    samples, rejects = read(folder)
    assert not samples
    assert reasons(rejects) == {"file of records cannot be read": 1}
    with pytest.raises(InputError, match=told) as caught:
        lookup((str(folder),), "10")
    assert "\n" not in str(caught.value)


def test_a_bomb_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = layouts_reports.mimic(tmp_path / "in", 2)
    monkeypatch.setattr(mimic_tables, "TABLE_BYTES", 1 << 20)
    layouts_reports.gzipped(folder / "mimic-cxr-2.0.0-split.csv.gz", SPLIT_COLUMNS, [["a" * (2 << 20)]])
    with pytest.raises(InputError, match="unpacks to more than 1 MiB"):
        lookup((str(folder),), "10")


def test_a_broken_archive_of_reports(tmp_path: Path) -> None:
    folder = layouts_reports.mimic(tmp_path / "in", 4)
    archive = folder / "mimic-cxr-reports.zip"
    whole = archive.read_bytes()
    archive.write_bytes(b"PK")
    with pytest.raises(InputError, match="not a zip archive"):
        read(folder)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("files/p10/p10000000/s50000000.txt", b" " * (2 << 20))
    assert reasons(read(folder)[1]) == {"report cannot be read": 1, "no report": 3}
    assert len(whole) > 0


@given(st.dictionaries(st.sampled_from(layouts_reports.LABELS), st.sampled_from(["1.0", "0.0", "-1.0", "", "1", "x"])))
def test_labels(row: dict[str, str]) -> None:
    told = finding({"subject_id": "1", "study_id": "1.0", **row})
    positive = {name for name, value in row.items() if value in ("1.0", "1")}
    if positive - {"No Finding"}:
        assert {name.lower() for name in positive - {"No Finding"}} == set(str(told).split(", "))
    else:
        assert told == ("none" if positive else None)


def test_slices_cover_every_patient_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [sample.id for sample in read(folder)[0]]
    monkeypatch.setattr(mimic_cxr, "PATIENTS", 1)
    source = MimicCxrSource([folder])
    assert len(source.units()) == len({sample.split("/")[0] for sample in whole})
    assert sorted(sample.id for sample in read(folder)[0]) == sorted(whole)


def test_a_change_of_any_file_changes_the_description(tmp_path: Path) -> None:
    folder = layouts_reports.mimic(tmp_path / "in", 4, texts="mimic-cxr-reports")

    def told() -> list[str]:
        return [entry["sha256"] for entry in MimicCxrSource([folder]).describe()]

    before = told()
    assert told() == before
    changed = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        path.write_bytes(data + b" ")
        changed.append(told() != before)
        path.write_bytes(data)
    assert all(changed)
    assert told() == before


def test_prepared_whole_again_and_never_pushed(folder: Path, tmp_path: Path) -> None:
    source = MimicCxrSource([folder])
    chosen = Settings(license="LicenseRef-PhysioNet-credentialed", options=source.options())
    manifest = prepare(source, tmp_path / "a", chosen, workers=1).manifest
    assert manifest["counts"]["samples"] == COUNT
    assert prepare(source, tmp_path / "b", chosen, workers=2).manifest["fingerprint"] == manifest["fingerprint"]
    assert prepare(source, tmp_path / "a", chosen, workers=1).up_to_date
    with pytest.raises(LicenseError, match="LicenseRef-PhysioNet-credentialed"):
        check_licenses(manifest)
    assert source.facts.hub is None
