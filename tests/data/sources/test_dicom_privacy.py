"""No string of a header, of a path or of a study number may be in any byte of what is written."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from layouts_dicom import ct, save
from pydicom import config, datadict
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medvlm.cli import run

SECRET = "XSMITHX"
DATE = "19570713"
UID_ROOT = "1.2.826.0.1.3680043.2.1125.777"
NEEDED = {
    *("SOPClassUID", "Modality", "ImageType", "PhotometricInterpretation", "BurnedInAnnotation", "ConversionType"),
    *("SpecificCharacterSet", "VOILUTFunction", "MediaStorageSOPClassUID"),
}
"""Elements that decide whether there is a picture at all; what they hold is checked against lists before it is told."""
TEXTS = {"PN", "LO", "SH", "LT", "ST", "UT", "UC", "CS", "AE", "UR", "UI", "DA", "DT", "TM"}


def everywhere(made: Dataset) -> Dataset:
    """Write a secret into every element of the standard that can hold a text, nested ones and private ones too."""
    nested = Dataset()
    for tag, (kind, _, _, _, keyword) in datadict.DicomDictionary.items():
        if not keyword or keyword in NEEDED or kind not in TEXTS or tag >> 16 in (0, 2, 4) or tag >> 16 >= 0x6000:
            continue
        value = {"UI": f"{UID_ROOT}.{tag}", "DA": DATE, "DT": f"{DATE}101112", "TM": "101112"}.get(kind, SECRET)
        if keyword not in made:
            made.add_new(tag, kind, value)
        nested.add_new(tag, kind, value)
    made.RequestAttributesSequence = Sequence([nested])
    made.OtherPatientIDsSequence = Sequence([nested])
    block = made.private_block(0x0009, SECRET, create=True)
    block.add_new(0x01, "LO", SECRET)
    block.add_new(0x02, "SQ", Sequence([nested]))
    block.add_new(0x03, "UN", SECRET.encode())
    return made


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with names in every element and in every path, good and bad files."""
    with pytest.MonkeyPatch.context() as patch:
        # Other writers are not as careful as to refuse a name in a field for codes.
        patch.setattr(config.settings, "reading_validation_mode", config.IGNORE)
        patch.setattr(config.settings, "writing_validation_mode", config.IGNORE)
        made = _export(tmp_path_factory.mktemp("export"))
    return made


def _export(tmp_path: Path) -> Path:
    folder = tmp_path / f"{SECRET}^JOHN" / DATE
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 2000, (40, 40), np.int16)
        made = everywhere(ct(pixels, PatientID=f"{SECRET}{number // 2}", SOPInstanceUID=f"{UID_ROOT}.1.{number}"))
        made.StudyInstanceUID, made.SeriesInstanceUID = f"{UID_ROOT}.2.{number}", f"{UID_ROOT}.3.{number}"
        made.AccessionNumber = f"{SECRET}A{number}"
        save(made, folder / f"{SECRET} {number}.dcm")
    save(everywhere(ct(BurnedInAnnotation="YES")), folder / f"{SECRET} burned.dcm")
    save(everywhere(ct(ConversionType="WSD")), folder / f"{SECRET} screen.dcm")
    save(everywhere(ct(Modality=SECRET, SOPClassUID=f"{UID_ROOT}.9")), folder / f"{SECRET} other.dcm")
    save(everywhere(ct(PhotometricInterpretation=SECRET)), folder / f"{SECRET} gray.dcm")
    save(everywhere(ct(Modality=SECRET)), folder / f"{SECRET} modality.dcm")
    save(everywhere(ct(ImageType=["ORIGINAL", "PRIMARY", SECRET])), folder / f"{SECRET} type.dcm")
    whole = (folder / f"{SECRET} 0.dcm").read_bytes()
    (folder / f"{SECRET} cut.dcm").write_bytes(whole[:-100])
    (folder / f"{SECRET} short.dcm").write_bytes(whole[:2000])
    for keyword in ("RescaleSlope", "NumberOfFrames", "PixelSpacing", "InstanceNumber", "WindowCenter"):
        made = everywhere(ct())
        made.add_new(keyword, datadict.dictionary_VR(datadict.tag_for_keyword(keyword)), "1234567")
        path = save(made, folder / f"{SECRET} {keyword}.dcm")
        data = path.read_bytes()
        at = data.index(b"1234567")
        path.write_bytes(data[:at] + SECRET.encode() + data[at + 7 :])
    (folder / f"{SECRET}.txt").write_text(f"notes on {SECRET}")
    (folder / f"{SECRET} link").symlink_to(f"/{SECRET}")
    os.mkfifo(folder / f"{SECRET} pipe")
    return tmp_path / f"{SECRET}^JOHN"


def everything(out: Path) -> Iterator[tuple[str, bytes]]:
    """Yield all that a folder holds, with parquet and arrow files unpacked, and its names."""
    for path in sorted(out.rglob("*")):
        yield "the names", str(path.relative_to(out)).encode()
        if not path.is_file():
            continue
        yield path.name, path.read_bytes()
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                yield f"{path.name} metadata", repr(file.metadata.to_dict()).encode()
                for row in file.read().to_pylist():
                    yield f"{path.name} rows", repr(row).encode() + row["image"]["bytes"]
        if path.suffix == ".arrow":
            import pyarrow as pa

            yield path.name, repr(pa.ipc.open_file(io.BytesIO(path.read_bytes())).read_all().to_pylist()).encode()


