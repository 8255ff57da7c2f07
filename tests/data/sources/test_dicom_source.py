"""DICOM files as samples: what is found, which study it belongs to, which text it gets, and why a file gives none."""

from __future__ import annotations

import datetime
import json
import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from layouts_dicom import code, content, ct, put_pixels, save, structured_report
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medvlm.data.phi import Scanner
from medvlm.data.pseudonyms import Key
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.dicom import files, refuse, texts
from medvlm.data.sources.dicom.options import PRESETS, Options, parse, parse_frames, parse_window
from medvlm.data.sources.dicom.source import DicomSource
from medvlm.data.sources.dicom.study import personal
from medvlm.errors import InputError, MissingExtraError, UsageError

KEY = Key(b"k" * 32)
BRINGS = Path(pydicom.__file__).parent / "data" / "test_files"


def read(*inputs: Path, **options: Any) -> tuple[list[Sample], list[Reject]]:
    """Return the samples and rejects of all units."""
    extra = {name: options.pop(name) for name in ("reports_at", "scanner", "names", "key") if name in options}
    asked = parse(**({"target_from": "modality"} | options if "reports" not in options else options))
    source = DicomSource(
        inputs, extra.get("key", KEY), asked, extra.get("scanner"), extra.get("reports_at"), extra.get("names")
    )
    found = [item for unit in source.units() for item in source.read(unit)]
    return [x for x in found if isinstance(x, Sample)], [x for x in found if isinstance(x, Reject)]


def reasons(rejects: list[Reject]) -> Counter[str]:
    return Counter(reject.reason for reject in rejects)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2000, (16, 16), np.int16)


@pytest.mark.realdata
def test_every_real_file_is_read_or_a_reason(realdata: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.jsonl"
    samples, rejects = read(realdata / "dicom", allow_burned_in=True, allow_secondary=True, names=names)
    there = sorted(path.name for path in (realdata / "dicom").iterdir())
    rows = [json.loads(line) for line in names.read_text().splitlines()]
    assert sorted(Path(row["file"]).name for row in rows) == there
    assert len(samples) + len(rejects) == len(there) == 21
    whose = {row["as"]: Path(row["file"]).stem for row in rows}
    why = {whose[reject.where.rpartition("/")[2]]: reject.reason for reject in rejects}
    copies = "no_meta MR_small_RLE MR_small_bigendian MR_small_implicit MR_small_jp2klossless MR_small_jpeg_ls_lossless"
    assert why == {
        **dict.fromkeys(copies.split(), "duplicate instance"),
        **dict.fromkeys(("badVR", "liver_1frame"), "not a picture"),
        **dict.fromkeys(("reportsi", "test-SR"), "structured report, not asked for"),
        **dict.fromkeys(("SOURCES", "PYDICOM_README"), "not a DICOM file"),
        "MR_truncated": "pixel data cut short",
    }


@pytest.mark.realdata
@pytest.mark.parametrize(
    "name", ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "no_meta", "JPEG-lossy"]
)
def test_copies_are_read_alone(realdata: Path, name: str) -> None:
    samples, rejects = read(realdata / "dicom" / f"{name}.dcm", allow_secondary=True)
    assert (len(samples), rejects) == (1, [])


@pytest.mark.realdata
def test_by_default_what_may_show_a_name_is_refused(realdata: Path) -> None:
    samples, rejects = read(realdata / "dicom")
    assert [sample.modality for sample in samples] == ["ct"]
    found = reasons(rejects)
    assert found["secondary capture"] == 9
    assert found["burned-in text not ruled out"] == 4


@pytest.mark.realdata
def test_a_sample_of_a_real_file(realdata: Path) -> None:
    (sample,), _ = read(realdata / "dicom" / "examples_overlay.dcm", allow_secondary=True, target_from="body-part")
    assert (sample.task, sample.prompt, sample.target) == (
        "vqa",
        "Which part of the body does this image show?",
        "abdomen",
    )
    assert (sample.modality, sample.organ, sample.year, sample.views) == ("mri", "abdomen", None, None)
    assert sample.label == "MR, 484x300, 12 bits, MONOCHROME2, window tag, spacing 0.7231x0.7231 mm, slice 4 mm"
    assert sample.id == f"{sample.group}/" + sample.id.partition("/")[2]
    assert sample.image.name == sample.file_name
    assert sample.group == KEY.pseudonym("patient", "021234567")


def test_files_are_told_by_their_content(tmp_path: Path) -> None:
    save(ct(noise(1)), tmp_path / "a" / "b" / "c" / "000001")
    save(ct(noise(2)), tmp_path / "a" / "picture.jpg")
    (tmp_path / "fake.dcm").write_text("no DICOM at all, though the name says so")
    (tmp_path / "empty.dcm").write_bytes(b"")
    samples, rejects = read(tmp_path)
    assert len(samples) == 2
    assert reasons(rejects) == {"not a DICOM file": 1, "empty file": 1}


def test_dicomdir_names_its_files() -> None:
    directory = BRINGS / "dicomdirtests" / "DICOMDIR"
    samples, rejects = read(directory, allow_secondary=True)
    records = pydicom.dcmread(directory).DirectoryRecordSequence
    assert len(samples) == sum("ReferencedFileID" in record for record in records) == 31
    assert rejects == []
    patients = {record.PatientID for record in records if record.DirectoryRecordType == "PATIENT"}
    assert len({sample.group for sample in samples}) == len(patients) == 2


