"""`folder`: tables in any form come out whole, columns are guessed as people name them, nothing is lost unseen."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts_own import LAYOUTS, captions, pictures, png, write_table

from medvlm.data.pseudonyms import Key
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.folder import FolderSource
from medvlm.data.sources.folder.columns import Columns, guess, plain
from medvlm.data.sources.folder.tables import everything
from medvlm.data.sources.own import MAX_PICTURES, OWN_DATA, ROOT_NAMES, below, check_license, read_license
from medvlm.data.sources.own_fields import MISSING, number_of, parts_of, split_of_path
from medvlm.data.sources.vqa_rad import VqaRadSource
from medvlm.errors import InputError, UsageError


def read(source: FolderSource) -> tuple[list[Sample], list[Reject]]:
    """Return all that a source yields, read as worker processes do."""
    units = source.units()
    source = pickle.loads(pickle.dumps(source))
    items = [item for unit in units for item in source.read(unit)]
    return [item for item in items if isinstance(item, Sample)], [item for item in items if isinstance(item, Reject)]


def reasons(rejects: Sequence[Reject]) -> Counter[str]:
    return Counter(reject.reason for reject in rejects)


@pytest.mark.parametrize("table", ["labels.csv", "labels.tsv", "labels.jsonl", "labels.parquet", "metadata.csv"])
def test_every_form_of_table_gives_the_same(tmp_path: Path, table: str) -> None:
    samples, rejects = read(FolderSource([captions(tmp_path / "own", 7, table)], data_license="CC-BY-4.0"))
    assert rejects == []
    assert [sample.target for sample in samples] == [f"Radiograph {number} of the chest." for number in range(7)]
    assert [sample.image.data for sample in samples] == [png(number) for number in range(7)]
    assert [sample.group for sample in samples] == ["P000", "P000", "P001", "P001", "P002", "P002", "P003"]
    assert {(s.task, s.prompt, s.license, s.license_scope, s.commercial_use) for s in samples} == {
        ("caption", "", "CC-BY-4.0", "dataset", "yes")
    }
    assert len({sample.id for sample in samples}) == 7


LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")
TEXTS = st.text(LETTERS, min_size=1, max_size=40).filter(
    lambda text: text.strip() and text.strip().lower() not in MISSING
)  # fmt: skip
ROWS = st.lists(st.tuples(st.integers(0, 3), TEXTS, TEXTS, TEXTS), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    pictures(folder, 4)
    return folder


@settings(max_examples=120, deadline=None)
@given(rows=ROWS, ending=st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]))
def test_a_table_of_valid_rows_comes_out_whole(four: Path, rows: list[tuple[int, str, str, str]], ending: str) -> None:
    columns = Columns(image="file_name", question="q", answer="a", group="patient")
    with tempfile.TemporaryDirectory() as other:
        records = [{"file_name": f"{i:03}.png", "q": q, "a": a, "patient": p} for i, q, a, p in rows]
        path = write_table(Path(other) / f"table{ending}", records)
        samples, rejects = read(FolderSource([path], columns=columns, images=four, data_license="CC0-1.0"))
    assert {reject.reason for reject in rejects} <= {"image without a row"}
    assert [(s.prompt, s.target) for s in samples] == [(q.strip(), a.strip()) for _, q, a, _ in rows]
    assert [s.image.data for s in samples] == [png(number) for number, *_ in rows]
    assert len({s.id for s in samples}) == len(rows)
    one_patient: dict[str, set[str]] = {}
    for sample, (_, _, _, patient) in zip(samples, rows, strict=True):
        one_patient.setdefault(" ".join(patient.split()), set()).add(sample.group)
    assert all(len(groups) == 1 for groups in one_patient.values())


def test_the_layouts_of_datasets_imagefolder(tmp_path: Path) -> None:
    """Read the same folder as `datasets` does: rows, texts, pictures and splits."""
    for split, count in (("train", 5), ("validation", 2), ("test", 3)):
        names = pictures(tmp_path / "own" / split, count)
        rows = [{"file_name": name, "text": f"{split} {name}"} for name in names]
        write_table(tmp_path / "own" / split / "metadata.jsonl", rows)
    samples, rejects = read(FolderSource([tmp_path / "own"], data_license="CC0-1.0"))
    theirs = load_dataset("imagefolder", data_dir=str(tmp_path / "own"), cache_dir=str(tmp_path / "cache"))
    assert rejects == []
    told = sorted((sample.official_split or "", sample.target) for sample in samples)
    assert told == sorted((split, row["text"]) for split in theirs for row in theirs[split])
    # The same name in two folders is of two pictures.
    assert len({sample.group for sample in samples}) == 10


def test_pictures_inside_parquet(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": png(n), "path": f"{n}.png"}, "question": f"Q{n}?", "answer": n} for n in range(3)]
    path = write_table(tmp_path / "own" / "data" / "test-00000-of-00001.parquet", rows)
    for place in (tmp_path / "own", path):
        samples, rejects = read(FolderSource([place], data_license="CC0-1.0"))
        assert rejects == []
        assert [(s.task, s.prompt, s.target) for s in samples] == [("vqa", f"Q{n}?", str(n)) for n in range(3)]
        assert [s.image.data for s in samples] == [png(n) for n in range(3)]
        assert {s.official_split for s in samples} == {"test"}


def test_text_files_beside_the_images(tmp_path: Path) -> None:
    own = tmp_path / "own"
    pictures(own, 4, "P{:02}/img.png")
    for number, text in enumerate((b"One.\r\nTwo.", "\ufeffÄ".encode(), "Drei".encode("utf-16"))):
        (own / f"P{number:02}" / "img.txt").write_bytes(text)
    (own / "alone.txt").write_text("no picture")
    samples, rejects = read(FolderSource([own], task="report", data_license="CC0-1.0"))
    assert [(s.group, s.target) for s in samples] == [("P00_img", "One.\nTwo."), ("P01_img", "Ä"), ("P02_img", "Drei")]
    assert reasons(rejects) == {"no text file beside the image": 1, "no image file": 1}
    samples, _ = read(FolderSource([own], columns=Columns(group="folder"), data_license="CC0-1.0"))
    assert [sample.group for sample in samples] == ["P00", "P01", "P02"]


@pytest.mark.parametrize(
    "cell",
    [
        "000.png;001.png",
        "000.png | 001.png",
        '["000.png", "001.png"]',
        "['000.png', '001.png']",
        ["000.png", "001.png"],
        "./000.png;./001.png",
        "000;001",
        ["000.png", None, "001.png"],
    ],
)
def test_several_images_a_row(tmp_path: Path, cell: Any) -> None:
    pictures(tmp_path, 2)
    write_table(tmp_path / "t.jsonl", [{"images": cell, "report": "Two views."}])
    (sample,), rejects = read(FolderSource([tmp_path], data_license="CC0-1.0"))
    assert rejects == []
    assert [image.data for image in (sample.image, *sample.more_images)] == [png(0), png(1)]
    assert sample.task == "report"


def test_a_name_that_holds_a_separator(tmp_path: Path) -> None:
    pictures(tmp_path, 1, "a;b|{}.png")
    write_table(tmp_path / "t.csv", [{"image": "a;b|0.png", "caption": "One."}])
    (sample,), rejects = read(FolderSource([tmp_path], data_license="CC0-1.0"))
    assert (sample.image.name, rejects) == ("a;b|0.png", [])


@given(
    st.lists(
        st.text(LETTERS.filter(lambda c: c not in ";|[]\"'\\"), min_size=1, max_size=12).map(str.strip), max_size=4
    )
)
def test_lists_of_names_are_read_in_every_spelling(names: list[str]) -> None:
    names = [name for name in names if name and name not in ("nan", "NaN")]
    assert parts_of(names) == names
    assert parts_of(json.dumps(names)) == names
    assert parts_of(repr(names)) == names
    if names:
        assert parts_of("|".join(names)) == parts_of(" ; ".join(names)) == names


COLUMNS = [
    (["file_name", "text"], {"image": "file_name", "text": "text"}),
    (["Image", "Findings", "Patient ID"], {"image": "Image", "text": "Findings", "group": "Patient ID"}),
    (["img_path", "question", "answer", "split"], {"image": "img_path", "question": "question", "answer": "answer",
                                                   "split": "split"}),
    (["path", "Befund", "MRN", "licence"], {"image": "path", "text": "Befund", "group": "MRN", "license": "licence"}),
    (["subjectId", "studyId", "imagePath", "caption", "modality", "uid"],
     {"image": "imagePath", "text": "caption", "group": "subjectId", "modality": "modality", "id": "uid"}),
    (["scan", "notes"], {"image": "scan", "text": "notes"}),
    (["image", "question", "text"], {"image": "image", "question": "question", "answer": "text"}),
]  # fmt: skip


@pytest.mark.parametrize(("names", "expected"), COLUMNS)
def test_columns_as_people_name_them(names: list[str], expected: dict[str, str]) -> None:
    values = {"image": "a/b.png", "text": "No acute finding.", "question": "What is it?"}
    row = {name: next((values[key] for key, column in expected.items() if column == name and key in values), "7")
           for name in names}  # fmt: skip
    assert guess(names, [row], Columns()).meanings() == expected


def test_what_is_given_stands() -> None:
    names = ["file_name", "caption", "comment", "patient"]
    row = {"file_name": "a.png", "caption": "One text.", "comment": "Another text.", "patient": "1"}
    found = guess(names, [row], Columns(text="comment", group="none"))
    assert found == Columns(image="file_name", text="comment")
    with pytest.raises(UsageError, match=r'--text-column: no column "coment" \(did you mean "comment"\?\)'):
        guess(names, [row], Columns(text="coment"))


@pytest.mark.parametrize("name", ["Patient ID", "patientId", "patient-id", " PATIENT_ID ", "patient.id"])
def test_spellings_of_a_column(name: str) -> None:
    assert plain(name) == "patient_id"


def test_a_column_of_ids_that_repeats_is_none(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    write_table(tmp_path / "t.csv", [{"id": n // 2, "image": f"{n:03}.png", "caption": f"C{n}."} for n in range(3)])
    source = FolderSource([tmp_path], data_license="CC0-1.0")
    assert source.look().columns.id is None
    assert source.look().remarks == ('"id" is no id ("0" is there twice): rows are told apart by their number',)
    samples, _ = read(source)
    assert len({sample.id for sample in samples}) == 3
    samples, _ = read(FolderSource([tmp_path], columns=Columns(id="id"), data_license="CC0-1.0"))
    assert len({sample.id for sample in samples if sample.image.name != "002.png"}) == 2


def test_licenses_of_rows(tmp_path: Path) -> None:
    stated = ["CC BY 4.0", "https://creativecommons.org/licenses/by-nc/4.0/", "", "ask Bob", "MIT OR Apache-2.0"]
    pictures(tmp_path, 5)
    rows = [{"image": f"{n:03}.png", "caption": f"C{n}.", "license": one} for n, one in enumerate(stated)]
    write_table(tmp_path / "t.csv", rows)
    samples, _ = read(FolderSource([tmp_path], data_license=OWN_DATA))
    assert [(s.license, s.license_scope, s.commercial_use) for s in samples] == [
        ("CC-BY-4.0", "figure", "yes"),
        ("CC-BY-NC-4.0", "figure", "no"),
        (OWN_DATA, "dataset", "conditional"),
        (None, None, "unknown"),
        ("MIT OR Apache-2.0", "figure", "yes"),
    ]
    assert samples[3].license_evidence == "license: ask Bob"


def test_a_license_that_is_no_text_is_not_left_out(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    for stated in (["CC BY-NC 4.0"], {"name": "CC BY-NC 4.0"}, True):
        write_table(tmp_path / "t.jsonl", [{"image": "000.png", "caption": "A.", "license": stated}])
        (sample,), _ = read(FolderSource([tmp_path], data_license="CC-BY-4.0"))
        assert (sample.license, sample.commercial_use) == (None, "unknown")


def test_a_column_called_none_is_read_for_nothing(tmp_path: Path) -> None:
    """Where no column has a meaning, Python's word for it is no column's name."""
    pictures(tmp_path, 1)
    write_table(tmp_path / "t.jsonl", [{"image": "000.png", "caption": "A.", "None": "CC0-1.0"}])
    (sample,), _ = read(FolderSource([tmp_path], data_license="CC-BY-NC-4.0"))
    assert (sample.license, sample.group, sample.organ) == ("CC-BY-NC-4.0", "000", None)
    assert "CC0" not in sample.id


@pytest.mark.parametrize(
    ("text", "license"),
    [("CC0", "CC0-1.0"), ("cc-by-4.0", "CC-BY-4.0"), (OWN_DATA, OWN_DATA), ("mine", None), ("", None), ("()", None)],
)
def test_words_for_licenses(text: str, license: str | None) -> None:
    assert read_license(text) == license
    if license is None:
        with pytest.raises(UsageError, match=OWN_DATA):
            check_license(text)


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("train.csv",), "train"),
        (("val", "metadata.csv"), "validation"),
        (("test-00000-of-00001.parquet",), "test"),
        (("my_dev_set.csv",), "validation"),
        (("latest.csv",), None),
        (("trainees.csv",), None),
    ],
)
def test_splits_by_names(names: tuple[str, ...], split: str | None) -> None:
    assert split_of_path(*names) == split


def test_a_split_column_goes_before_names(tmp_path: Path) -> None:
    pictures(tmp_path, 4)
    words = ["Training", "val", "TEST", "fold3"]
    rows = [{"image": f"{n:03}.png", "caption": f"C{n}.", "split": word} for n, word in enumerate(words)]
    write_table(tmp_path / "train.csv", rows)
    samples, _ = read(FolderSource([tmp_path], data_license="CC0-1.0"))
    assert [sample.official_split for sample in samples] == ["train", "validation", "test", None]


def test_stand_ins_leave_nothing_of_the_numbers(tmp_path: Path) -> None:
    own = captions(tmp_path / "own", 6)
    (own / "images/MRN-77.png").write_bytes(png(99))
    rows = [
        {"image": f"{n:03}.png", "caption": f"C{n}.", "patient_id": f"MRN{n // 2}", "uid": f"A{n}"} for n in range(6)
    ]
    write_table(
        own / "labels.csv", [*rows, {"image": "gone-MRN-5.png", "caption": "C.", "patient_id": "", "uid": "A9"}]
    )
    key = Key.load(tmp_path / "key", tmp_path / "out")
    samples, rejects = read(FolderSource([own], data_license=OWN_DATA, key=key))
    assert [sample.group for sample in samples] == [key.pseudonym("patient", f"MRN{n // 2}") for n in range(6)]
    told = repr([(s.id, s.group, s.file_name, s.image.name) for s in samples]) + repr(rejects)
    assert not any(secret in told for secret in ("MRN", "A0", "000.png", "gone"))
    assert {sample.file_name[-4:] for sample in samples} == {".png"}
    assert reasons(rejects) == {"image without a row": 1, "no image file": 1}


def test_what_is_hostile_is_counted(tmp_path: Path) -> None:
    own, outside = tmp_path / "own", tmp_path / "secret.png"
    pictures(own, 2)
    outside.write_bytes(png(50))
    (own / "link.png").symlink_to(outside)
    (own / "empty.png").write_bytes(b"")
    (own / "text.png").write_text("no picture")
    os.mkfifo(own / "pipe.png")
    names = [
        "000.png",
        "link.png",
        str(outside),
        "../secret.png",
        "empty.png",
        "text.png",
        "pipe.png",
        "gone.png",
        "nan",
    ]
    names += ["https://example.org/a.png", "000.png", "000.png", "000.png", "000.png"]
    texts = ["=cmd|' /C calc'!A0", *["Text."] * 9, "", "x" * (1 << 21), "nan", " \t "]
    rows = [{"image": name, "caption": text} for name, text in zip(names, texts, strict=True)]
    write_table(own / "t.csv", rows)
    samples, rejects = read(FolderSource([own], data_license="CC0-1.0"))
    assert [sample.target for sample in samples] == ["=cmd|' /C calc'!A0"]
    assert reasons(rejects) == {
        "link out of the folder": 1, "unsafe image name": 2, "image cannot be read": 2, "no image file": 2,
        "record without image": 1, "image is an address, no file": 1, "empty text": 3, "text cannot be used": 1,
        "image without a row": 1,
    }  # fmt: skip
    left = {reject.where for reject in rejects if reject.reason == "image without a row"}
    assert left == {"001.png"}
    assert len(samples) + len(rejects) - len(left) == len(rows)
    assert all(len(reject.detail) < 400 and "\n" not in reject.detail for reject in rejects)


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path.parent


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("t.csv", b"", "names no columns"),
        ("t.csv", b"image,caption\n", "add rows"),
        ("t.csv", b"image,caption,caption\na.png,b,c\n", "columns 2 and 3 have the same name"),
        ("t.csv", "image,caption\na.png,Ä\n".encode("latin-1"), "save it as UTF-8"),
        ("t.csv", "image,caption\na.png,b\n".encode("utf-16")[:-1], "UTF"),
        ("t.csv", b"alpha,beta\n1,2\n", "--image-column NAME"),
        ("t.csv", b"image,other\na.png,2\n", "--text-column NAME"),
        ("t.parquet", b"PAR1 no", "not a parquet file"),
        ("t.jsonl", b"{]\n", "can be read"),
        ("list.xlsx", b"PK", "save it as CSV"),
        ("1.dcm", b"DICM", "medvlm prepare dicom"),
        ("chat.json", b"[]", "medvlm prepare jsonl"),
        ("a.png", b"x", "1 images, but no table"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    source = FolderSource([_write(tmp_path / "own" / name, data)])
    with pytest.raises((InputError, UsageError)) as caught:
        source.look()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_tables_that_differ(tmp_path: Path) -> None:
    own = captions(tmp_path / "own", 2)
    write_table(own / "doctors.csv", [{"doctor": "A", "beds": 3}])
    with pytest.raises(InputError, match=r"2 tables with different columns \(doctors.csv, labels.csv\); name the one"):
        FolderSource([own]).look()
    samples, _ = read(FolderSource([own / "labels.csv"], data_license="CC0-1.0"))
    assert len(samples) == 2


def test_the_layout_for_others(tmp_path: Path) -> None:
    samples, rejects = read(FolderSource([LAYOUTS["folder"](tmp_path / "own", 5)], data_license="CC0-1.0"))
    assert (len(samples), rejects) == (5, [])


def test_sections_of_reports(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    whole = "INDICATION: Cough.\n\nFINDINGS: Clear  lungs.\n\nIMPRESSION: Normal."
    texts = [whole, "FINDINGS: Clear lungs.", "IMPRESSION: ___"]
    write_table(tmp_path / "t.csv", [{"image": f"{n:03}.png", "report": text} for n, text in enumerate(texts)])
    samples, rejects = read(FolderSource([tmp_path], sections="impression", data_license="CC0-1.0"))
    assert [(s.task, s.target, s.original_text, s.indication) for s in samples] == [
        ("report", "Normal.", whole, "Cough.")
    ]
    assert reasons(rejects) == {"no impression": 1, "report says nothing but marks": 1}
    samples, rejects = read(FolderSource([tmp_path], data_license="CC0-1.0"))
    assert [(s.target, s.original_text) for s in samples] == [(text, None) for text in texts]
    with pytest.raises(UsageError, match="only reports have sections"):
        FolderSource([tmp_path], sections="both", task="vqa")


SCRAPS = st.sampled_from(
    [b"image", b"caption", b"patient_id", b"id", b"a.png", b"000.png", b",", b";", b"|", b"\t", b'"', b"\n", b"\r\n"]
)


@settings(max_examples=200, deadline=None)
@given(pieces=st.lists(SCRAPS | st.binary(max_size=6), max_size=30), ending=st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_whatever_a_table_holds_it_is_read_or_refused(four: Path, pieces: list[bytes], ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"table{ending}"
        path.write_bytes(b"".join(pieces))
        source = FolderSource([path], images=four, data_license="CC0-1.0")
        try:
            view = source.look()
        except (InputError, UsageError):
            return
        samples, rejects = read(source)
        left = [reject for reject in rejects if reject.reason == "image without a row"]
        records = sum(1 for _ in everything(path))
    assert view.columns.image is not None
    assert len(samples) + len(rejects) - len(left) == records


def test_whole_paths_lead_into_the_folder_of_pictures_only(tmp_path: Path) -> None:
    own = captions(tmp_path / "own", 2)
    (tmp_path / "secret.png").write_bytes(png(50))
    inside = [str(own / "images/000.png"), "images\\001.png", str(tmp_path / "secret.png")]
    inside.append(str(own / "images/../../secret.png"))
    write_table(own / "labels.csv", [{"image": name, "caption": "Text."} for name in inside])
    samples, rejects = read(FolderSource([own], data_license="CC0-1.0"))
    assert [sample.image.data for sample in samples] == [png(0), png(1)]
    assert reasons(rejects) == {"unsafe image name": 2}
    samples, rejects = read(FolderSource([own / "labels.csv"], images=own / "images", data_license="CC0-1.0"))
    assert [sample.image.data for sample in samples] == [png(0)]
    assert reasons(rejects) == {"unsafe image name": 2, "no image file": 1, "image without a row": 1}


def late(folder: Path, ending: str, late_rows: dict[str, Any], first: int = 150) -> Path:
    """Write rows without, and after them one with further fields; the guess looks at the first hundred."""
    pictures(folder, 2)
    row = {"image": "000.png", "caption": "A chest."}
    return write_table(folder / f"t{ending}", [*[row] * first, {"image": "001.png", "caption": "B.", **late_rows}])


def test_names_that_turn_up_late_are_taken_up(tmp_path: Path) -> None:
    fields = {"license": "CC BY-NC 4.0", "patient_id": "P1", "split": "test", "organ": "Chest"}
    source = FolderSource([late(tmp_path, ".jsonl", fields)], data_license="CC-BY-4.0")
    samples, _ = read(source)
    assert [(s.license, s.group, s.official_split, s.organ) for s in samples[-2:]] == [
        ("CC-BY-4.0", "000", None, None),
        ("CC-BY-NC-4.0", "P1", "test", "chest"),
    ]
    assert {"license", "patient_id"} <= set(source.look().names)
    lines = (tmp_path / "t.jsonl").read_text()
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "000.png", "caption": "C.", "rights": "CC0"}) + "\n" + lines)
    with pytest.raises(UsageError, match=r"both .* tell the license"):
        FolderSource([tmp_path]).look()


@pytest.mark.parametrize(
    "table", ["image;caption;;\n{};A.;;\n", ",image,caption,\n0,{},A.,\n", "\timage\tcaption\t \n0\t{}\tA.\t\n"]
)
def test_columns_without_a_name_may_be_several(tmp_path: Path, table: str) -> None:
    """Excel and pandas write them: of formatted empty columns, of the number of the row."""
    pictures(tmp_path, 1)
    (tmp_path / "t.csv").write_text(table.format("000.png"))
    source = FolderSource([tmp_path], data_license="CC0-1.0")
    samples, _ = read(source)
    assert [(sample.group, sample.target) for sample in samples] == [("000", "A.")]
    assert source.look().names == ["image", "caption"]


@pytest.mark.parametrize(("column", "value"), [("license", "CC BY-NC 4.0"), ("patient_id", "P1"), ("split", "test")])
def test_tables_of_which_only_some_tell(tmp_path: Path, column: str, value: str) -> None:
    pictures(tmp_path, 2)
    write_table(tmp_path / "a.csv", [{"image": "000.png", "caption": "A."}])
    write_table(tmp_path / "b.csv", [{"image": "001.png", "caption": "B.", column: value}])
    with pytest.raises(InputError, match=rf'a.csv: no column "{column}"'):
        FolderSource([tmp_path]).look()
    meaning = {"patient_id": "group"}.get(column, column)
    samples, _ = read(FolderSource([tmp_path], columns=Columns(**{meaning: column}), data_license="CC0-1.0"))
    told = [{"license": s.license, "group": s.group, "split": s.official_split}[meaning] for s in samples]
    assert told == {"license": ["CC0-1.0", "CC-BY-NC-4.0"], "group": ["000", "P1"], "split": [None, "test"]}[meaning]


def test_stand_ins_leave_nothing_of_names_of_tables(tmp_path: Path) -> None:
    for number, name in enumerate(("Mueller_Hans", "Schmidt_Eva")):
        pictures(tmp_path / "own" / name, 2 + number)
        rows = [{"file_name": "000.png", "caption": "C."}, {"file_name": "gone.png", "caption": "C."}]
        write_table(tmp_path / "own" / name / "metadata.csv", [*rows, {"file_name": "001.png", "caption": ""}])
    key = Key.load(tmp_path / "key", tmp_path / "out")
    for inputs in ([tmp_path / "own"], [tmp_path / "own", tmp_path / "own/Schmidt_Eva"]):
        source = FolderSource(inputs, data_license=OWN_DATA, key=key)
        samples, rejects = read(source)
        assert len(samples) >= 2
        assert {"no image file", "empty text", "image without a row"} <= set(reasons(rejects))
        units = [unit.name for unit in source.units()]
        told = repr([(s.id, s.group, s.figure_id, s.file_name) for s in samples]) + repr([rejects, units])
        assert len(set(units)) == len(units)
        assert not any(name in told + repr(source.describe()) for name in ("Mueller", "Schmidt"))
    units_before = source.units()
    for path in (tmp_path / "own").rglob("*.csv"):
        path.write_bytes(b"\xff\xfe\x00")
    rejects = [item for unit in units_before for item in source.read(unit)]
    assert {item.reason for item in rejects if isinstance(item, Reject)} == {"file of records cannot be read"}
    assert not any(name in repr(rejects) for name in ("Mueller", "Schmidt"))


@pytest.mark.parametrize(
    ("value", "number"),
    [(1.0, "1"), ("1.0", "1"), (1, "1"), ("1.50", "1.50"), ("00123", "00123"), (1e17, "1" + "0" * 17), (None, ""),
     (float("nan"), ""), (float("inf"), "inf"), ("N/A", ""), ("None", ""), ("-", ""), ("NULL", ""), ("Nano", "Nano"),
     (Decimal(7), "7"), (Decimal("7.00"), "7"), (Decimal("1.5"), "1.5"), (Decimal("1e3"), "1000"), (Decimal("NaN"), ""),
     (Decimal("Infinity"), "Infinity")],
)  # fmt: skip
def test_numbers_of_patients_as_tables_write_them(value: Any, number: str) -> None:
    assert number_of(value) == number


def test_a_patient_is_one_in_every_table(tmp_path: Path) -> None:
    pictures(tmp_path, 6)
    for table, numbers in (("a", [1, 2]), ("b", [1.0, None]), ("c", ["2", "1"])):
        start = 2 * "abc".index(table)
        rows = [{"image": f"{start + n:03}.png", "caption": "C.", "patient_id": one} for n, one in enumerate(numbers)]
        write_table(tmp_path / f"{table}.parquet", rows)
    samples, _ = read(FolderSource([tmp_path], data_license="CC0-1.0"))
    assert [sample.group for sample in samples] == ["1", "2", "1", "003", "2", "1"]
    write_table(tmp_path / "c.parquet", [{"image": "004.png", "caption": "C.", "patient_id": "001"}])
    with pytest.raises(InputError, match='is "1" the same as "001"'):
        FolderSource([tmp_path]).look()


def test_what_is_missing_is_no_patient_and_nothing_to_learn(tmp_path: Path) -> None:
    pictures(tmp_path, 5)
    texts = ["NA", "None", "null", "-", "A nodule."]
    rows = [{"image": f"{n:03}.png", "caption": one, "patient_id": "N/A"} for n, one in enumerate(texts)]
    write_table(tmp_path / "t.csv", rows)
    samples, rejects = read(FolderSource([tmp_path], data_license="CC0-1.0"))
    assert ([(s.group, s.target) for s in samples], reasons(rejects)) == (
        [("004", "A nodule.")],
        {"text says that there is none": 4},
    )
    rows = [{"image": "000.png", "question": "Which device?", "answer": one} for one in ("None", "N/A")]
    write_table(tmp_path / "t.csv", rows)
    samples, _ = read(FolderSource([tmp_path], data_license="CC0-1.0"))
    assert [sample.target for sample in samples] == ["None"]


@pytest.mark.parametrize("link", ["folder", "table"])
def test_links_out_of_the_input_are_not_followed(tmp_path: Path, link: str) -> None:
    own, outside = tmp_path / "own", captions(tmp_path / "secret", 2)
    pictures(own, 1, "other{}.png")
    rows = [{"image": "000.png", "caption": "A."}, {"image": "001.png", "caption": "B."}]
    if link == "folder":
        write_table(own / "t.csv", rows)
        (own / "images").symlink_to(outside / "images")
        samples, rejects = read(FolderSource([own], data_license="CC0-1.0"))
        assert (samples, reasons(rejects)["no image file"]) == ([], 2)
        samples, _ = read(FolderSource([own], images=own / "images", data_license="CC0-1.0"))
        assert len(samples) == 2
        return
    (own / "t.csv").symlink_to(outside / "labels.csv")
    with pytest.raises(InputError, match="a link out of"):
        FolderSource([own]).look()


def test_a_record_of_very_many_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path, 1)
    cells = ["000.png;" * MAX_PICTURES, "000.png;" * (MAX_PICTURES + 1), "000.png"]
    write_table(tmp_path / "t.csv", [{"image": cell, "caption": "A."} for cell in cells])
    source = FolderSource([tmp_path], data_license="CC0-1.0")
    samples, rejects = read(source)
    assert [1 + len(sample.more_images) for sample in samples] == [MAX_PICTURES, 1]
    assert reasons(rejects) == {"too many images in a record": 1}
    assert source.look().pictures[0] == 2 * MAX_PICTURES + 2
    write_table(
        tmp_path / "t.csv", [{"image": "000.png;" * 5000, "caption": "A."}, {"image": "000.png", "caption": "A"}]
    )
    assert FolderSource([tmp_path]).look().pictures[0] == ROOT_NAMES
    write_table(tmp_path / "t.csv", [{"image": cell, "caption": "A."} for cell in cells])
    monkeypatch.setattr("medvlm.data.sources.own.RECORD_BYTES", 10 * len(png(0)))
    assert reasons(read(source)[1])["images of a record too large"] == 1


GROUPS = [
    (["study_id", "Pat.-Nr."], "Pat.-Nr."),
    (["StudyID", "PatNr"], "PatNr"),
    (["case", "Patientennummer"], "Patientennummer"),
    (["study", "Fallnummer"], "Fallnummer"),
    (["Fallnummer", "PatNr"], "PatNr"),
    (["Fallnummer", "patient_id"], "patient_id"),
    (["num_patients", "no_patients", "Nr. Patienten", "study"], "study"),
    (["num_patient", "study"], "num_patient"),
    (["PIZ", "study"], "PIZ"),
    (["study_id", "patient_age", "pattern", "path_no", "fall"], "study_id"),
]


@pytest.mark.parametrize(("names", "group"), GROUPS)
def test_patients_go_before_studies(names: list[str], group: str) -> None:
    row = {"image": "a.png", "text": "Clear lungs.", **dict.fromkeys(names, "7")}
    assert guess(list(row), [row], Columns()).group == group


def test_a_patient_that_is_no_text_is_counted(tmp_path: Path) -> None:
    """Else images of one patient would be parted unseen."""
    pictures(tmp_path, 6)
    told = [["P1"], True, {"id": "P1"}, [], None, "P1"]
    rows = [{"image": f"{n:03}.png", "caption": "A.", "patient_id": one} for n, one in enumerate(told)]
    write_table(tmp_path / "t.jsonl", rows)
    samples, rejects = read(FolderSource([tmp_path], data_license="CC0-1.0"))
    assert [sample.group for sample in samples] == ["003", "004", "P1"]
    assert reasons(rejects) == {"patient cannot be read": 3}
    assert [reject.detail for reject in rejects] == ["patient_id: list", "patient_id: bool", "patient_id: dict"]


def test_a_patient_in_a_column_of_decimals(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    rows = [{"image": f"{n:03}.png", "caption": "A.", "patient_id": one} for n, one in enumerate([7, 7, None])]
    write_table(tmp_path / "t.parquet", [{**r, "patient_id": r["patient_id"] and Decimal(7)} for r in rows])
    samples, _ = read(FolderSource([tmp_path], data_license="CC0-1.0"))
    assert [sample.group for sample in samples] == ["7", "7", "002"]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_a_patient_in_some_rows_tears_no_study_apart(tmp_path: Path, ending: str) -> None:
    pictures(tmp_path, 2)
    rows = [{"image": f"{n % 2:03}.png", "caption": "A.", "study_id": f"S{n // 6}"} for n in range(120)]
    for patient in [{"patient_id": "P9"}, {"patient_id": "P9", "study_id": None}]:
        blank = {} if ending == ".jsonl" else {"patient_id": None}
        table = write_table(tmp_path / f"t{ending}", [*({**row, **blank} for row in rows[1:]), {**rows[0], **patient}])
        with pytest.raises(UsageError, match=r'"patient_id" is empty in rows where "study_id" is not.*--group-column'):
            FolderSource([table]).look()
    samples, _ = read(FolderSource([table], columns=Columns(group="study_id"), data_license="CC0-1.0"))
    assert len({sample.group for sample in samples}) == 21
    full = [{**row, "patient_id": f"P{n // 12}"} for n, row in enumerate(rows)]
    write_table(table, [{**row, "study_id": None if n % 2 else row["study_id"]} for n, row in enumerate(full)])
    samples, _ = read(FolderSource([table], data_license="CC0-1.0"))
    assert len({sample.group for sample in samples}) == 10


def test_ids_that_differ_by_a_slash_stay_two(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    for uids, patients in ((["a/b", "a_b"], ["1", "1"]), (["1", "2"], ["Patient/1", "Patient_1"])):
        rows = [{"image": f"{n:03}.png", "caption": "A.", "uid": uids[n], "mrn": patients[n]} for n in range(2)]
        write_table(tmp_path / "t.csv", rows)
        samples, _ = read(FolderSource([tmp_path], data_license="CC0-1.0"))
        assert len({sample.id for sample in samples}) == 2
        assert len({sample.group for sample in samples}) == len(set(patients))
        assert all(sample.id.count("/") == 4 for sample in samples)


def test_paths_of_windows_lead_to_their_longest_end(tmp_path: Path) -> None:
    pictures(tmp_path, 2, "bilder/{}.png")
    (tmp_path / "1.png").write_bytes(png(9))
    names = ["C:\\daten\\bilder\\0.png", "d:/bilder/1", "\\\\server\\share\\bilder\\1.png", "C:\\x\\gone.png"]
    write_table(tmp_path / "t.csv", [{"image": name, "caption": "A."} for name in names])
    samples, rejects = read(FolderSource([tmp_path], data_license="CC0-1.0"))
    assert [sample.image.data for sample in samples] == [png(0), png(1), png(1)]
    assert reasons(rejects) == {"unsafe image name": 1, "image without a row": 1}
    assert below(tmp_path, "C:/a/../1.png") == "1.png"
    assert below(tmp_path / "bilder", "C:/../1.txt") == "C:/../1.txt"


def test_what_a_table_says_of_questions(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    said = {"question_type": "Presence", "answer_type": "CLOSED ", "organ": "Chest", "lang": "EN", "modality": "CT"}
    write_table(tmp_path / "t.csv", [{"image": "000.png", "question": "Q?", "answer": "Yes", **said}])
    (sample,), _ = read(FolderSource([tmp_path], data_license="CC0-1.0"))
    told = (sample.question_type, sample.answer_type, sample.organ, sample.language, sample.modality)
    assert told == ("Presence", "closed", "chest", "en", "ct")


def test_the_same_name_in_two_inputs_is_of_two_pictures(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        pictures(tmp_path / name, 1)
        write_table(tmp_path / name / "t.csv", [{"image": "000.png", "caption": f"C{number}."}])
    samples, _ = read(FolderSource([tmp_path / "a", tmp_path / "b"], data_license="CC0-1.0"))
    assert len({sample.group for sample in samples}) == len({sample.id for sample in samples}) == 2


@pytest.mark.realdata
def test_a_published_set_read_as_if_it_were_ones_own(realdata: Path) -> None:
    """Find out by itself what VQA-RAD's columns mean, and come to the samples of the source that knows them."""
    source = FolderSource([realdata / "vqa_rad" / "testset.json"], data_license="CC0-1.0")
    assert source.look().columns.meanings().items() >= {
        ("image", "image_name"),
        ("question", "question"),
        ("answer", "answer"),
    }
    samples, rejects = read(source)
    known = VqaRadSource([realdata / "vqa_rad"])
    theirs = [item for unit in known.units() for item in known.read(unit) if isinstance(item, Sample)]
    own = sorted((s.file_name, " ".join(s.prompt.split()), " ".join(s.target.split())) for s in samples)
    assert own == sorted((s.file_name, s.prompt, s.target) for s in theirs if s.official_split == "test")
    assert set(reasons(rejects)) == {"image without a row"}
