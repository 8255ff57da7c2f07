"""ROCOv2: Zenodo's tables with archives, the same unpacked, and the Hub's parquet files."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import pytest
from layouts_captions import CAPTION, LAYOUTS, jpeg, rocov2, rocov2_hub, table

from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.rocov2 import MODALITIES, Rocov2Source
from medvlm.errors import InputError


def read(folder: Path) -> list[Sample | Reject]:
    source = Rocov2Source([folder])
    return [item for unit in source.units() for item in source.read(unit)]


def samples(folder: Path) -> dict[str, Sample]:
    found = read(folder)
    assert all(isinstance(item, Sample) for item in found), found
    return {item.figure_id or "": item for item in found if isinstance(item, Sample)}


@pytest.mark.parametrize("name", ["rocov2", "rocov2/unpacked", "rocov2/hub"])
def test_every_figure_of_every_layout(tmp_path: Path, name: str) -> None:
    found = samples(LAYOUTS[name](tmp_path / "r", 20))
    assert len(found) == 20
    for figure, sample in found.items():
        n = int(figure[-6:])
        assert sample.image.data == jpeg(n)
        assert sample.official_split == ("train", "validation", "test")[(n - 1) % 3]
        assert f"_{(sample.official_split or '')[:5]}_" in figure
        # A caption has the image's file name where the layout tells ids alone.
        assert sample.target == CAPTION.format(n if name == "rocov2/hub" else figure)
        assert (sample.task, sample.prompt, sample.file_name) == ("caption", "", f"{figure}.jpg")


def test_articles_and_licenses_stand_in_zenodos_table(tmp_path: Path) -> None:
    found = samples(rocov2(tmp_path / "r", 12))
    with open(tmp_path / "r" / "license_information.csv", encoding="utf-8", newline="") as file:
        rows = {row["ID"]: row for row in csv.DictReader(file)}
    for figure, sample in found.items():
        assert sample.group == sample.pmcid == rows[figure]["PMCID"]
        assert rows[figure]["Attribution"] in (sample.license_evidence or "")
        # The set's license asks for all that the figures' CC BY and CC BY-NC ask for.
        assert (sample.license, sample.commercial_use) == ("CC-BY-NC-SA-4.0", "no")


@pytest.mark.parametrize(
    ("attribution", "link", "license"),
    [
        ("CC BY-NC-ND [X et al.]", "https://www.ncbi.nlm.nih.gov/pmc/PMC1/", "LicenseRef-CC-BY-NC-ND-unversioned"),
        ("[X et al.]", "https://creativecommons.org/licenses/by-nc-nd/3.0/", "CC-BY-NC-ND-3.0"),
        (
            "CC BY-NC-ND [X et al.]",
            "https://creativecommons.org/licenses/by/4.0/",
            "LicenseRef-CC-BY-NC-ND-unversioned",
        ),
        ("All rights reserved", "https://creativecommons.org/licenses/by/4.0/", "LicenseRef-all-rights-reserved"),
        ("CC BY [X et al.]", "https://creativecommons.org/licenses/by/4.0/", "CC-BY-NC-SA-4.0"),
    ],
)
def test_a_stricter_license_of_the_figure_holds(tmp_path: Path, attribution: str, link: str, license: str) -> None:
    folder = rocov2(tmp_path / "r", 1)
    row = ["ROCOv2_2023_train_000001", "PMC1", attribution, link]
    table(folder / "license_information.csv", ["ID", "PMCID", "Attribution", "Link"], [row])
    (sample,) = samples(folder).values()
    assert (sample.license, sample.commercial_use) == (license, "no")


@pytest.mark.parametrize(
    ("attribution", "link"),
    [
        ("© 2019 Elsevier, used with permission", "https://doi.org/10.1/x"),
        ("Elsevier user license", ""),
        ("[X et al.]", ""),
        ("", ""),
    ],
)
def test_a_row_that_names_no_license_gives_none(tmp_path: Path, attribution: str, link: str) -> None:
    """Nor does another row of the figure that names one."""
    folder = rocov2(tmp_path / "r", 1)
    rows = [["ROCOv2_2023_train_000001", "PMC1", *said] for said in ((attribution, link), ("CC BY [X et al.]", ""))]
    for some in (rows[:1], rows, rows[::-1]):
        table(folder / "license_information.csv", ["ID", "PMCID", "Attribution", "Link"], some)
        (sample,) = samples(folder).values()
        assert (sample.license, sample.license_scope, sample.commercial_use) == (None, None, "unknown")
        assert (sample.pmcid, attribution in (sample.license_evidence or "")) == ("PMC1", True)


def test_two_rows_for_one_figure_allow_what_both_allow(tmp_path: Path) -> None:
    folder = rocov2(tmp_path / "r", 1)
    rows = [["ROCOv2_2023_train_000001", "PMC1", f"{code} [X et al.]", ""] for code in ("CC BY", "CC BY-NC-ND")]
    for order in (rows, rows[::-1]):
        table(folder / "license_information.csv", ["ID", "PMCID", "Attribution", "Link"], order)
        (sample,) = samples(folder).values()
        assert (sample.license, sample.group) == ("LicenseRef-CC-BY-NC-ND-unversioned", "PMC1")
        assert all(row[2] in (sample.license_evidence or "") for row in rows)


@pytest.mark.parametrize("name", ["license_information.csv", "train_concepts.csv"])
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    """A comma without quotes gives a field too many; without its row the figure would be under a freer license."""
    folder = rocov2(tmp_path / "r", 4)
    with open(folder / name, "a", encoding="utf-8") as file:
        file.write("ROCOv2_2023_train_000001,PMC1,CC BY-NC-ND [X, et al.],link\n")
    with pytest.raises(InputError, match=rf"{name} row \d+: .*fields in .* columns; mend the row"):
        Rocov2Source([folder]).units()


def test_the_hub_tells_no_article(tmp_path: Path) -> None:
    for figure, sample in samples(rocov2_hub(tmp_path / "r", 6)).items():
        assert (sample.group, sample.pmcid, sample.license) == (figure, None, "CC-BY-NC-SA-4.0")
        assert "figure:" not in (sample.license_evidence or "")


def test_zenodos_table_is_used_beside_the_hubs_files(tmp_path: Path) -> None:
    folder = rocov2_hub(tmp_path / "r", 2)
    row = ["ROCOv2_2023_train_000001", "PMC77", "CC BY [X et al.]", ""]
    table(folder / "license_information.csv", ["ID", "PMCID", "Attribution", "Link"], [row])
    found = samples(folder)
    assert found["ROCOv2_2023_train_000001"].group == "PMC77"
    other = found["ROCOv2_2023_valid_000002"]
    assert (other.pmcid, other.license, other.license_scope, other.commercial_use) == (None, None, None, "unknown")
    assert (other.license_evidence or "").endswith("figure: no row in license_information.csv")


def test_concepts_and_the_modality_they_name(tmp_path: Path) -> None:
    (sample,) = samples(rocov2(tmp_path / "z", 1)).values()
    assert sample.concepts == ["C0040405", "C0817096"]
    assert (sample.modality, sample.modality_evidence) == ("ct", "concept C0040405")
    (sample,) = samples(rocov2_hub(tmp_path / "h", 1)).values()
    assert (sample.concepts, sample.modality) == (["C1306645", "C0817096"], "radiograph")


@pytest.mark.parametrize(
    ("cuis", "modality"),
    [("C0040405;C0024485", None), ("C0032743;C1699633", "pet"), ("", None), ("x; C0041618 ;C1", "ultrasound")],
)
def test_modalities_at_odds_name_none(tmp_path: Path, cuis: str, modality: str | None) -> None:
    folder = rocov2(tmp_path / "r", 1)
    (folder / "train_concepts_manual.csv").unlink()
    table(folder / "train_concepts.csv", ["ID", "CUIs"], [["ROCOv2_2023_train_000001", cuis]])
    (sample,) = samples(folder).values()
    assert sample.modality == modality
    assert set(sample.concepts or ()) == {word for word in ("C0040405", *MODALITIES) if word in cuis}


def test_absent_pictures_name_the_archive(tmp_path: Path) -> None:
    folder = rocov2(tmp_path / "r", 4)
    (folder / "train_images.zip").unlink()
    bad = [item for item in read(folder) if isinstance(item, Reject)]
    assert [(r.where, r.reason, r.detail) for r in bad] == [
        (f"train_captions.csv row {row}", "no image file", f"ROCOv2_2023_train_{n:06}.jpg of train_images.zip")
        for row, n in enumerate((1, 4))
    ]


def test_a_damaged_archive_loses_no_record(tmp_path: Path) -> None:
    folder = rocov2(tmp_path / "r", 9)
    archive = folder / "train_images.zip"
    archive.write_bytes(archive.read_bytes()[:-30])
    found = read(folder)
    assert len(found) == 9
    assert {item.reason for item in found if isinstance(item, Reject)} == {"archive cannot be read"}
    assert sum(isinstance(item, Reject) for item in found) == 3


def test_a_name_with_a_path_is_refused(tmp_path: Path) -> None:
    folder = rocov2(tmp_path / "r", 1)
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    with zipfile.ZipFile(folder / "train_images.zip", "a") as archive:
        archive.writestr("train/../../secret.jpg", jpeg(1))
    table(folder / "train_captions.csv", ["ID", "Caption"], [["../../secret", "x"]])
    (bad,) = read(folder)
    assert isinstance(bad, Reject)
    assert bad.reason == "unsafe image name"


def test_the_header_may_hold_blanks_and_ids_an_ending(tmp_path: Path) -> None:
    folder = rocov2(tmp_path / "r", 1)
    (folder / "train_captions.csv").write_text('ID , Caption\nROCOv2_2023_train_000001.jpg,"a, b"\n')
    (folder / "license_information.csv").write_text(
        "ID, PMCID, Attribution, Link\nROCOv2_2023_train_000001.jpg, PMC5, CC BY [X et al.], \n"
    )
    (sample,) = samples(folder).values()
    assert (sample.target, sample.group, sample.figure_id) == ("a, b", "PMC5", "ROCOv2_2023_train_000001")


def test_a_table_without_its_columns_is_named(tmp_path: Path) -> None:
    folder = rocov2(tmp_path / "r", 1)
    (folder / "license_information.csv").write_text("ID,License\nx,CC BY\n")
    with pytest.raises(InputError, match=r"license_information\.csv: no column PMCID, Attribution, Link"):
        read(folder)


def test_tables_and_archives_belong_to_the_description(tmp_path: Path) -> None:
    folder = rocov2(tmp_path / "r", 1)
    names = {Path(entry["path"]).name for entry in Rocov2Source([folder]).describe()}
    assert {"train_captions.csv", "train_concepts.csv", "license_information.csv", "train_images.zip"} <= names


def test_another_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither train_captions\.csv nor data/train-\*\.parquet"):
        read(tmp_path)