def test_dicomdir_with_files_that_are_not_there(tmp_path: Path) -> None:
    directory = tmp_path / "DICOMDIR"
    directory.write_bytes((BRINGS / "dicomdirtests" / "DICOMDIR").read_bytes())
    taken = BRINGS / "dicomdirtests" / "77654033" / "CR1" / "6154"
    (tmp_path / "77654033" / "cr1").mkdir(parents=True)
    (tmp_path / "77654033" / "cr1" / "6154").write_bytes(taken.read_bytes())
    for given in (directory, tmp_path):
        samples, rejects = read(given)
        assert reasons(rejects) == {"file of DICOMDIR is missing": 31 - len(samples)}


@pytest.mark.parametrize("parts", [["..", "x"], ["a/b"], ["a", ""], [], ["\0"]])
def test_dicomdir_does_not_lead_out(tmp_path: Path, parts: list[str]) -> None:
    (tmp_path / "x").write_text("")
    (tmp_path / "in").mkdir()
    assert files.Inputs([tmp_path / "in"]).referenced("0:DICOMDIR", parts).problem == "unsafe path in DICOMDIR"


def test_links_pipes_and_folders_that_cannot_be_read(tmp_path: Path) -> None:
    outside = save(ct(), tmp_path / "outside" / "a")
    inside = tmp_path / "in"
    save(ct(noise(1)), inside / "b")
    (inside / "out").symlink_to(outside)
    (inside / "same").symlink_to(inside / "b")
    (inside / "loop").symlink_to(inside)
    (inside / "nowhere").symlink_to(inside / "absent")
    os.mkfifo(inside / "pipe")
    samples, rejects = read(inside)
    assert len(samples) == 1
    assert reasons(rejects) == {
        "link out of the folder": 1,
        "duplicate instance": 1,
        "link to a folder": 1,
        "file cannot be read": 1,
        "not a file": 1,
    }


