"""Files of records: every record once at any cut, and whatever is wrong with a file told in one line."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import os
import random
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.sources import records
from medvlm.data.sources.records import Bad, Record
from medvlm.errors import InputError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LINE = st.one_of(
    st.dictionaries(TEXTS, TEXTS | st.integers() | st.none(), max_size=3).map(lambda row: json.dumps(row).encode()),
    st.dictionaries(TEXTS, TEXTS, max_size=3).map(lambda row: json.dumps(row, ensure_ascii=False).encode()),
    st.sampled_from([b"", b"  ", b"[1]", b'"x"', b"{", b"nonsense", b"\xff\xfe", b'{"a": "\xe9"}', b"{}\r"]),
)


def every(path: Path, kind: str | None = None) -> list[tuple[int, Record | Bad]]:
    return [found for locator in records.slices(path, kind) for found in records.read(locator)]


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        records.slices(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def lines_of(data: bytes) -> list[tuple[int, Any]]:
    """The slow and obvious reading of JSON lines: where each line that is not blank begins, and its object or None."""
    found: list[tuple[int, Any]] = []
    place = 0
    for number, line in enumerate(data.split(b"\n")):
        body = line.removeprefix(codecs.BOM_UTF8) if not number else line
        if body.strip():
            try:
                value = json.loads(body.decode("utf-8"))
            except ValueError:
                value = None
            found.append((place, value if isinstance(value, dict) else None))
        place += len(line) + 1
    return found


@given(st.lists(LINE, max_size=8), st.integers(1, 60), st.booleans(), st.booleans())
def test_json_lines_are_covered_once_at_any_cut(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], step: int, ended: bool, marked: bool
) -> None:
    data = (codecs.BOM_UTF8 if marked else b"") + b"\n".join(lines) + (b"\n" if ended and lines else b"")
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "LINES_BYTES", step)
        found = every(path)
        assert len(records.slices(path)) == math.ceil(len(data) / step)
    assert [(place, None if isinstance(record, Bad) else record) for place, record in found] == lines_of(data)
    assert {record.reason for _, record in found if isinstance(record, Bad)} <= {"malformed record"}


@pytest.mark.parametrize("blank", ["", "  ", "\r"])
def test_a_blank_line_behind_the_byte_order_mark_is_no_record(tmp_path: Path, blank: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + f'{blank}\n{{"n": 1}}\n'.encode())
    assert [record for _, record in every(path)] == [{"n": 1}]


@given(st.lists(st.integers(0, 90), max_size=8), st.integers(1, 50), st.integers(20, 60))
def test_lines_that_are_too_long_are_counted_and_the_others_read(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], step: int, longest: int
) -> None:
    lines = [json.dumps({"n": "x" * length}).encode() for length in lengths]
    path = tmp_path_factory.mktemp("long") / "x.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "LINES_BYTES", step)
        patch.setattr(records, "LINE_BYTES", longest)
        found = [record for _, record in every(path)]
    assert [isinstance(record, Bad) for record in found] == [len(line) + 1 > longest for line in lines]
    assert all(record.reason == "record too large" for record in found if isinstance(record, Bad))


@given(
    st.lists(st.dictionaries(TEXTS, TEXTS) | st.integers(), max_size=9),
    st.integers(1, 4),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_json_lists_are_covered_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], step: int, encoding: str
) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    path.write_bytes(json.dumps(rows, ensure_ascii=False).encode(encoding))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "ROWS", step)
        found = every(path)
    assert [number for number, _ in found] == list(range(len(rows)))
    assert [None if isinstance(record, Bad) else record for _, record in found] == [
        row if isinstance(row, dict) else None for row in rows
    ]


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=8), st.integers(1, 4), st.sampled_from(",;\t|"))
def test_tables_are_read_as_the_csv_module_wrote_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], step: int, delimiter: str
) -> None:
    """Quotes, line ends in fields, formulas and blanks come back as they were, whatever parts the columns."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([["one", "other"], *rows])
    path = tmp_path_factory.mktemp("csv") / ("x.tsv" if delimiter == "\t" else "x.csv")
    path.write_bytes(text.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "ROWS", step)
        found = [record for _, record in every(path)]
    assert found == [{"one": one, "other": other} for one, other in rows if one or other]
    assert records.columns(path) == ["one", "other"]