def check_clean(out: Path) -> None:
    found = list(everything(out))
    assert len(found) > 5
    for secret in (SECRET, SECRET.lower(), DATE, "1957-07-13", UID_ROOT, "JOHN"):
        assert [name for name, data in found if secret.encode() in data] == []


def call(export: Path, out: Path, *options: str) -> int:
    key = str(out.parent / "key")
    common = ["--input", str(export), "--key", key, "--license", "any", "--split-ratio", "1,0,0", "-q"]
    return run(["prepare", "dicom", *common, "--out", str(out), *options])


@pytest.mark.parametrize(
    "more", [[], ["--dates", "shift"], ["--allow-burned-in", "--allow-secondary", "--frames", "all"]]
)
def test_answers_from_headers(export: Path, tmp_path: Path, more: list[str]) -> None:
    out = tmp_path / "out"
    assert call(export, out, "--target-from", "modality", *more) == 0
    check_clean(out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["counts"]["samples"] >= 6
    assert {"not a DICOM file", "not a picture", "not a file", "link out of the folder"} <= set(manifest["drops"])
    assert manifest["counts"]["groups"] >= 3


def test_reports_by_secret_numbers(export: Path, tmp_path: Path) -> None:
    table = tmp_path / f"{SECRET}.csv"
    rows = "".join(f'{SECRET}A{number},"FINDINGS: A nodule {number} mm wide."\n' for number in range(6))
    table.write_text(f"AccessionNumber,report\n{rows}{SECRET}Z,nothing\n")
    out = tmp_path / "out"
    assert call(export, out, "--reports", str(table)) == 0
    check_clean(out)
    assert json.loads((out / "manifest.json").read_text())["counts"]["samples"] == 6


def test_shards_at_rest(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(export, out, "--target-from", "modality", "--shard", "0/2") == 0
    assert (out / ".work").is_dir()
    check_clean(out)


def test_where_nothing_is_admitted(export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert call(export, out, "--target-from", "view") == 3
    assert SECRET not in "".join(capsys.readouterr())
    assert all(SECRET.encode() not in data for _, data in everything(out))


def test_the_search_would_find_what_leaks(tmp_path: Path) -> None:
    """The search itself: a secret in a compressed column is found."""
    import pyarrow as pa

    table = pa.table({"image": [{"bytes": b"1"}] * 9, "target": [f"of {SECRET}"] * 9})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    for name in "bcdef":
        (tmp_path / name).write_text("")
    with pytest.raises(AssertionError):
        check_clean(tmp_path)


def test_the_private_list_names_each_file(export: Path, tmp_path: Path) -> None:
    out, names = tmp_path / "out", tmp_path / "private" / "names.jsonl"
    assert call(export, out, "--target-from", "modality", "--names", str(names)) == 0
    assert names.stat().st_mode & 0o777 == 0o600
    listed: list[dict[str, Any]] = [json.loads(line) for line in names.read_text().splitlines()]
    there = [str(path) for path in export.rglob("*") if path.is_symlink() or not path.is_dir()]
    assert sorted(row["file"] for row in listed) == sorted(there)
    known = {row["as"] for row in listed}
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert rejects
    assert {reject["where"].rpartition("/")[2] for reject in rejects} <= known
    groups = {row.get("patient") for row in listed}
    made = [row for path in out.glob("data/*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {row["group"] for row in made} <= groups
    check_clean(out)


def test_the_private_list_replaces_nothing_but_itself(export: Path, tmp_path: Path) -> None:
    out, key, table, notes = tmp_path / "out", tmp_path / "key", tmp_path / "reports.csv", tmp_path / "notes"
    table.write_text("AccessionNumber,report\n1,A nodule.\n")
    notes.write_text("of many years\n")
    modality = ["--target-from", "modality"]
    assert call(export, out, *modality, "--names", str(key)) == 2
    assert not key.exists()
    assert call(export, out, "--reports", str(table), "--names", str(table)) == 2
    assert call(export, out, *modality, "--names", str(export / "names")) == 2
    assert (
        call(export / DATE / f"{SECRET} 0.dcm", out, *modality, "--names", str(export / DATE / f"{SECRET} 0.dcm")) == 2
    )
    assert call(export, out, *modality, "--names", str(notes)) == 2
    assert table.read_text().endswith("1,A nodule.\n")
    assert notes.read_text() == "of many years\n"
    assert not (export / "names").exists()
    names = tmp_path / "names"
    names.write_text("")
    assert call(export, out, *modality, "--names", str(names)) == 0
    first = names.read_text()
    assert call(export, out, *modality, "--names", str(names), "--window", "lung", "--overwrite") == 0
    assert names.read_text() == first != ""


def test_private_list_and_key_stay_outside(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(export, out, "--target-from", "modality", "--names", str(out / "names")) == 2
    assert call(export, out, "--target-from", "modality", "--key", str(out / "key")) == 2
    assert call(export, export / "out", "--target-from", "modality") == 2
    assert not out.exists()