def test_names_of_any_bytes_and_any_depth(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(300):
        deep = deep / "d"
    save(ct(noise(1)), deep / "a")
    strange = Path(os.fsdecode(bytes(tmp_path) + b"/\xff\n%41"))
    os.rename(save(ct(noise(2)), tmp_path / "b"), strange)
    source = DicomSource([tmp_path], KEY, parse(target_from="modality"))
    units = source.units()
    json.dumps([unit.locator for unit in units]).encode()
    assert sum(isinstance(item, Sample) for unit in units for item in source.read(unit)) == 2
    assert source.describe()[0]["bytes"] > 0


@pytest.mark.parametrize(
    ("elements", "reason", "flag"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned-in text", "allow_burned_in"),
        ({"Modality": "US"}, "burned-in text not ruled out", "allow_burned_in"),
        ({"ImageType": ["DERIVED", "PRIMARY", "LABEL"]}, "burned-in text", "allow_burned_in"),
        ({"SOPClassUID": uid.SecondaryCaptureImageStorage}, "secondary capture", "allow_secondary"),
        ({"ConversionType": "WSD"}, "secondary capture", "allow_secondary"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "secondary capture", "allow_secondary"),
    ],
)
def test_refused_unless_allowed(tmp_path: Path, elements: dict[str, Any], reason: str, flag: str) -> None:
    save(ct(**elements), tmp_path / "a")
    samples, rejects = read(tmp_path)
    assert (samples, reasons(rejects)) == ([], {reason: 1})
    samples, rejects = read(tmp_path, **{flag: True})
    assert (len(samples), rejects) == (1, [])


def test_ultrasound_that_says_it_has_no_text_is_taken(tmp_path: Path) -> None:
    save(ct(Modality="US", BurnedInAnnotation="NO"), tmp_path / "a")
    samples, _ = read(tmp_path)
    assert [sample.target for sample in samples] == ["ultrasound"]


@pytest.mark.parametrize("kind", [uid.SegmentationStorage, uid.RTDoseStorage, uid.ParametricMapStorage, "1.2.3.4", ""])
def test_other_objects_are_no_pictures(tmp_path: Path, kind: str) -> None:
    made = ct()
    path = save(made, tmp_path / "a")
    made.SOPClassUID = kind
    made.save_as(path)
    samples, rejects = read(tmp_path)
    assert (samples, reasons(rejects)) == ([], {"not a picture": 1})
    assert refuse.is_picture(ct())


def test_notes_count_what_does_not_say(tmp_path: Path) -> None:
    save(ct(), tmp_path / "a")
    save(ct(Modality="US"), tmp_path / "b")
    save(ct(BurnedInAnnotation="NO", PatientID=None), tmp_path / "c")
    card = DicomSource([tmp_path], KEY, parse(target_from="modality")).card()
    notes = " ".join(card["known_problems"])
    assert "2 of 3 pictures do not say whether text is burned into them" in notes
    assert "1 of them are of a modality that usually writes names" in notes
    assert "1 files have no PatientID" in notes


def test_one_patient_is_one_group(tmp_path: Path) -> None:
    for number, patient in enumerate(["A", "a ", "B"]):
        save(ct(noise(number), PatientID=patient), tmp_path / str(number))
    first, _ = read(tmp_path)
    assert len({sample.group for sample in first}) == 2
    assert len({sample.id for sample in first}) == 3
    again, _ = read(tmp_path)
    other, _ = read(tmp_path, key=Key(b"o" * 32))
    assert [sample.id for sample in first] == [sample.id for sample in again]
    assert not {sample.group for sample in first} & {sample.group for sample in other}


def test_a_file_without_a_number_goes_with_its_study(tmp_path: Path) -> None:
    """A structured report may lack the patient's number that its pictures have."""
    name = study(tmp_path, 2, AccessionNumber="")
    save(structured_report(name, content("TEXT", "Findings", "A nodule."), PatientID=""), tmp_path / "sr")
    save(ct(noise(7), StudyInstanceUID=name, PatientID=None, InstanceNumber=9), tmp_path / "stray")
    (sample,), rejects = read(tmp_path, reports="sr")
    assert (len(sample.more_images), rejects) == (2, [])
    assert sample.group == KEY.pseudonym("patient", "4711")
    source = DicomSource([tmp_path], KEY, parse(reports="sr"))
    assert "PatientID" not in " ".join(source.card()["known_problems"])


def test_the_accession_number_of_any_file_finds_the_report(tmp_path: Path) -> None:
    name = uid.generate_uid()
    for number, accession in enumerate(["", "77"]):
        save(ct(noise(number), StudyInstanceUID=name, AccessionNumber=accession), tmp_path / "in" / str(number))
    table = tmp_path / "reports.csv"
    table.write_text("accession_number,text\n77,A nodule.\n")
    (sample,), _ = read(tmp_path / "in", reports=str(table), reports_at=table)
    assert sample.target == "A nodule."


def test_without_a_number_name_and_birth_date_tell_patients_apart(tmp_path: Path) -> None:
    known = {"PatientID": None, "PatientName": "Doe^John", "PatientBirthDate": "19500101"}
    for number in range(2):
        save(ct(noise(number), **known), tmp_path / f"known{number}")
        save(ct(noise(10 + number), PatientID="", PatientName="Anonymous"), tmp_path / f"unknown{number}")
    samples, _ = read(tmp_path)
    assert len({sample.group for sample in samples}) == 3


@pytest.mark.parametrize(
    ("frames", "taken"), [("first", [1]), ("middle", [4]), ("all", list(range(1, 8))), ("every:3", [1, 4, 7])]
)
def test_frames(tmp_path: Path, frames: str, taken: list[int]) -> None:
    made = ct()
    put_pixels(made, np.stack([noise(number) for number in range(7)]), frames=True)
    save(made, tmp_path / "a")
    samples, rejects = read(tmp_path, frames=frames)
    assert rejects == []
    assert [int(sample.file_name.removesuffix(".png").rpartition("-")[2]) for sample in samples] == taken
    assert len({sample.group for sample in samples}) == 1


def test_dates_leave_as_a_shifted_year_or_not_at_all(tmp_path: Path) -> None:
    save(ct(StudyDate="20200105"), tmp_path / "a")
    (dropped,), _ = read(tmp_path)
    (shifted,), _ = read(tmp_path, dates="shift")
    assert dropped.year is None
    expected = datetime.date(2020, 1, 5) + datetime.timedelta(days=KEY.shift(shifted.group))
    assert shifted.year == expected.year


def study(folder: Path, count: int, **elements: Any) -> str:
    """Write a study of `count` slices; return its UID."""
    uids = {"StudyInstanceUID": uid.generate_uid(), "SeriesInstanceUID": uid.generate_uid()}
    for number in range(count):
        save(ct(noise(number), **uids, InstanceNumber=number + 1, **elements), folder / f"{count - number:03}")
    return uids["StudyInstanceUID"]


REPORT = "HISTORY: Fever.\nFINDINGS: A nodule of 9 mm.\nIMPRESSION: One nodule."


def test_a_table_of_reports(tmp_path: Path) -> None:
    study(tmp_path / "in", 10, AccessionNumber="007")
    study(tmp_path / "in" / "other", 2, AccessionNumber="008")
    table = tmp_path / "reports.csv"
    table.write_text(f'Accession Number;Report\n007;"{REPORT}"\n007;"{REPORT}"\n;nobody\n999;no such study\n')
    samples, rejects = read(tmp_path / "in", reports=str(table), reports_at=table)
    (sample,) = samples
    assert (sample.task, sample.prompt, len(sample.more_images)) == ("report", "", 3)
    assert sample.target == "A nodule of 9 mm. One nodule."
    assert sample.indication == "Fever."
    assert "HISTORY" not in (sample.original_text or "")
    assert reasons(rejects) == {"no report text": 1}
    source = DicomSource([tmp_path / "in"], KEY, parse(reports=str(table)), reports=table)
    notes = " ".join(source.card()["known_problems"])
    assert "1 of 2 studies have one of the 2 given" in notes
    assert "1 (second report of a study)" in notes
    assert "1 (report without a study)" in notes


def with_reports(folder: Path, table: str, **options: Any) -> tuple[list[Sample], list[Reject], str]:
    """Return the samples and rejects of a folder with a table of reports, and what is told of them all."""
    at = folder.parent / "reports.csv"
    at.write_text(table)
    samples, rejects = read(folder, reports=str(at), reports_at=at, **options)
    card = DicomSource([folder], KEY, parse(reports=str(at)), reports=at).card()
    return samples, rejects, " ".join(card["known_problems"])


def test_one_study_of_two_patients_is_one_group(tmp_path: Path) -> None:
    """A study is on one side, whatever numbers its files give the patient, and so are the other studies of both."""
    one, other = uid.generate_uid(), uid.generate_uid()
    for number, (patient, name) in enumerate([("0815", one), ("815", one), ("815", other), ("9", other), ("7", "1.2")]):
        save(ct(noise(number), PatientID=patient, StudyInstanceUID=name), tmp_path / "in" / str(number))
    samples, _ = read(tmp_path / "in")
    same = min(KEY.pseudonym("patient", name) for name in ("0815", "815", "9"))
    assert Counter(sample.group for sample in samples) == {same: 4, KEY.pseudonym("patient", "7"): 1}
    table = f"StudyInstanceUID,report\n{one},A nodule.\n{other},A cyst.\n1.2,A polyp.\n"
    samples, rejects, told = with_reports(tmp_path / "in", table)
    assert [(sample.target, len(sample.more_images)) for sample in samples] == [("A polyp.", 0)]
    assert reasons(rejects) == {"no report text": 4}
    assert "2 PatientIDs are taken for another patient's" in told
    assert "up to 2 share one StudyInstanceUID" in told
    assert "2 accession numbers or UIDs stand for several studies or patients" in told


@pytest.mark.parametrize("who", ["PatientID", "PatientName"])
def test_a_report_meets_no_pictures_of_another_patient_with_the_same_study_uid(tmp_path: Path, who: str) -> None:
    """Some machines and anonymizers give every study one UID."""
    for patient in range(4):
        for exam in range(2):
            whose = {"PatientID": None, "PatientBirthDate": "19500101", who: f"P{patient}"}
            known = {"StudyInstanceUID": "1.2.3", "AccessionNumber": f"A{patient}{exam}", **whose}
            for number in range(2):
                save(
                    ct(noise(100 * patient + 10 * exam + number), **known), tmp_path / "in" / f"{patient}{exam}{number}"
                )
    table = "AccessionNumber,report\nA10,A nodule.\nA20,A cyst.\n"
    samples, rejects, told = with_reports(tmp_path / "in", table)
    assert sorted((sample.target, len(sample.more_images)) for sample in samples) == [("A cyst.", 1), ("A nodule.", 1)]
    assert (len({sample.id for sample in samples}), len({sample.group for sample in samples})) == (2, 1)
    assert reasons(rejects) == {"no report text": 6}
    assert "2 of 8 studies have one" in told
    samples, _, told = with_reports(tmp_path / "in", "StudyInstanceUID,report\n1.2.3,A nodule.\n")
    assert samples == []
    assert "1 accession numbers or UIDs stand for several studies or patients" in told
    save(structured_report("1.2.3", content("TEXT", "Findings", "A scar."), **known), tmp_path / "in" / "sr")
    (sample,), _ = read(tmp_path / "in", reports="sr")
    assert (sample.target, len(sample.more_images)) == ("A scar.", 1)


def test_an_accession_number_of_two_patients_gives_no_report(tmp_path: Path) -> None:
    for number, accession in enumerate(["1001", "1001", "1002"]):
        save(ct(noise(number), PatientID=f"P{number}", AccessionNumber=accession), tmp_path / "in" / str(number))
    table = "AccessionNumber,report\n1001,A nodule.\n1002,A cyst.\n"
    samples, rejects, told = with_reports(tmp_path / "in", table)
    assert ([sample.target for sample in samples], reasons(rejects)) == (["A cyst."], {"no report text": 2})
    assert "1 accession numbers or UIDs stand for several studies" in told


@pytest.mark.parametrize(("patient", "found"), [("A", ["A nodule."]), ("B", [])])
def test_pictures_that_are_refused_do_not_cost_a_report(tmp_path: Path, patient: str, found: list[str]) -> None:
    """A copy of the screen has a study UID of its own; of another patient it shows that the number is nobody's own."""
    copy = {"SOPClassUID": uid.SecondaryCaptureImageStorage, "PatientID": patient, "AccessionNumber": "1001"}
    save(ct(noise(1), **copy), tmp_path / "in" / "copy")
    save(ct(noise(2), PatientID="A", AccessionNumber="1001"), tmp_path / "in" / "slice")
    samples, rejects, told = with_reports(tmp_path / "in", "AccessionNumber,report\n1001,A nodule.\n")
    assert [sample.target for sample in samples] == found
    assert reasons(rejects)["secondary capture"] == 1
    assert ("1 of 2 studies have one" in told) == bool(found)


def test_files_without_a_study_are_one_study_by_patient_and_accession_number(tmp_path: Path) -> None:
    for number in range(3):
        save(ct(noise(number), StudyInstanceUID=None, AccessionNumber="1001"), tmp_path / "in" / str(number))
    (sample,), rejects, _ = with_reports(tmp_path / "in", "AccessionNumber,report\n1001,A nodule.\n")
    assert (len(sample.more_images), rejects) == (2, [])


@pytest.mark.parametrize("table", ["A2,A nodule.\nA10,A cyst.\n", "A2,A nodule.\nA2,A cyst.\nA10,A nodule.\n"])
def test_reports_of_one_study_that_differ_are_left_out(tmp_path: Path, table: str) -> None:
    name = uid.generate_uid()
    for number, accession in enumerate(["A2", "A10"]):
        save(ct(noise(number), StudyInstanceUID=name, AccessionNumber=accession), tmp_path / "in" / str(number))
    samples, rejects, told = with_reports(tmp_path / "in", "AccessionNumber,report\n" + table)
    assert (samples, reasons(rejects)) == ([], {"no report text": 1})
    assert "1 studies have several that differ" in told
    samples, _, told = with_reports(tmp_path / "in", "AccessionNumber,report\nA2,A nodule.\nA10,A  nodule.\n")
    assert [sample.target for sample in samples] == ["A nodule."]


def test_numbers_are_looked_for_among_those_of_their_kind(tmp_path: Path) -> None:
    """A column of running numbers is neither UID nor accession number."""
    save(ct(noise(1), PatientID="A", AccessionNumber="7"), tmp_path / "in" / "a")
    save(ct(noise(2), PatientID="B", AccessionNumber="1001", StudyInstanceUID="1.2.3"), tmp_path / "in" / "b")
    samples, _, _ = with_reports(tmp_path / "in", "study_id,AccessionNumber,report\n7,1001,A nodule.\n")
    assert [sample.group for sample in samples] == [KEY.pseudonym("patient", "b")]
    samples, _, _ = with_reports(tmp_path / "in", "StudyInstanceUID,report\n7,A nodule.\n")
    assert samples == []
    samples, _, _ = with_reports(tmp_path / "in", "AccessionNumber,report\n1.2.3,A nodule.\n")
    assert samples == []


@pytest.mark.parametrize(
    ("row", "target", "told"),
    [
        ('"1001", "findings": NaN, "impression": "Nodule."', "Nodule.", ""),
        ('1001.0, "findings": "Nodule.", "impression": null', "Nodule.", ""),
        ('"1001", "findings": ["a", "b"], "impression": "Nodule."', None, "1 (report is no text)"),
        ('"1001", "findings": true, "impression": ""', None, "1 (report is no text)"),
        ('"1001", "findings": NaN, "impression": " "', None, "1 (report without text)"),
        ('NaN, "findings": "Nodule.", "impression": ""', None, "1 (report without a study)"),
    ],
)
def test_fields_that_are_no_text(tmp_path: Path, row: str, target: str | None, told: str) -> None:
    save(ct(AccessionNumber="1001"), tmp_path / "in" / "a")
    table = tmp_path / "reports.jsonl"
    table.write_text(f'{{"AccessionNumber": {row}}}\n')
    samples, _ = read(tmp_path / "in", reports=str(table), reports_at=table)
    assert [sample.target for sample in samples] == ([target] if target else [])
    notes = DicomSource([tmp_path / "in"], KEY, parse(reports=str(table)), reports=table).card()["known_problems"]
    assert told in " ".join(notes)


def test_lines_of_a_report_stay(tmp_path: Path) -> None:
    table = tmp_path / "reports.csv"
    table.write_text(f'AccessionNumber,report\n1001,"{REPORT}"\n')
    reports = texts.Reports(table)
    found, _ = reports.index()
    assert reports.read(found[texts.ACCESSION, "1001"][0]) == REPORT


def test_what_is_no_report_in_a_folder_stops_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    (folder / "x.txt").mkdir(parents=True)
    (folder / "dead.txt").symlink_to(folder / "absent")
    (tmp_path / "outside").write_text("FINDINGS: Of somebody else.")
    (folder / "1002.txt").symlink_to(tmp_path / "outside")
    os.mkfifo(folder / "pipe.txt")
    (folder / "1001.txt").write_text(REPORT)
    (folder / "1003.txt").write_bytes(b"\xff\xfe\x00")
    reports = texts.Reports(folder)
    told = reports.describe(KEY)
    assert told["bytes"] == len(REPORT) + 3
    (tmp_path / "outside").write_text("FINDINGS: Other words.")
    assert reports.describe(KEY) == told
    found, lost = reports.index()
    assert {number for _, number in found} == {"1001"}
    assert lost == {"report is no plain file": 4, "report cannot be read": 1}


def test_a_first_row_of_a_patient_is_not_told(tmp_path: Path) -> None:
    table = tmp_path / "reports.csv"
    table.write_text('1001,"Kowalczyk Agnieszka 1957-07-13",Report\n1002,"x",y\n')
    with pytest.raises(InputError, match="among 3 beside Report") as caught:
        texts.Reports(table).check()
    assert not [word for word in ("1001", "Kowalczyk", "1957") if word in str(caught.value)]


@pytest.mark.parametrize("kind", ["jsonl", "tsv", "folder", "parquet"])
def test_reports_in_other_forms(tmp_path: Path, kind: str) -> None:
    name = study(tmp_path / "in", 1)
    at = tmp_path / f"reports.{kind}"
    if kind == "folder":
        at.mkdir()
        (at / f"{name}.txt").write_text(REPORT)
    elif kind == "jsonl":
        rows = [
            {"study_uid": "1.2", "findings": "x"},
            {"study_uid": name, "findings": "A nodule.", "impression": "One."},
        ]
        at.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "tsv":
        at.write_text(f"StudyInstanceUID\tfindings\timpression\n{name}\tA nodule.\tOne.\n")
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"StudyInstanceUID": ["1", name], "report": ["", REPORT]}), at)
    (sample,), rejects = read(tmp_path / "in", reports=str(at), reports_at=at, sections="impression")
    assert sample.target in ("One.", "One nodule.")
    assert rejects == []