@given(st.lists(st.integers(1, 5), max_size=4))
def test_parquet_rows_are_covered_once(tmp_path_factory: pytest.TempPathFactory, groups: list[int]) -> None:
    path = tmp_path_factory.mktemp("parquet") / "x.parquet"
    schema = pa.schema([("n", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start, size in zip([sum(groups[:n]) for n in range(len(groups))], groups, strict=True):
            numbers = range(start, start + size)
            writer.write_table(pa.table({"n": list(numbers), "text": [f"{n}é" for n in numbers]}, schema))
    assert every(path) == [(n, {"n": n, "text": f"{n}é"}) for n in range(sum(groups))]
    assert len(records.slices(path)) == len(groups)
    assert records.columns(path) == ["n", "text"]


def test_parquet_as_datasets_writes_it(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "choices": ["a", "b"], "score": n / 3} for n in range(1200)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "x.parquet", batch_size=500)
    assert [record for _, record in every(tmp_path / "x.parquet")] == rows


def test_a_damaged_row_group_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"n": [bytes([n]) * 500 for n in range(6)]}), path, row_group_size=2, compression="snappy")
    begin = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[begin : begin + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    found = every(path)
    assert [number for number, record in found if not isinstance(record, Bad)] == [0, 1, 4, 5]
    assert [number for number, record in found if isinstance(record, Bad)] == [2, 3]


def test_a_damaged_cell_costs_its_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    texts = pa.array([b"row %d" % n if n != 41 else b"\xff" for n in range(100)], pa.binary())
    pq.write_table(pa.table({"text": texts.view(pa.string())}), path)
    found = every(path)
    assert [number for number, _ in found] == list(range(100))
    assert [number for number, record in found if isinstance(record, Bad)] == [41]
    assert found[99] == (99, {"text": "row 99"})


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("x.json", b"", "not valid JSON"),
        ("x.json", b'{"a": 1}', "not a list of records"),
        ("x.json", b"[" * 100_000, "not valid JSON"),
        ("x.json", b'[{"n": ' + b"9" * 5000 + b"}]", "not valid JSON"),
        ("x.json", '[{"a": "é"}]'.encode("latin-1"), "not UTF-8 (byte 8 is 0xe9)"),
        ("x.csv", "a,b\né,x\n".encode("latin-1"), "not UTF-8 (byte 4 is 0xe9)"),
        ("x.csv", b"", "names no columns"),
        ("x.csv", b"\n\n", "names no columns"),
        ("x.csv", b"a,b,a\n1,2,3\n", "columns 1 and 3 have the same name"),
        ("x.csv", b'a,b\n1,2\n"3,4\n5,6\n', "line 3 opens a quotation mark that nothing closes"),
        ("x.tsv", b'"a\tb\n1\t2\n', "the first line is no TSV"),
        ("x.parquet", b"PAR1nothingPAR1", "not a parquet file"),
        ("x.parquet", b"", "not a parquet file"),
        ("x.txt", b"", "name a file that ends in"),
    ],
)
def test_files_that_cannot_be_read_are_told_in_one_line(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert said in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.jsonl", "x.parquet"])
def test_absent_files_and_folders(tmp_path: Path, name: str) -> None:
    refused(tmp_path / name)
    if name != "x.jsonl":  # a folder has a size, too: the units of one are read as rejects
        (tmp_path / name).mkdir()
        refused(tmp_path / name)


def test_files_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "WHOLE_BYTES", 10)
    for name in ("x.json", "x.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n3,4\n")
        assert "too much for one JSON or CSV file" in refused(tmp_path / name)