def test_a_table_without_the_columns_is_named(tmp_path: Path) -> None:
    study(tmp_path / "in", 1)
    table = tmp_path / "reports.csv"
    for header, lacking in (("a,report", "StudyInstanceUID"), ("AccessionNumber,b", "report")):
        table.write_text(f"{header}\n1,2\n")
        with pytest.raises(InputError, match=lacking):
            DicomSource([tmp_path / "in"], KEY, parse(reports=str(table)), reports=table).describe()
    with pytest.raises(InputError, match="no such file"):
        DicomSource([tmp_path / "in"], KEY, parse(reports="x"), reports=tmp_path / "absent").describe()


def test_sections_that_lack_are_counted(tmp_path: Path) -> None:
    name = study(tmp_path / "in", 2)
    table = tmp_path / "reports.csv"
    table.write_text(f"StudyInstanceUID,report\n{name},FINDINGS: A nodule.\n")
    for views, count in (("study", 1), ("each", 2)):
        options = {"reports": str(table), "sections": "impression", "views": views, "reports_at": table}
        samples, rejects = read(tmp_path / "in", **options)
        assert (samples, reasons(rejects)) == ([], {"no impression": count})


def test_identifiers_in_reports(tmp_path: Path) -> None:
    name = study(tmp_path / "in", 1)
    table = tmp_path / "reports.csv"
    table.write_text(f"StudyInstanceUID,report\n{name},FINDINGS: A nodule. Call 617-555-0123 on 3/14/2019.\n")
    (sample,), _ = read(tmp_path / "in", reports=str(table), reports_at=table, scanner=Scanner("count"))
    assert "date" in (sample.identifiers or "")
    samples, rejects = read(tmp_path / "in", reports=str(table), reports_at=table, scanner=Scanner("strict"))
    assert samples == []
    assert reasons(rejects) == {"identifiers in text": 1}
    assert "617" not in rejects[0].detail


NAMED = "FINDINGS: A nodule. Li Wu, born 13.7.57, was told; Okonkwo agreed."


@pytest.mark.parametrize("kind", ["sr", "table"])
def test_names_of_the_header_in_reports(tmp_path: Path, kind: str) -> None:
    whose = {"PatientName": "Wu^Li", "PatientBirthDate": "19570713", "ReferringPhysicianName": "Okonkwo^Chidi"}
    name = study(tmp_path / "in", 1, **whose)
    options: dict[str, Any] = {"reports": "sr"}
    if kind == "table":
        table = tmp_path / "reports.csv"
        table.write_text(f'StudyInstanceUID,report\n{name},"{NAMED}"\n')
        options = {"reports": str(table), "reports_at": table}
    else:
        save(structured_report(name, content("TEXT", "", NAMED), PatientName="Wu^Li"), tmp_path / "in" / "sr")
    (sample,), _ = read(tmp_path / "in", scanner=Scanner("count"), **options)
    assert sample.identifiers == "date, name"
    samples, rejects = read(tmp_path / "in", scanner=Scanner("strict"), **options)
    assert (samples, reasons(rejects)) == ([], {"identifiers in text": 1})
    assert not [word for word in ("Wu", "13.7", "Okonkwo") if word in repr(rejects)]