def test_a_stray_quotation_mark_costs_one_row(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('a,b\n1,2\n"x"y,3\n4,"five ""5"""\n6,say "7"\n')
    found = [record for _, record in every(tmp_path / "x.csv")]
    assert isinstance(found[1], Bad)
    assert found[1].reason == "malformed record"
    assert found[1].detail.startswith("line 3: ")
    assert [record for record in found if not isinstance(record, Bad)] == [
        {"a": "1", "b": "2"},
        {"a": "4", "b": 'five "5"'},
        {"a": "6", "b": 'say "7"'},
    ]


@pytest.mark.parametrize(
    "text",
    [
        'sep=;\r\nimage;text;note\r\na.png;"One; two";3\r\n',
        "sep=|\nimage|text|note\na.png|One; two|3\n",
        '"sep=;"\n"image";"text";"note"\na.png;"One; two";3\n',
        '"image";"text";"note"\na.png;"One; two";3\n',
    ],
)
def test_the_line_of_excel_that_names_the_separator(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert records.columns(path) == ["image", "text", "note"]
    assert list(records.everything(path)) == [{"image": "a.png", "text": "One; two", "note": "3"}]
    path.write_text(text + "only")
    assert [record.get("text") for record in records.everything(path)] == ["One; two", None]
    path.write_text("sep=;\n")
    with pytest.raises(InputError, match="names no columns"):
        records.columns(path)


def test_names_of_columns_that_hold_separators(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('file_name;"Befund, Text, lang";"Pat, Nr, a, b"\na.png;Clear;7\n')
    assert list(records.everything(path)) == [
        {"file_name": "a.png", "Befund, Text, lang": "Clear", "Pat, Nr, a, b": "7"}
    ]


def test_short_long_and_empty_rows(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1\n1,2,,\n,\n\n1,2,3\n")
    found = [record for _, record in every(tmp_path / "x.csv")]
    assert found[:2] == [{"a": "1", "b": None}, {"a": "1", "b": "2"}]
    assert found[2:] == [Bad("malformed record", "line 6: 3 fields in 2 columns")]


def _questions(**changed: str) -> list[str]:
    """A table of 20 questions, some of which have other lines."""
    rows = [f"PMC{n}_a.jpg,question {n},yes" for n in range(20)]
    return ["Figure_path,Question,Answer", *(changed.get(f"n{n}", row) for n, row in enumerate(rows))]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("changed", "bad"),
    [
        # The next mark ends the field amid a line: an error there, a row too long, a row of the right length.
        ({"n3": 'PMC3_a.jpg,"open,yes', "n9": 'PMC9_a.jpg,question" 9,yes'}, [3]),
        ({"n3": 'PMC3_a.jpg,"open,yes', "n9": 'PMC9_a.jpg,question 9,yes"'}, [3]),
        ({"n3": 'PMC3_a.jpg,"open,yes', "n9": 'PMC9_a.jpg,"question 9, long",yes'}, [3]),
        ({"n3": 'PMC3_a.jpg,"open,yes', "n9": 'PMC9_a.jpg",yes'}, [3, 9]),
        ({"n3": 'PMC3_a.jpg,"open,yes', "n4": 'PMC4_a.jpg",question 4,yes'}, [3]),
        ({"n0": 'PMC0_a.jpg,"open,yes', "n2": 'PMC2_a.jpg",yes'}, [0, 2]),
        ({"n3": 'PMC3_a.jpg,"open,yes', "n7": 'PMC7_a.jpg,"x",yes'}, [3]),
        # What was opened is closed where it should be.
        ({"n3": 'PMC3_a.jpg,"one,\ntwo, three, four\n5, six, seven 7,",yes'}, []),
        ({"n3": 'PMC3_a.jpg,"one, two\nthree"'}, []),
    ],
)
def test_a_stray_quotation_mark_costs_no_other_row(
    tmp_path: Path, changed: dict[str, str], bad: list[int], end: str
) -> None:
    lines = _questions(**changed)
    path = tmp_path / "x.csv"
    path.write_bytes(end.join([*lines, ""]).encode())
    found = [record for _, record in every(path)]
    assert [n for n, record in enumerate(found) if isinstance(record, Bad)] == bad
    assert len(found) == 20
    for n, record in enumerate(found):
        if isinstance(record, dict):
            assert record["Figure_path"].rstrip('"') == f"PMC{n}_a.jpg"


REPORT_LINES = (
    "FINDINGS: large effusion, left.",
    "L4-L5, mild bulge.",
    "2022-05-01, Vergleich",
    "12mm, left, stable",
    "T2, hyperintense, new, 3",
    "IMPRESSION:",
    "",
    'a so-called "mass", 5mm',
    "size of 5mm, 2.png",
)


def _reports(order: list[str], line_end: str = "\n") -> str:
    """A valid table of 200 reports, most of several lines."""
    chance = random.Random(len(order[0]))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, order, lineterminator=line_end)
    writer.writeheader()
    for n in range(200):
        report = line_end.join([*chance.choices(REPORT_LINES, k=chance.randrange(6)), f"end {n}"])
        writer.writerow({"id": n, "image": f"{n}.png", "report": report, "split": chance.choice(["train", "test"])})
    return text.getvalue()


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "order",
    [["image", "report", "id", "split"], ["report", "image", "split", "id"], ["id", "split", "report", "image"]],
)
def test_reports_of_several_lines_are_read_as_the_csv_module_does(
    tmp_path: Path, order: list[str], line_end: str
) -> None:
    text = _reports(order, line_end)
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode())
    assert [record for _, record in every(path)] == list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize(
    "text",
    [
        'report,image\n"FINDINGS: effusion.\nno more",1.png\n"Mass.\nend",2.png\nNormal,3.png\n',
        'image,report\n1.png,Normal.\n2.png,"MRI.\nL4-L5, bulge.\nL5-S1, none."\n3.png,Normal\n',
        'id,report,split\n1,Normal,train\n2,"X\n12mm, left, stable\nend",test\n3,n,train\n',
        'study,text\n1,"Befund:\n2022-05-01, Vergleich\nkein Erguss"\n2,o.B.\n',
        '"image","report"\n"1.png","CT.\nL4-L5, bulge\nend"\n"2.png","b\nT1, dark\n"\n',
    ],
)
def test_small_tables_of_reports_are_read_whole(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    assert [record for _, record in every(tmp_path / "x.csv")] == list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_row_of_several_lines_that_is_too_long_is_one_reject(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('image,report\n1.png,a\n2.png,b\n4.png,"x\ny",extra\n5.png,ok\n')
    found = [record for _, record in every(tmp_path / "x.csv")]
    assert found[2] == Bad("malformed record", "line 4: 3 fields in 2 columns")
    assert found[3:] == [{"image": "5.png", "report": "ok"}]


def test_a_mark_that_opens_only_when_read_again_costs_its_line(tmp_path: Path) -> None:
    """The mark in row 1 takes in rows 2 to 4; once it is left alone, the one in row 4 opens a field, to the end."""
    (tmp_path / "x.csv").write_text('id,a,b\n1,"x,y\n2,b,c\n3,b,c\n4,",c\n5,b,c\n6,b,c\n')
    found = [record for _, record in every(tmp_path / "x.csv")]
    assert [n for n, record in enumerate(found, 1) if isinstance(record, Bad)] == [1, 4]
    assert [record["id"] for record in found if isinstance(record, dict)] == ["2", "3", "5", "6"]
    assert found[3] == Bad("malformed record", "line 5: opens a quotation mark that nothing closes")


def test_a_line_of_a_report_below_a_stray_mark_is_no_record(tmp_path: Path) -> None:
    rows = "".join(f"{n}.png,text {n}\n" for n in range(9))
    (tmp_path / "x.csv").write_text(f'image,report\n{rows}9.png,"He said\nL4-L5, mild "ok" yes\n10.png,end\n')
    found = [record for _, record in every(tmp_path / "x.csv")]
    assert [isinstance(record, Bad) for record in found] == [False] * 9 + [True, True, False]


def test_a_table_takes_little_more_memory_than_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with open(path, "w") as file:
        file.write("a,b,c,d,e,f,g,h\n")
        file.writelines(f"PMC{n}.jpg,{'what is it ' * 20},A:one,B:two,C:three,D:four,A,x\n" for n in range(20_000))
    size = path.stat().st_size
    tracemalloc.start()
    try:
        assert len(records.columns(path)) == 8
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        assert len(records.slices(path)) == 40
        assert tracemalloc.get_traced_memory()[1] < 1.5 * size
    finally:
        tracemalloc.stop()


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[{"n": 1}]')
    assert every(path) == [(0, {"n": 1})]
    path.write_text('[{"n": 2}]')
    os.utime(path, ns=(1, 1))
    assert every(path) == [(0, {"n": 2})]


def test_columns_are_those_of_the_first_hundred_records(tmp_path: Path) -> None:
    rows = [{f"column {n}": n} for n in range(150)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert records.columns(tmp_path / "x.jsonl") == [f"column {n}" for n in range(100)]


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.text(st.characters(categories=["Cs"]), min_size=1)
    | st.lists(st.text())
    | st.binary()
)
def test_a_field_is_one_line_of_unicode_or_no_text(value: Any) -> None:
    text = records.text_of(value)
    if isinstance(value, bool | list | bytes):
        assert text is None
    if isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value):
        assert text == " ".join(value.replace("\0", " ").split())
    if text is not None:
        text.encode()
        assert text == " ".join(text.split())
        assert "\0" not in text
        assert records.text_of(text) == text


def test_fields_at_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "FIELD_CHARS", 5)
    assert records.text_of("12345") == "12345"
    assert records.text_of("123456") is None
    assert records.need({"a": "123456"}, "a") == "a is longer than 5 letters"
    assert records.need({"a": [1]}, "a") == "a is no text"
    assert records.need({"a": " "}, "a") == records.need({"a": float("nan")}, "a") == records.need({}, "a") == "no a"
    assert records.need({"Anwser": 0}, "answer|Anwser") == ""
    assert records.field({"answer": None, "Anwser": 0}, "answer|Anwser") == 0


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (["image_id", "befund"], "CT Thorax:\n2,5 cm messende Raumforderung rechts.\nKein Erguss."),
        (["study_date", "report"], "CT\n2023-01-02, CT chest compared\nNo change."),
        (["id", "report"], "MRI spine\n3, mild bulge\nNo stenosis."),
    ],
)
def test_lines_of_a_report_that_look_like_rows_stay_in_it(tmp_path: Path, header: list[str], value: str) -> None:
    path = tmp_path / "t.csv"
    keys = [f"2023-01-{day:02}" if header[0] == "study_date" else str(day) for day in range(1, 29)]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows((key, value if number % 3 else "Normal.") for number, key in enumerate(keys))
    with path.open(encoding="utf-8", newline="") as file:
        assert list(records.everything(path)) == list(csv.DictReader(file))


@pytest.mark.parametrize("header", ["Bild;Befund (Text, lang);Alter", "id;report, text", "image, report, age", "a,b"])
def test_names_may_hold_commas(tmp_path: Path, header: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(header + "\n")
    separator = ";" if ";" in header else ","
    assert records.columns(path) == [name.strip() for name in header.split(separator)]