def test_what_is_personal_in_a_header() -> None:
    made = ct(AccessionNumber="A778812", OtherPatientIDsSequence=[ct(PatientID="990011")])
    assert personal(made) == {"4711", "A778812", "990011"}
    observer = content("CONTAINER", "", "", "CONTAINS", content("PNAME", "Observer", "Doe^John", "HAS OBS CONTEXT"))
    assert personal(structured_report("1.2", observer)) == {"4711", "Doe^John"}
    order = Dataset()
    order.RequestedProcedureID = "RP5512"
    made = ct(AdmissionID="V8844", PatientTelephoneNumbers=["555 0100", "555 0101"], RequestAttributesSequence=[order])
    assert personal(made) == {"4711", "V8844", "555 0100", "555 0101", "RP5512"}


@pytest.mark.parametrize(
    ("keyword", "kind", "value", "told"),
    [
        ("StudyID", "IS", "5512", "5512"),
        ("StudyID", "US", 5512, "5512"),
        ("PatientID", "DS", "5512", "5512"),
        ("OperatorsName", "OB", b"Okonkwo^Chidi", "Okonkwo^Chidi"),
        ("ContentSequence", "OB", b"5512", None),
    ],
)
def test_personal_values_of_another_kind(tmp_path: Path, keyword: str, kind: str, value: Any, told: str | None) -> None:
    made = ct()
    made.add_new(keyword, kind, value)
    assert {one.strip("\0 ") for one in personal(made)} - {"4711"} == ({told} if told else set())
    save(made, tmp_path / "a")
    for mode in ("off", "strict"):
        samples, rejects = read(tmp_path, scanner=Scanner(mode))
        assert (len(samples), rejects) == (1, [])


def test_structured_reports_are_the_text_of_their_study(tmp_path: Path) -> None:
    name = study(tmp_path, 2)
    findings = content("CONTAINER", "Findings", "", "CONTAINS", content("TEXT", "Finding", "A nodule of 9 mm."))
    observer = content("PNAME", "Observer", "Doe^John", "HAS OBS CONTEXT")
    said = content("TEXT", "Observer's organization", "General Hospital", "HAS OBS CONTEXT")
    last = content("TEXT", "Impression", "One nodule.")
    save(structured_report(name, observer, said, findings, last, CompletionFlag="COMPLETE"), tmp_path / "sr")
    save(structured_report(name, content("TEXT", "Findings", "Draft."), CompletionFlag="PARTIAL"), tmp_path / "draft")
    save(structured_report(uid.generate_uid(), last), tmp_path / "alone")
    save(structured_report(uid.generate_uid(), observer), tmp_path / "silent")
    (sample,), rejects = read(tmp_path, reports="sr")
    assert sample.target == "A nodule of 9 mm. One nodule."
    assert len(sample.more_images) == 1
    expected = ("second report of a study", "report without pictures", "structured report without text")
    assert reasons(rejects) == dict.fromkeys(expected, 1)


def test_codes_and_depth_of_structured_reports() -> None:
    item = content("TEXT", "", "deep")
    for _ in range(100):
        item = content("CONTAINER", "", "", "CONTAINS", item)
    made = structured_report("1.2", content("CODE", "Severity", "mild"), content("TEXT", "", "plain"), item)
    made.ConceptNameCodeSequence = code("Title")
    assert texts.of_structured_report(made) == "Severity: mild\nplain"


@pytest.mark.parametrize(
    ("title", "name", "last", "target"),
    [
        ("Radiology Report", "Findings", "Impression", "A nodule. One nodule."),
        ("Report", "Findings", "Conclusion", "A nodule. One nodule."),
        ("Findings and Impression", "Finding", "Impression", "A nodule. One nodule."),
        ("Chest", "Finding", "Conclusions", "A nodule. One nodule."),
        ("Findings", "Finding", "Details", "A nodule. One nodule."),
        (" Impression", "Finding", "Conclusion", "A nodule. One nodule."),
        ("Examination", "Finding", "History", "A nodule."),
    ],
)
def test_sections_below_any_title(tmp_path: Path, title: str, name: str, last: str, target: str) -> None:
    items = [content("TEXT", name, "A nodule."), content("TEXT", last, "One nodule.")]
    save(structured_report(study(tmp_path, 1), content("CONTAINER", title, "", "CONTAINS", *items)), tmp_path / "sr")
    (sample,), _ = read(tmp_path, reports="sr")
    assert sample.target == target


def test_a_history_below_a_title_is_no_finding(tmp_path: Path) -> None:
    items = [content("TEXT", "History", "Cough."), content("TEXT", "Finding", "A nodule.")]
    save(structured_report(study(tmp_path, 1), content("CONTAINER", "Chest", "", "CONTAINS", *items)), tmp_path / "sr")
    (sample,), _ = read(tmp_path, reports="sr")
    assert (sample.target, sample.indication) == ("A nodule.", "Cough.")


def measurement(name: str, value: str, scheme: str, symbol: str, meaning: str) -> Dataset:
    item, measured = content("NUM", name), Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = value, code(meaning)
    unit = measured.MeasurementUnitsCodeSequence[0]
    unit.CodingSchemeDesignator, unit.CodeValue = scheme, symbol
    item.MeasuredValueSequence = Sequence([measured])
    return item


def test_measurements_of_structured_reports() -> None:
    made = structured_report(
        "1.2",
        measurement("Diameter", "9.0", "UCUM", "mm", "millimeter"),
        measurement("Attenuation", "0", "UCUM", "[hnsf'U]", "Hounsfield unit"),
        measurement("Count", "2", "UCUM", "1", "no units"),
        measurement("Volume", "4", "99TEST", "1", "ml"),
        content("NUM", "Nothing measured"),
    )
    said = "Diameter: 9.0 mm\nAttenuation: 0 Hounsfield unit\nCount: 2\nVolume: 4 ml"
    assert texts.of_structured_report(made) == said


def test_headings_within_a_finding(tmp_path: Path) -> None:
    name = study(tmp_path, 1)
    save(structured_report(name, content("TEXT", "Finding", "FINDINGS: A nodule.")), tmp_path / "sr")
    (sample,), _ = read(tmp_path, reports="sr")
    assert sample.target == "A nodule."


def test_a_study_shows_pictures_spread_over_it(tmp_path: Path) -> None:
    name = study(tmp_path / "in", 12)
    save(structured_report(name, content("TEXT", "Findings", "A nodule.")), tmp_path / "in" / "sr")
    every, _ = read(tmp_path / "in", reports="sr", max_images=100)
    whole = [image.data for image in (every[0].image, *every[0].more_images)]
    assert len(whole) == 12
    some, _ = read(tmp_path / "in", reports="sr", max_images=3)
    assert [image.data for image in (some[0].image, *some[0].more_images)] == [whole[2], whole[6], whole[10]]
    each, _ = read(tmp_path / "in", reports="sr", views="each")
    assert [sample.image.data for sample in each] == whole
    assert {sample.target for sample in each} == {"A nodule."}


def test_frontal_views_come_first(tmp_path: Path) -> None:
    name = uid.generate_uid()
    for number, (view, side) in enumerate([("LL", ""), ("PA", ""), ("MLO", "L"), ("NOT A VIEW", "")]):
        known = {"ViewPosition": view, "ImageLaterality": side, "Modality": "DX", "InstanceNumber": number}
        save(ct(noise(number), StudyInstanceUID=name, SeriesInstanceUID="1.2", **known), tmp_path / str(number))
    save(structured_report(name, content("TEXT", "Findings", "A nodule.")), tmp_path / "sr")
    (sample,), _ = read(tmp_path, reports="sr")
    assert sample.views == ["PA", "LATERAL", "L MLO", ""]
    assert sample.modality == "radiograph"


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("BRAIN", "brain"),
        ("WHOLE BODY", "whole body"),
        ("THORAX", "chest"),
        ("C_SPINE", "cervical spine"),
        ("SMITH J", None),
        ("", None),
    ],
)
def test_body_parts_are_terms_of_the_standard(tmp_path: Path, part: str, told: str | None) -> None:
    save(ct(BodyPartExamined=part), tmp_path / "a")
    (sample,), _ = read(tmp_path)
    assert sample.organ == told
    samples, rejects = read(tmp_path, target_from="body-part")
    assert [sample.target for sample in samples] == ([told] if told else [])
    assert reasons(rejects) == ({} if told else {"no report text": 1})


def test_one_bad_frame_does_not_take_a_study_along(tmp_path: Path) -> None:
    name = study(tmp_path, 3)
    bad = save(ct(noise(9), StudyInstanceUID=name), tmp_path / "bad", uid.ExplicitVRLittleEndian)
    made = pydicom.dcmread(bad)
    made.compress(uid.JPEGLSLossless, generate_instance_uid=False)
    made.PixelData = made.PixelData[:40] + b"\0" * (len(made.PixelData) - 40)
    made.save_as(bad)
    save(structured_report(name, content("TEXT", "Findings", "A nodule.")), tmp_path / "sr")
    (sample,), rejects = read(tmp_path, reports="sr")
    assert len(sample.more_images) == 2
    assert reasons(rejects) == {"pixel data cannot be read": 1}


def test_inputs_are_told_without_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(ct(noise(1)), tmp_path / "Doe_John" / "a")
    source = DicomSource([tmp_path / "Doe_John"], KEY)
    (entry,) = source.describe()
    assert "Doe" not in json.dumps(entry)
    assert entry["bytes"] == (tmp_path / "Doe_John" / "a").stat().st_size
    assert source.describe() == [entry]
    other = DicomSource([tmp_path / "Doe_John"], Key(b"o" * 32)).describe()
    assert other[0]["sha256"] != entry["sha256"]
    save(ct(noise(2)), tmp_path / "Doe_John" / "a")
    assert source.describe() != [entry]


def test_terabytes_are_not_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(ct(), tmp_path / "a")
    monkeypatch.setattr(files, "HASHED_BYTES", 10)

    def hashing(_: Path) -> str:
        raise AssertionError("hashed")

    monkeypatch.setattr(files, "sha256_file", hashing)
    source = DicomSource([tmp_path], KEY)
    before = source.describe()
    with (tmp_path / "a").open("ab") as file:
        file.write(b"\0")
    assert source.describe() != before


def test_a_file_that_cannot_be_read_does_not_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        save(ct(noise(number)), tmp_path / f"{number}")
    source = DicomSource([tmp_path], KEY)
    before = source.describe()
    whole = files.sha256_file

    def hashing(path: Path) -> str:
        if path.name == "1":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(files, "sha256_file", hashing)
    assert source.describe()[0]["path"] == before[0]["path"] == "input 1 (2 files)"
    assert source.describe() != before


@pytest.mark.parametrize("name", ["absent", "a.zip"])
def test_inputs_that_cannot_be_read_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=name):
        DicomSource([tmp_path / name], KEY).describe()


def test_workers_get_no_list_of_all_studies(tmp_path: Path) -> None:
    save(ct(), tmp_path / "a")
    source = DicomSource([tmp_path], KEY, parse(target_from="modality"))
    (unit,) = source.units()
    copy: DicomSource = pickle.loads(pickle.dumps(source))
    assert copy._found is None
    assert [item.id for item in copy.read(unit) if isinstance(item, Sample)]


def test_without_pydicom_the_pip_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'medvlm\[dicom\]'"):
        DicomSource([tmp_path], KEY)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reports": "sr", "target_from": "modality"},
        {"target_from": "PatientName"},
        {"reports": "sr", "window": "brian"},
        {"reports": "sr", "window": "40/0.5"},
        {"reports": "sr", "window": "nan/nan"},
        {"reports": "sr", "frames": "every:0"},
        {"reports": "sr", "frames": "last"},
        {"reports": "sr", "sections": "all"},
        {"reports": "sr", "views": "frontal"},
        {"reports": "sr", "dates": "keep"},
        {"target_from": "modality", "views": "study"},
        {"reports": "sr", "data_license": "(("},
    ],
)
def test_options_that_do_not_exist(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        parse(**options)
    assert "\n" not in str(caught.value)


def test_options_as_they_are_spelled() -> None:
    assert parse_window(" Lung ").center == PRESETS["lung"][0]
    assert (parse_window("-600/1500").center, parse_window("-600/1500").width) == (-600, 1500)
    assert list(parse_frames("every:4").of(9)) == [0, 4, 8]
    assert list(parse_frames("middle").of(1)) == [0]
    told = Options().as_json()
    assert json.loads(json.dumps(told)) == told
